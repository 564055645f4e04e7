"""Each row once an epoch, on one process only, and the same rows in a step however many processes share it."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Dataset
from transformers import TrainerControl, TrainerState, TrainingArguments

from finetune.data.collate import BLANK
from finetune.training.sampler import EpochCallback, EvenSampler, FilledSampler, share_out

LENGTHS = np.random.default_rng(0).integers(1, 500, 200).tolist()


class Numbers(Dataset[int]):
    """A data set whose rows are their own indices."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> int:
        return index


def dealt(num_rows: int, world_size: int, micro: int, epoch: int = 0, **options: Any) -> list[list[list[int]]]:
    """Return the micro-batches of each process, as accelerate's loader makes them."""
    options = {"global_batch": micro * world_size, "num_processes": world_size, **options}
    dataset = Numbers(num_rows)
    processes = []
    for rank in range(world_size):
        sampler = EvenSampler(num_rows, micro * world_size, seed=42, **options)
        sampler.epoch = epoch
        loader = DataLoader(dataset, batch_size=micro, sampler=sampler)
        shard = prepare_data_loader(loader, num_processes=world_size, process_index=rank, put_on_device=False)
        processes.append([batch.tolist() for batch in shard])
    return processes


@pytest.mark.parametrize("num_rows", [1, 3, 37, 40])
@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("micro", [1, 4])
def test_each_row_is_dealt_to_one_process_once_an_epoch(num_rows: int, world_size: int, micro: int) -> None:
    processes = dealt(num_rows, world_size, micro)

    ledger = Counter(row for batches in processes for batch in batches for row in batch)
    del ledger[BLANK]
    assert ledger == Counter(range(num_rows))
    assert len({len(batches) for batches in processes}) == 1  # the same number of passes on every process


@pytest.mark.parametrize("num_rows", [1, 7, 12, 13])
@pytest.mark.parametrize("world_size", [2, 5])
def test_an_evaluation_deals_each_row_to_one_process_and_fills_up_with_blanks(num_rows: int, world_size: int) -> None:
    """Nothing comes twice, so that a batch of several rows may have one result."""
    ledger: Counter[int] = Counter()
    last_real = -1
    for rank in range(world_size):
        loader = DataLoader(Numbers(num_rows), batch_size=3, sampler=FilledSampler(num_rows, 3 * world_size))
        shard = prepare_data_loader(loader, num_processes=world_size, process_index=rank, put_on_device=False)
        batches = [batch.tolist() for batch in shard]
        assert len(batches) == -(-num_rows // (3 * world_size))
        ledger.update(row for batch in batches for row in batch)
        # of one result for each process accelerate keeps as many of the last batch as rows are left over in it
        last_real = rank if set(batches[-1]) != {BLANK} else last_real
        assert shard.remainder in (0, num_rows % (3 * world_size), -1)
    del ledger[BLANK]
    assert ledger == Counter(range(num_rows))
    assert last_real < (num_rows % (3 * world_size) or 3 * world_size)


def test_a_step_has_the_same_rows_on_1_2_and_4_processes() -> None:
    def steps(world_size: int) -> list[set[int]]:
        processes = dealt(37, world_size, 8 // world_size)
        return [{row for batch in step for row in batch} - {BLANK} for step in zip(*processes, strict=True)]

    assert steps(1) == steps(2) == steps(4)


def test_epochs_have_different_orders_and_the_first_is_that_of_the_seed() -> None:
    (first,), (second,) = dealt(20, 1, 20), dealt(20, 1, 20, epoch=1)

    assert first[0] == torch.randperm(20, generator=torch.Generator().manual_seed(42)).tolist()
    assert first != second


def test_a_resumed_run_draws_the_order_of_its_epoch() -> None:
    sampler = EvenSampler(8, 4, 4, seed=1)
    arguments = TrainingArguments(output_dir="/nonexistent", use_cpu=True, report_to=[])

    for reached, epoch in ((0.0, 0), (0.5, 0), (0.9999999999, 1), (2.4, 2)):
        EpochCallback(sampler).on_epoch_begin(arguments, TrainerState(epoch=reached), TrainerControl())
        assert sampler.epoch == epoch


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


WORK = np.random.default_rng(1).integers(1, 2048**2, 96)


def imbalance(processes: list[list[list[int]]], passes: int) -> float:
    """Return how much longer steps of ``passes`` take than their mean work, summed over the epoch."""
    totals = np.array([[sum(int(WORK[row]) for row in batch) for batch in batches] for batches in processes])
    steps = totals.reshape(len(processes), -1, passes).sum(axis=2)
    return float(steps.max(axis=0).sum() / steps.mean(axis=0).sum())


@pytest.mark.parametrize(("world_size", "micro", "passes"), [(2, 1, 4), (4, 2, 2), (4, 4, 1), (8, 1, 4)])
def test_the_work_of_a_step_is_shared_evenly_and_its_rows_stay(world_size: int, micro: int, passes: int) -> None:
    options = {"global_batch": world_size * micro * passes}
    plain = dealt(96, world_size, micro, **options)
    even = dealt(96, world_size, micro, work=WORK, **options)

    def steps(processes: list[list[list[int]]]) -> list[list[int]]:
        starts = range(0, len(processes[0]), passes)
        return [sorted(row for batches in processes for b in batches[i : i + passes] for row in b) for i in starts]

    assert steps(plain) == steps(even)
    assert imbalance(even, passes) - 1 < 0.5 * (imbalance(plain, passes) - 1)


def test_blanks_stay_in_the_last_pass_where_work_is_shared() -> None:
    processes = dealt(37, 4, 2, work=WORK[:37], global_batch=16)
    ledger = Counter(row for batches in processes for batch in batches for row in batch)
    assert ledger.pop(BLANK) == 3
    assert ledger == Counter(range(37))
    assert all(BLANK not in batch for batches in processes for batch in batches[:-1])


def test_one_process_keeps_the_drawn_order() -> None:
    assert dealt(20, 1, 4, work=WORK[:20]) == dealt(20, 1, 4)


def test_rows_of_like_work_share_a_pass_and_the_light_process_takes_the_heavy_share() -> None:
    # passes (9, 8), (3, 2): the process that had 9 takes the 2
    assert share_out([10, 11, 12, 13], [2, 9, 3, 8], per_step=2, num_processes=2) == [11, 13, 10, 12]
    assert share_out([10, 11, 12, 13], [1, 4, 2, 3], per_step=4, num_processes=2) == [11, 10, 13, 12]


def test_each_row_is_dealt_out_as_declared_whatever_their_number() -> None:
    """Each row once an epoch and nothing but blanks besides, the same steps for one process and for two."""
    for num_rows in (7, 13, 37):
        epochs: dict[int, list[list[int]]] = {}
        for num_processes, micro in ((1, 4), (2, 2)):
            sampler = EvenSampler(
                num_rows, micro * num_processes if num_processes > 1 else 1, 8, seed=3, num_processes=num_processes
            )
            for epoch in range(3):
                sampler.epoch = epoch
                dealt = list(sampler)
                rows = [row for row in dealt if row != BLANK]
                assert sorted(rows) == list(range(num_rows))
                assert len(dealt) % sampler.per_step == 0
                steps = [sorted(row for row in dealt[start : start + 8] if row != BLANK) for start in range(0, 40, 8)]
                epochs.setdefault(epoch, steps)
                assert steps == epochs[epoch]
        assert num_rows < 8 or epochs[0] != epochs[1] != epochs[2]
