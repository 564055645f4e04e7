"""Which rows a number that is not finite comes from: each row of the step once more, by itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.data.collate import PackedDataset, PaddedCollator, SampleDataset, SupervisedCollator
from finetune.data.store import IntArray
from finetune.data.whereabouts import find_rows
from finetune.model.head import on_device, split_batch
from finetune.model.precision import Precision

MAX_ROWS = 64
"""Rows of a process that are tried; a step of many short ones would take long."""
SHOWN_ROWS = 5
SHOWN_CHARACTERS = 80

Sample = tuple[IntArray, IntArray]


@dataclass(frozen=True)
class TriedRow:
    """What one row gives by itself."""

    place: str
    """Such as ``train.jsonl:17``."""
    text: str
    """The beginning of what the model reads."""
    loss: float | None
    """Mean over the trained tokens, in nats; None where it could not be computed."""
    gradient_norm: float | None = None
    """None where only losses were asked for."""

    @property
    def is_finite(self) -> bool:
        return all(math.isfinite(value) for value in (self.loss, self.gradient_norm) if value is not None)

    @property
    def line(self) -> str:
        """The row in one line."""
        values = {"loss": self.loss, "gradient norm": self.gradient_norm}
        told = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if value is not None)
        return f"{self.place}: {told or 'not tried'}: {self.text!r}"


def try_rows(
    model: PreTrainedModel, precision: Precision, samples: Sequence[Sample], *, gradients: bool
) -> list[tuple[float | None, float | None]]:
    """Return loss and, with ``gradients``, gradient norm of each sample by itself, without dropout.

    Nothing of the training changes: gradients are computed aside, so that no hook of a distributed engine runs.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad] if gradients else []
    was_training = model.training
    model.eval()
    tried = [_try_row(model, precision, sample, parameters) for sample in samples]
    model.train(was_training)
    return tried


def _try_row(
    model: PreTrainedModel, precision: Precision, sample: Sample, parameters: list[torch.nn.Parameter]
) -> tuple[float | None, float | None]:
    collator = SupervisedCollator(PaddedCollator(0, len(sample[0]), pad_to_multiple_of=1))
    batch = collator([{"input_ids": sample[0], "labels": sample[1]}])
    device = next(model.parameters()).device
    inputs, wanted = split_batch(on_device(batch, device))
    try:
        with torch.set_grad_enabled(bool(parameters)), precision.autocast():
            logits = model(**inputs, logits_to_keep=wanted["logits_to_keep"], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits[0].float(), wanted["shift_labels"][0])
        if not parameters:
            return loss.item(), None
        grown = torch.autograd.grad(loss, parameters, allow_unused=True)
        return loss.item(), torch.nn.utils.get_total_norm([part for part in grown if part is not None]).item()
    except RuntimeError:  # no memory is left, or the engine has put the weights away: the report does without
        return None, None


def describe_rows(
    samples: Sequence[Sample],
    tried: Sequence[tuple[float | None, float | None]],
    dataset: Any,
    tokenizer: PreTrainedTokenizerBase,
) -> list[TriedRow]:
    """Say where each sample comes from and how it begins."""
    places: list[str | None] = [None] * len(samples)
    if isinstance(dataset, SampleDataset | PackedDataset):
        places = find_rows(dataset.samples, [ids for ids, _ in samples])
    return [
        TriedRow(place or "a row", _beginning(ids, tokenizer), loss, norm)
        for place, (ids, _), (loss, norm) in zip(places, samples, tried, strict=True)
    ]


def _beginning(ids: IntArray, tokenizer: PreTrainedTokenizerBase) -> str:
    text = str(tokenizer.decode(ids[:SHOWN_CHARACTERS].tolist()))
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def render_rows(rows: Sequence[TriedRow]) -> list[str]:
    """Write what the rows of a step tell as lines: the culprits, or that there are none."""
    culprits = [row for row in rows if not row.is_finite]
    if not any(row.loss is not None for row in rows):
        return ["rows of the step:", *_listed(rows)] if rows else []
    if not culprits:
        return ["no row of the step gives it by itself:", *_listed(rows)]
    others = [row.loss for row in rows if row.is_finite and row.loss is not None]
    if not others:
        return [
            "every row of the step gives it by itself, so it is in the weights and not in a row:",
            *_listed(culprits),
        ]
    rest = f"the other {len(others)} have losses from {min(others):.4g} to {max(others):.4g}"
    return ["rows of the step that give it by themselves:", *_listed(culprits), rest]


def _listed(rows: Sequence[TriedRow]) -> list[str]:
    more = [f"  and {len(rows) - SHOWN_ROWS} more"] if len(rows) > SHOWN_ROWS else []
    return [*(f"  {row.line}" for row in rows[:SHOWN_ROWS]), *more]
