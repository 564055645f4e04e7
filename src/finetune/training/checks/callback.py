"""When the checks are made: before the first step, on every process, where the engine holds the weights ready."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.data.prepare import PreparedData, StreamedData
from finetune.model.build import TrainableModel
from finetune.training.checks.isolation import check_isolation
from finetune.training.checks.loss import check_adapter, check_loss, cut_all
from finetune.training.trainer import CausalTrainer

NUM_ROWS = 3
"""Rows that go through the model: two in one micro-batch, one in another."""


@dataclass(frozen=True)
class Subject:
    """What is checked."""

    trainable: TrainableModel
    vocab_size: int
    data: PreparedData | StreamedData
    packs: bool
    """Whether training samples share sequences."""
    shares_rows: bool
    """Whether samples stand side by side in a row: in packs, or because the attention takes flat batches."""
    is_new: bool
    """Whether training starts here: an adapter that has been trained changes the model."""


class ChecksCallback(TrainerCallback):  # type: ignore[misc]
    """Asks the model whether it does what the run relies on; says one line for each answer, and how long it took."""

    def __init__(self, subject: Subject, trainer: CausalTrainer, say: Callable[[str], None]) -> None:
        self.subject = subject
        self.trainer = trainer
        self.say = say
        self.is_first_step = True

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        started, subject = time.monotonic(), self.subject
        samples = cut_all(first_samples(subject.data), subject.trainable)
        if subject.shares_rows:
            check_isolation(subject.trainable, subject.vocab_size, self.say)
        loss = check_loss(self.trainer, subject.trainable, samples, self.say, packs=subject.packs)
        if subject.is_new and isinstance(subject.trainable.model, PeftModel):
            check_adapter(subject.trainable, samples[0], loss, self.say)
        self.say(f"checks: {time.monotonic() - started:.1f} s (--skip-checks leaves them out)")

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """After the first backward pass, say which of the weights that were to train are out of its reach."""
        if not self.is_first_step or self.trainer.is_deepspeed_enabled:  # DeepSpeed takes gradients away
            return
        self.is_first_step = False
        named = [(name, weight) for name, weight in self.trainer.model.named_parameters() if weight.requires_grad]
        without = [name for name, weight in named if weight.grad is None]
        if without:
            self.say(
                f"WARNING check gradients: {len(without)} of {len(named)} trained tensors get no gradient and will not "
                f"change ({without[0]})"
            )


def first_samples(data: PreparedData | StreamedData) -> list[Any]:
    """Return the first samples of the training data; of a stream one."""
    if isinstance(data, StreamedData):
        return [data.stream.first_sample()]
    return [data.train[index] for index in range(min(NUM_ROWS, len(data.train)))]
