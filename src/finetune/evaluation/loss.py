"""The validation loss, row by row: the quotient of sums over tokens, whatever the batches and processes are."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from finetune.data.collate import Batch, PaddedCollator, SupervisedCollator
from finetune.data.store import StoredSamples
from finetune.errors import EvaluationError
from finetune.evaluation.group import Group
from finetune.model.head import on_device, split_batch
from finetune.model.loss import sequence_losses
from finetune.model.precision import Precision

Sums = npt.NDArray[np.float64]
"""Shape ``[num_rows, 2]``: loss sum in nats and number of trained tokens of each row."""


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
    for start in range(0, len(mine), batch_size):
        rows = mine[start : start + batch_size]
        batch = collate([samples[row] for row in rows])
        found.update(zip(rows, _sums(model, batch, precision), strict=True))
        advance(len(rows))
    together = {row: sums for part in group.gather(found) for row, sums in part.items()}
    sums = np.array([together[row] for row in range(len(samples))], np.float64).reshape(-1, 2)
    if not sums[:, 1].sum():
        raise EvaluationError("validation: no token of these rows is trained, so there is no loss to take")
    if not np.isfinite(sums).all():
        row = int(np.flatnonzero(~np.isfinite(sums).all(axis=1))[0])
        raise EvaluationError(f"validation: the loss of row {row} is {sums[row, 0]}; the weights are damaged")
    return sums


def _sums(model: PreTrainedModel, batch: Batch, precision: Precision) -> list[list[float]]:
    inputs, wanted = split_batch(on_device(batch, model.device))
    with torch.inference_mode(), precision.autocast():
        logits = model(**inputs, logits_to_keep=wanted["logits_to_keep"]).logits
    sums: list[list[float]] = sequence_losses(logits, wanted["shift_labels"]).tolist()
    return sums
