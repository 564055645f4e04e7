"""Grouping by length, the same after a stop."""

import numpy as np

from finetune.training.sampler import EvenSampler

LENGTHS = np.random.default_rng(0).integers(1, 500, 200).tolist()


def by_length(seed: int) -> EvenSampler:
    return EvenSampler(len(LENGTHS), 1, 8, seed, lengths=LENGTHS)


def test_each_sample_comes_once_an_epoch_in_an_order_of_seed_and_epoch_alone() -> None:
    first, second = by_length(seed=1), by_length(seed=1)
    orders = [list(first)]
    first.epoch = 1
    orders.append(list(first))
    second.epoch = 1

    assert sorted(orders[0]) == sorted(orders[1]) == list(range(200))
    assert orders[0] != orders[1]
    assert list(second) == orders[1]
    assert list(by_length(seed=2)) != orders[0]


def test_neighbours_are_alike_in_length() -> None:
    order = list(by_length(seed=1))
    groups = [[LENGTHS[index] for index in order[start : start + 8]] for start in range(0, 200, 8)]
    random = [LENGTHS[start : start + 8] for start in range(0, 200, 8)]

    assert np.mean([max(group) - min(group) for group in groups]) < 0.3 * np.mean([max(g) - min(g) for g in random])
