"""A batch taken apart again: padded, packed in rows, packed flat."""

import math

import numpy as np
import pytest
import torch

from finetune.data.collate import PackedCollator, PaddedCollator, SupervisedCollator
from finetune.training.step import StepRecord, trained_samples


def sample(length: int, start: int) -> dict[str, np.ndarray]:
    ids = np.arange(start, start + length, dtype=np.int32)
    return {"input_ids": ids, "labels": np.where(np.arange(length) < 2, -100, ids).astype(np.int32)}


SAMPLES = [sample(length, 10 * length) for length in (5, 3, 7, 4)]
BLANK = {"input_ids": np.zeros(1, np.int32), "labels": np.full(1, -100, np.int32)}


@pytest.mark.parametrize(
    ("collator", "items"),
    [
        (PaddedCollator(0, 16), [*SAMPLES, BLANK]),
        (PackedCollator(0, 16), [SAMPLES[:2], SAMPLES[2:]]),
        (PackedCollator(0, 16, pad_to_sequence_len=False), [SAMPLES[:3], SAMPLES[3:]]),
        (PackedCollator(0, 16, flatten=True), [SAMPLES[:2], SAMPLES[2:], [BLANK]]),
    ],
    ids=["padded", "packed", "packed short", "flat"],
)
def test_the_samples_of_a_batch_come_back(collator: PaddedCollator | PackedCollator, items: list[object]) -> None:
    found = list(trained_samples(SupervisedCollator(collator)(items)))

    assert [ids.tolist() for ids, _ in found] == [row["input_ids"].tolist() for row in SAMPLES]
    assert [labels.tolist() for _, labels in found] == [row["labels"].tolist() for row in SAMPLES]
    assert {ids.dtype for ids, _ in found} == {np.dtype(np.int32)}


def test_a_record_holds_one_step() -> None:
    record = StepRecord()
    for value in (1.0, math.inf, math.nan):
        record.take({"input_ids": torch.zeros(1, 1)})
        record.spread(torch.tensor(value, requires_grad=True))
    assert record.faulty() == [1, 2]
    assert len(record.batches) == 3
    record.begin()
    assert record.faulty() == []
    assert record.batches == []
