"""What went into the optimizer step under way: its micro-batches and their losses, kept until the next one begins."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from finetune.data.store import IntArray


@dataclass
class StepRecord:
    """The micro-batches that this process has taken in the step, as references: nothing is copied or waited for."""

    batches: list[dict[str, Any]] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)

    def begin(self) -> None:
        """Forget the step before."""
        self.batches.clear()
        self.losses.clear()

    def take(self, batch: dict[str, Any]) -> None:
        """Remember a batch of :class:`finetune.data.collate.SupervisedCollator`."""
        self.batches.append(dict(batch))

    def spread(self, loss: torch.Tensor) -> torch.Tensor:
        """Remember ``loss`` and return it, or NaN in its place where it is not finite.

        Its gradient is not finite then either, whatever made it so, and the sum over the processes carries that to
        every one of them: all find the same gradient norm before the update, and no process has to ask the others.
        A finite loss is multiplied by exactly 1, which changes no bit of a gradient.
        """
        self.losses.append(loss.detach())
        return loss * torch.where(torch.isfinite(loss.detach()), 1.0, float("nan"))

    def faulty(self) -> list[int]:
        """Return the numbers of the micro-batches whose loss is not finite; waits for the device."""
        return [number for number, loss in enumerate(self.losses) if not torch.isfinite(loss).item()]


def trained_samples(batch: dict[str, Any]) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield ``(input_ids, labels)`` of each sample of a batch that trains, padded or packed; int32 arrays ``[length]``.

    Packed samples begin where ``position_ids`` restart.  Rows that fill up a batch have no trained token.
    """
    ids, labels = (batch[name].cpu().numpy().astype(np.int32) for name in ("input_ids", "labels"))
    for row in range(len(ids)):
        if "attention_mask" in batch:
            length = int(batch["attention_mask"][row].sum())
            parts = [slice(0, length)]
        else:
            starts = np.flatnonzero(batch["position_ids"][row].cpu().numpy() == 0).tolist()
            parts = [slice(*ends) for ends in zip(starts, [*starts[1:], len(ids[row])], strict=True)]
        for part in parts:
            if (labels[row, part][1:] != -100).any():
                yield ids[row, part], labels[row, part]
