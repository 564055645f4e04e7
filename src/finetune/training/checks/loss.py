"""The loss of the training itself, on a few rows, against cross entropy computed by hand from each row alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from finetune.data.store import IntArray
from finetune.data.tokenize import IGNORE_INDEX
from finetune.errors import ModelError
from finetune.model.build import TrainableModel
from finetune.model.head import on_device
from finetune.model.precision import Precision
from finetune.training.trainer import CausalTrainer

MAX_TOKENS = (10, 20, 14)
"""Of each row, around the place where its first trained stretch begins; they differ, so that there is padding."""
MAX_TOKENS_ROUNDED = (112, 128, 120)
"""The same where the arithmetic rounds in the third digit, so that the mean is over enough tokens."""
EXACT = 1e-3
"""Relative difference of two ways to the same loss in float32."""

Sample = dict[str, IntArray]


def cut_all(samples: Sequence[Sample], trainable: TrainableModel) -> list[Sample]:
    """Keep of each of up to three samples a part that is long enough for what :func:`tolerance` says."""
    lengths = MAX_TOKENS if tolerance(trainable) <= EXACT else MAX_TOKENS_ROUNDED
    return [cut(*pair) for pair in zip(samples, lengths, strict=False)]


def cut(sample: Sample, max_tokens: int) -> Sample:
    """Keep at most ``max_tokens`` of a sample, trained ones among them."""
    first = int(np.flatnonzero(sample["labels"] != IGNORE_INDEX)[0])
    start = max(0, min(first - max_tokens // 2, len(sample["labels"]) - max_tokens))
    return {name: values[start : start + max_tokens] for name, values in sample.items()}


def row_loss(model: torch.nn.Module, sample: Sample, precision: Precision) -> tuple[float, int]:
    """Return the loss sum (nats, float64) of one sample from all its logits, and the number of its trained tokens."""
    device = next(model.parameters()).device
    ids, labels = (torch.from_numpy(sample[name].astype(np.int64)).to(device) for name in ("input_ids", "labels"))
    with torch.no_grad(), precision.autocast():
        logits = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0, :-1]
    kept = labels[1:] != IGNORE_INDEX
    chosen = logits[kept].double().log_softmax(-1).gather(1, labels[1:][kept].unsqueeze(1))
    return -chosen.sum().item(), int(kept.sum())


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Leave dropout and noise out, and put the model back into the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def check_loss(
    trainer: CausalTrainer,
    trainable: TrainableModel,
    samples: Sequence[Sample],
    say: Callable[[str], None],
    *,
    packs: bool,
) -> float:
    """Compare what a step of two micro-batches would have as its loss with the mean over all their trained tokens.

    The step goes the Trainer's own way: collator, packing, engine, division by the trained tokens of the step.  By hand
    each row is alone and whole.  So a loss that counts padding, a neighbour or a border, or that is divided once more
    by the accumulation, does not agree.  A loss that is not finite is left to the first step, which says more.

    Returns:
        The loss sum of the first row.

    Raises:
        ModelError: they differ by more than rounding.
    """
    with evaluating(trainer.model):
        rows = [row_loss(trainer.model, sample, trainable.hardware.precision) for sample in samples]
        num_tokens = max(sum(number for _, number in rows), 1)
        exact = sum(loss for loss, _ in rows) / num_tokens
        parts = [part for part in (samples[:-1], samples[-1:]) if part]
        found = sum(_micro_batch_loss(trainer, [part] if packs else part, num_tokens) for part in parts)
    found /= trainer.accelerator.num_processes
    if not np.isfinite(exact):
        say("check loss: not compared, the loss of the first rows is not finite")
        return rows[0][0]
    difference = abs(found - exact) / max(exact, 1e-3)
    if not difference <= tolerance(trainable):
        raise ModelError(
            f"self-check: on {len(samples)} rows the loss of a training step is {found:.6g}, and the mean over their "
            f"{num_tokens} trained tokens, each row by itself, is {exact:.6g}. This model's loss is not the one that "
            "is meant: it may ignore num_items_in_batch or add terms of its own. --skip-checks trains anyway"
        )
    say(f"check loss: {exact:.4f} on {len(samples)} rows, {difference:.0e} from cross entropy by hand, each row alone")
    return rows[0][0]


def _micro_batch_loss(trainer: CausalTrainer, items: Sequence[Any], num_tokens: int) -> float:
    """Return what a micro-batch adds to the loss of a step of ``num_tokens``; items as the collator takes them."""
    device = next(trainer.model.parameters()).device
    inputs = on_device(trainer.training_collator(items), device)
    with torch.no_grad():
        loss = trainer.compute_loss(
            trainer.model_wrapped, inputs, num_items_in_batch=torch.tensor(num_tokens, device=device)
        )
    return float(loss.item())


def tolerance(trainable: TrainableModel) -> float:
    """Return how far two ways to the same loss may differ, relative: rounding, and 8-bit products that share scales."""
    if trainable.hardware.precision.fp8 or min(group.bits for group in trainable.summary.groups) == 8:
        return 5e-2
    return EXACT if trainable.hardware.precision.compute_dtype == torch.float32 else 2e-2


def check_adapter(trainable: TrainableModel, sample: Sample, loss: float, say: Callable[[str], None]) -> None:
    """Compare the ``loss`` sum of a row with that of the base alone: a new adapter changes nothing.

    Raises:
        ModelError: it does.
    """
    model = trainable.model
    assert isinstance(model, PeftModel)
    with evaluating(model), model.disable_adapter():
        without, number = row_loss(model, sample, trainable.hardware.precision)
    difference = abs(loss - without) / max(abs(without), 1e-3)
    if difference > tolerance(trainable):
        raise ModelError(
            "self-check: the new adapter changes the model before it is trained: the loss of a row is "
            f"{loss / number:.6g} with it and {without / number:.6g} without. Train other modules "
            "(lora_target_modules), or leave the checks out with --skip-checks"
        )
    say(f"check adapter: it changes nothing yet (a row's loss by {difference:.0e})")
