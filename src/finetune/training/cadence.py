"""When to log, evaluate and save, in whole optimizer steps.  Pure arithmetic."""

import math
from dataclasses import dataclass

from finetune.config.training import TrainingSection


@dataclass(frozen=True)
class Cadence:
    """The steps (counted from 1) at which something happens."""

    total_steps: int
    steps_per_epoch: int
    warmup_steps: int
    logging_steps: int
    eval_at: frozenset[int]
    save_at: frozenset[int]


def plan_cadence(training: TrainingSection, num_batches: int, *, has_validation: bool) -> Cadence:
    """Turn epochs and fractions into steps.

    ``num_batches`` is the number of micro-batches of one epoch on one device.  The last, shorter accumulation group
    of an epoch is a step too.  ``evals_per_epoch`` is Axolotl's: the run is cut into ``evals_per_epoch x num_epochs``
    equal parts, rounded up, with one more evaluation after step 1.  Without any such key a validation set is
    evaluated at the end of each epoch.  For ``load_best_model_at_end`` each evaluation is saved too: weights that were
    not saved cannot come back.
    """
    steps_per_epoch = max(math.ceil(num_batches / training.gradient_accumulation_steps), 1)
    total = training.max_steps or math.ceil(training.num_epochs * steps_per_epoch)
    epoch_ends = {min(step, total) for step in range(steps_per_epoch, total + steps_per_epoch, steps_per_epoch)}
    evals = _eval_steps(training, total, epoch_ends) if has_validation else set()
    saves = _save_steps(training, total, epoch_ends)
    return Cadence(
        total_steps=total,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=_warmup(training, total),
        logging_steps=training.logging_steps or max(min(int(0.005 * total), 10), 1),
        eval_at=frozenset(evals),
        save_at=frozenset(saves | evals if training.load_best_model_at_end and saves else saves),
    )


def _warmup(training: TrainingSection, total: int) -> int:
    if training.lr_scheduler == "constant":
        return 0
    if training.warmup_steps is not None:
        return training.warmup_steps
    if training.warmup_ratio is not None:
        return math.ceil(training.warmup_ratio * total)
    return min(int(0.03 * total), 100)


def _eval_steps(training: TrainingSection, total: int, epoch_ends: set[int]) -> set[int]:
    if training.eval_strategy == "no":
        return set()
    if training.evals_per_epoch is not None:
        return {1, total} | _multiples(_share(training.evals_per_epoch, training, total), total)
    if training.eval_steps is not None:
        return {total} | _multiples(_steps(training.eval_steps, total), total)
    return epoch_ends


def _save_steps(training: TrainingSection, total: int, epoch_ends: set[int]) -> set[int]:
    if training.save_strategy in ("no", "best"):
        return set()
    if training.saves_per_epoch is not None:
        return {total} | _multiples(_share(training.saves_per_epoch, training, total), total)
    if training.save_steps is not None:
        return {total} | _multiples(_steps(training.save_steps, total), total)
    return epoch_ends


def _share(per_epoch: int, training: TrainingSection, total: int) -> int:
    """Steps between events that happen ``per_epoch`` times in each epoch."""
    epochs = training.num_epochs if training.max_steps is None else max(training.num_epochs, 1)
    return max(math.ceil(total / (per_epoch * epochs)), 1)


def _steps(value: float, total: int) -> int:
    return int(value) if value >= 1 else max(math.ceil(value * total), 1)


def _multiples(every: int, total: int) -> set[int]:
    return set(range(every, total + 1, every))
