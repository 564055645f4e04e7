"""Whether two runs did the same: their ledgers step by step, and the weights that they ended with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from finetune.training.ledger import read_ledger

NUMBERS = {"learning rate": "learning_rate", "loss": "loss", "gradient norm": "grad_norm"}
WEIGHTS = "final weights"


@dataclass(frozen=True)
class RunTrace:
    """What a run left to be compared."""

    ledger: Path
    """Folder of its ledgers."""
    output_dir: Path


@dataclass(frozen=True)
class Finding:
    """The comparison of one quantity."""

    name: str
    num_compared: int
    where: str = ""
    """The first place where the runs differ; empty for runs that are identical."""
    difference: float = 0.0
    """The largest difference of a number; 0 where what differs is no number."""
    is_number: bool = True
    """Whether a difference has a size."""

    @property
    def identical(self) -> bool:
        """Whether nothing differs, to the last bit."""
        return not self.where

    def __str__(self) -> str:
        if self.identical:
            unit = "tensors" if self.name == WEIGHTS else "steps"
            return f"{self.name}: identical ({self.num_compared} {unit})"
        size = f", by up to {self.difference:.3g}" if self.is_number else ""
        return f"{self.name}: differs from {self.where} on{size}"


def compare_runs(one: RunTrace, other: RunTrace, after: int) -> list[Finding]:
    """Compare the steps after step ``after``, and the final weights.

    Steps that only one of the two ran count as different.
    """
    rows, others = (_rows(trace, after) for trace in (one, other))
    steps = sorted(rows.keys() | others.keys())
    pairs = [(step, rows.get(step, []), others.get(step, [])) for step in steps]
    return [
        _compare_things("batches", [(step, _all(a, "batches"), _all(b, "batches")) for step, a, b in pairs]),
        _compare_things("random states", [(step, _all(a, "random"), _all(b, "random")) for step, a, b in pairs]),
        *(
            _compare_numbers(name, [(step, _all(a, key), _all(b, key)) for step, a, b in pairs])
            for name, key in NUMBERS.items()
        ),
        compare_weights(one.output_dir, other.output_dir),
    ]


def compare_weights(one: Path, other: Path) -> Finding:
    """Compare the tensors of two final folders, bit by bit."""
    tensors, others = (_tensors(folder) for folder in (one, other))
    first, largest = "", 0.0
    for name in sorted(tensors.keys() | others.keys()):
        a, b = tensors.get(name), others.get(name)
        if a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b):
            continue
        first = first or name
        if a is not None and b is not None and a.shape == b.shape:
            largest = max(largest, (a.float() - b.float()).abs().max().item())
        else:
            largest = float("inf")
    if not tensors:
        return Finding(WEIGHTS, 0, "the first tensor", float("inf"))
    return Finding(WEIGHTS, len(tensors), first and f"tensor {first}", largest)


def within_spread(found: Sequence[Finding], spread: Sequence[Finding]) -> bool:
    """Whether what differs differs by no more than twice as much as between two runs that nothing interrupted.

    Batches, random states and learning rates have no spread: they must be identical.
    """
    usual = {finding.name: finding.difference for finding in spread}
    return all(
        finding.identical
        or (finding.name in ("loss", "gradient norm", WEIGHTS) and finding.difference <= 2 * usual[finding.name])
        for finding in found
    )


def _rows(trace: RunTrace, after: int) -> dict[int, list[dict[str, Any]]]:
    return {step: rows for step, rows in read_ledger(trace.ledger).items() if step > after}


def _all(rows: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return [row.get(key) for row in rows]


def _compare_things(name: str, pairs: Sequence[tuple[int, list[Any], list[Any]]]) -> Finding:
    first = next((f"step {step}" for step, a, b in pairs if a != b or not a), "" if pairs else "the first step")
    return Finding(name, len(pairs), first, is_number=False)


def _compare_numbers(name: str, pairs: Sequence[tuple[int, list[Any], list[Any]]]) -> Finding:
    """Numbers are hexadecimal floats; equal text is equal to the last bit."""
    first = _compare_things(name, pairs).where
    sizes = [
        abs(float.fromhex(a) - float.fromhex(b)) if a and b else float("inf")
        for _, ones, others in pairs
        for a, b in zip(ones, others, strict=False)
    ]
    largest = max(sizes, default=float("inf")) if first else 0.0
    return Finding(name, len(pairs), first, largest if largest or not first else float("inf"))


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}
