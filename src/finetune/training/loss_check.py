"""Proof, on the model at hand, that the loss made inside its output layer is the loss that the model itself gives."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.data.collate import PaddedCollator, SupervisedCollator
from finetune.model.build import TrainableModel
from finetune.model.head import TOLERANCE, LossHead, on_device
from finetune.model.liger import liger_loss

LENGTHS = (9, 6)
"""Tokens of the samples of the probe."""


class LossCallback(TrainerCallback):  # type: ignore[misc]
    """Makes the proof before the first step, on every process; a model that fails it keeps its own loss."""

    def __init__(self, trainable: TrainableModel, say: Callable[[str], None]) -> None:
        self.trainable = trainable
        self.say = say

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        check_loss(self.trainable, self.say)


def check_loss(trainable: TrainableModel, say: Callable[[str], None]) -> None:
    """Let the output layer give the loss from here on if it gives the right one; else say so and take it away."""
    head = trainable.head
    if head is None:
        return
    difference = head_difference(trainable, head)
    head.proven = difference <= TOLERANCE[trainable.hardware.precision.compute_dtype]
    if not head.proven:
        head.remove()
        say(
            f"loss: this model's own differs from the cross entropy of its output layer (by {difference:.1g} of it), "
            "so it is made from full logits, as the model makes it"
        )


def head_difference(trainable: TrainableModel, head: LossHead) -> float:
    """Return the relative difference of the loss of a few random tokens by both ways, two short forward passes."""
    batch = _probe(trainable)
    model = trainable.model
    was_training = model.training
    model.eval()
    num_items = len(batch["trained_targets"])
    with torch.no_grad(), trainable.hardware.precision.autocast():
        ours: list[float] = [head.token_losses(model, batch).mean().item()]
        own = {name: value for name, value in batch.items() if not name.startswith("trained_")}
        theirs: float = model(**own, num_items_in_batch=num_items).loss.item()
    if head.make is liger_loss:  # its kernel runs where gradients are taken
        with torch.enable_grad(), trainable.hardware.precision.autocast():
            ours.append(head.loss_sum(model, batch).item() / num_items)
    model.train(was_training)
    return max(abs(loss - theirs) for loss in ours) / max(abs(theirs), 1e-6)


def _probe(trainable: TrainableModel) -> dict[str, Any]:
    vocab_size = trainable.model.config.get_text_config().vocab_size
    random = np.random.default_rng(0)
    samples = []
    for length in LENGTHS:
        ids = random.integers(0, vocab_size, length).astype(np.int32)
        samples.append({"input_ids": ids, "labels": np.where(np.arange(length) < length // 2, -100, ids)})
    collator = SupervisedCollator(
        PaddedCollator(0, max(LENGTHS), flatten=trainable.hardware.attention.flatten, pad_to_multiple_of=1)
    )
    device = next(trainable.model.parameters()).device
    return on_device(collator(samples), device)
