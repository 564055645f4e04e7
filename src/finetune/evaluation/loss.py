"""The validation loss, row by row: the quotient of sums over tokens, whatever the batches and processes are.

It is made inside the output layer, a few rows of logits at a time, as in training: :mod:`finetune.model.loss`.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from finetune.data.collate import Batch, PaddedCollator, SupervisedCollator
from finetune.data.store import StoredSamples
from finetune.data.stream import Sample
from finetune.data.tokenize import IGNORE_INDEX
from finetune.errors import EvaluationError
from finetune.evaluation.group import Group
from finetune.model.head import TOLERANCE, LossHead, attach_head, logit_sums, on_device
from finetune.model.precision import Precision

Sums = npt.NDArray[np.float64]
"""Shape ``[num_rows, 2]``: loss sum in nats and number of trained tokens of each row."""

PROBED = 8
"""Trained tokens whose losses are made both ways, before those of the output layer are believed."""


@dataclass(frozen=True)
class ValidationLoss:
    """The mean over trained tokens."""

    loss: float
    """In nats."""
    num_rows: int
    num_tokens: int

    @property
    def perplexity(self) -> float:
        """``exp(loss)``; infinite where that is too large for a float."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @classmethod
    def of(cls, sums: Sums) -> "ValidationLoss":
        """Take the mean over all tokens of all rows."""
        loss_sum, num_tokens = sums.sum(axis=0)
        return cls(float(loss_sum / num_tokens), len(sums), int(num_tokens))


def row_losses(
    model: PreTrainedModel,
    samples: StoredSamples,
    batch_size: int,
    precision: Precision,
    group: Group,
    advance: Callable[[int], None],
) -> Sums:
    """Return loss sum and trained tokens of each row, as training's own evaluation counts them.

    Rows go in padded batches of like length; ``advance`` is told how many are done.

    Raises:
        EvaluationError: no token of any row is trained, or a loss is not finite.
    """
    order = np.argsort(-samples.lengths, kind="stable")
    mine = [int(order[index]) for index in group.share(len(samples))]
    collate = SupervisedCollator(PaddedCollator(0, int(samples.lengths.max(initial=1))))
    found: dict[int, list[float]] = {}
    model.eval()
    with _output_layer(model, samples, precision) as head:
        for start in range(0, len(mine), batch_size):
            rows = mine[start : start + batch_size]
            batch = on_device(collate([samples[row] for row in rows]), model.device)
            found.update(zip(rows, _sums(head, model, batch, precision).tolist(), strict=True))
            advance(len(rows))
    together = {row: sums for part in group.gather(found) for row, sums in part.items()}
    sums = np.array([together[row] for row in range(len(samples))], np.float64).reshape(-1, 2)
    if not sums[:, 1].sum():
        raise EvaluationError("validation: no token of these rows is trained, so there is no loss to take")
    if not np.isfinite(sums).all():
        row = int(np.flatnonzero(~np.isfinite(sums).all(axis=1))[0])
        raise EvaluationError(f"validation: the loss of row {row} is {sums[row, 0]}; the weights are damaged")
    return sums


@contextmanager
def _output_layer(model: PreTrainedModel, samples: StoredSamples, precision: Precision) -> Iterator[LossHead | None]:
    """Yield the output layer, made to give losses; None where it is no plain matrix, or they are not the logits'."""
    head, probe = attach_head(model), next((found for sample in samples if (found := _probe(sample))), None)
    try:
        if head is None or probe is None:
            yield None
        else:
            batch = on_device(SupervisedCollator(PaddedCollator(0, len(probe["labels"])))([probe]), model.device)
            whole, ours = (_sums(way, model, batch, precision)[0, 0].item() for way in (None, head))
            yield head if abs(whole - ours) <= TOLERANCE[precision.compute_dtype] * abs(whole) else None
    finally:
        if head is not None:
            head.remove()


def _probe(sample: Sample) -> Sample | None:
    """Return the beginning of a sample, up to its first trained tokens; None where none is trained."""
    trained = np.flatnonzero(sample["labels"][1:] != IGNORE_INDEX) + 1
    if not len(trained):
        return None
    end = int(trained[:PROBED][-1]) + 1
    return {"input_ids": sample["input_ids"][:end], "labels": sample["labels"][:end]}


def _sums(head: LossHead | None, model: PreTrainedModel, batch: Batch, precision: Precision) -> torch.Tensor:
    with torch.inference_mode(), precision.autocast():
        return head.row_sums(model, batch) if head else logit_sums(model, batch)
