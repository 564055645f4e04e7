"""Each row once an epoch, on one process only, and the same rows in a step however many processes share it."""

from collections import Counter

import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Dataset
from transformers import TrainerControl, TrainerState, TrainingArguments

from finetune.data.collate import BLANK
from finetune.training.sampling import EpochCallback, EvenSampler


class Numbers(Dataset[int]):
    """A data set whose rows are their own indices."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> int:
        return index


def dealt(num_rows: int, world_size: int, micro: int, epoch: int = 0) -> list[list[list[int]]]:
    """Return the micro-batches of each process, as accelerate's loader makes them."""
    dataset = Numbers(num_rows)
    processes = []
    for rank in range(world_size):
        sampler = EvenSampler(dataset, micro * world_size, micro * world_size, seed=42, by_length=False)
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
    sampler = EvenSampler(Numbers(8), 4, 4, seed=1, by_length=False)
    arguments = TrainingArguments(output_dir="/nonexistent", use_cpu=True, report_to=[])

    for reached, epoch in ((0.0, 0), (0.5, 0), (0.9999999999, 1), (2.4, 2)):
        EpochCallback(sampler).on_epoch_begin(arguments, TrainerState(epoch=reached), TrainerControl())
        assert sampler.epoch == epoch
