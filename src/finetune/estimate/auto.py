"""``gradient_checkpointing: auto`` and ``micro_batch_size: auto``: what fits decides, and a resumed run keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from finetune.config.run import RESOLVED
from finetune.config.training import TrainingSection
from finetune.estimate.memory import estimate
from finetune.estimate.remedies import split
from finetune.estimate.setup import Setup


@dataclass(frozen=True)
class Settled:
    """The training section without ``auto``, and a line for each key that was decided."""

    training: TrainingSection
    notes: tuple[str, ...]


def asks(training: TrainingSection) -> bool:
    """Whether something is left to decide."""
    return training.micro_batch_size_auto or training.gradient_checkpointing == "auto"


def settle(setup: Setup, recorded: Mapping[str, Any]) -> Settled:
    """Decide what says ``auto``.

    ``recorded`` is the resolved configuration of the run that this one goes on with, whose values are kept: another
    split of the batch would round otherwise.  Else the largest pass that fits is taken, without checkpointing where
    one sample fits so: computing activations again costs more than small passes do.
    """
    training, notes = setup.training, []
    if training.gradient_checkpointing == "auto":
        known = recorded.get("gradient_checkpointing")
        on = known if isinstance(known, bool) else not _fits(replace(setup, training=_try(training, checkpoints=False)))
        training = training.model_copy(update={"gradient_checkpointing": on})
        notes.append(f"gradient_checkpointing: auto is {str(on).lower()} ({_reason(setup, training, known)})")
    if training.micro_batch_size_auto:
        known = recorded.get("micro_batch_size")
        micro = known if isinstance(known, int) and training.batch_size % known == 0 else None
        training = split(training, micro or _largest(replace(setup, training=training)))
        if training.eval_batch_size == 1:
            training = training.model_copy(update={"eval_batch_size": training.micro_batch_size})
        words = f"micro_batch_size: auto is {training.micro_batch_size}, gradient_accumulation_steps "
        notes.append(words + f"{training.gradient_accumulation_steps} ({_reason(setup, training, micro)})")
    return Settled(training, tuple(notes))


def recorded_values(training: TrainingSection) -> dict[str, Any]:
    """Return the resolved configuration of the run that ``training`` would go on with; empty for a fresh start."""
    folder = Path(training.output_dir)
    if training.resume_from_checkpoint:
        folder = Path(training.resume_from_checkpoint).parent
    elif not (training.auto_resume_from_checkpoints and any(folder.glob("checkpoint-*"))):
        return {}
    path = folder / RESOLVED
    values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return values if isinstance(values, dict) else {}


def _try(training: TrainingSection, *, checkpoints: bool) -> TrainingSection:
    """The smallest pass, where the size of passes is open too."""
    training = training.model_copy(update={"gradient_checkpointing": checkpoints})
    return split(training, 1) if training.micro_batch_size_auto else training


def _largest(setup: Setup) -> int:
    """The largest divisor of ``batch_size`` that fits; 1 where none does."""
    size = setup.training.batch_size
    divisors = [number for number in range(size, 0, -1) if size % number == 0]
    return next((n for n in divisors if _fits(replace(setup, training=split(setup.training, n)))), 1)


def _fits(setup: Setup) -> bool:
    return estimate(setup).peak <= setup.device.usable_bytes


def _reason(setup: Setup, training: TrainingSection, known: object) -> str:
    if known is not None:
        return "as in the run that this goes on with"
    needed = estimate(replace(setup, training=training)).peak
    return f"{needed / 2**30:.1f} of {setup.device.num_bytes / 2**30:.1f} GiB, {setup.device.name}"
