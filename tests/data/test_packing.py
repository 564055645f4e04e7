"""Bins: every sample once, none over capacity, close to full, the same every time."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.packing import pack
from finetune.errors import DataError

CAPACITY = 64


@given(st.lists(st.integers(1, CAPACITY), min_size=1, max_size=200), st.integers(0, 3))
def test_every_sample_is_in_one_bin_and_no_bin_overflows(lengths: list[int], seed: int) -> None:
    plan = pack(np.array(lengths, np.int32), CAPACITY, seed)
    assert sorted(plan.samples.tolist()) == list(range(len(lengths)))
    bins = [plan.bin(index).tolist() for index in range(plan.num_bins)]
    assert all(0 < sum(lengths[sample] for sample in samples) <= CAPACITY for samples in bins)
    assert all(samples == sorted(samples) for samples in bins)
    assert bins == sorted(bins)
    assert plan.num_tokens == sum(lengths)
    assert plan.efficiency == pytest.approx(sum(lengths) / (CAPACITY * len(bins)))


def best_fit_decreasing(lengths: list[int], capacity: int) -> int:
    """Count the bins of the textbook algorithm, one sample at a time."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else capacity) - length)
    return len(rooms)


@given(st.lists(st.integers(1, CAPACITY), min_size=1, max_size=200))
def test_the_bins_are_those_of_best_fit_decreasing(lengths: list[int]) -> None:
    assert pack(np.array(lengths, np.int32), CAPACITY, seed=0).num_bins == best_fit_decreasing(lengths, CAPACITY)


def chat_lengths(num_samples: int) -> np.ndarray:
    return np.clip(np.random.default_rng(0).lognormal(6.4, 0.8, num_samples), 16, 2048).astype(np.int32)


@pytest.mark.parametrize(
    ("lengths", "capacity"),
    [
        pytest.param(chat_lengths(100_000), 2048, id="chats"),
        pytest.param(np.clip(chat_lengths(100_000) // 8, 8, 2048), 2048, id="short"),
        pytest.param(chat_lengths(100_000) * 4, 16384, id="long"),
        pytest.param(np.random.default_rng(0).integers(205, 4097, 100_000), 4096, id="uniform"),
    ],
)
def test_bins_are_nearly_full(lengths: np.ndarray, capacity: int) -> None:
    assert pack(lengths, capacity, seed=0).efficiency >= 0.995


def test_the_plan_depends_on_its_arguments_alone() -> None:
    lengths = chat_lengths(20_000)
    first, again, other = (pack(lengths, 2048, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.samples, again.samples)
    assert np.array_equal(first.offsets, again.offsets)
    assert not np.array_equal(first.samples, other.samples)


def test_a_million_samples_take_seconds() -> None:
    lengths = chat_lengths(1_000_000)
    start = time.process_time()
    pack(lengths, 2048, seed=0)
    assert time.process_time() - start < 5


def test_a_sample_that_no_bin_can_hold_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        pack(np.array([3, 65, 4]), CAPACITY, seed=0)
    assert str(caught.value) == (
        "sample_packing: sample 1 has 65 tokens, more than the 64 of a sequence; drop or truncate it "
        "(excess_length_strategy), or raise sequence_len"
    )


def test_nothing_to_pack_is_refused() -> None:
    with pytest.raises(DataError, match="sample_packing: there is no sample to pack"):
        pack(np.array([], np.int32), CAPACITY, seed=0)
