"""The longest batch is tried before the first step, so that memory that is too small shows in the first minute."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.data.collate import BLANK, SampleDataset
from finetune.data.tokenize import IGNORE_INDEX
from finetune.training.sampler import EvenSampler
from finetune.training.trainer import CausalTrainer

WORTH_TRYING = 0.5
"""Share of the memory below which an estimate would have to be wrong by half for the run to fail."""


class LongestBatch(TrainerCallback):  # type: ignore[misc]
    """Takes one forward and backward pass with the longest batch of the epoch, and lets its gradients go.

    No optimizer step follows, and random states and buffers are put back, so that a run with and without it is the
    same bit for bit.  It is left out where the estimate is far below the memory, where all batches have one length,
    and under DeepSpeed, whose engine counts each backward pass.
    """

    def __init__(
        self, trainer: CausalTrainer, share: float, peak_bytes: Callable[[], int], say: Callable[[str], None]
    ) -> None:
        """Take the expected share of the memory, what measures the peak so far, and what prints a line."""
        self.trainer = trainer
        self.share = share
        self.peak_bytes = peak_bytes
        self.say = say

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        trainer = self.trainer
        if self.share < WORTH_TRYING or trainer.is_deepspeed_enabled:
            return
        rows = find_longest(trainer, int((state.epoch or 0) + 1e-6))
        if not rows:
            return
        num_tokens = try_batch(trainer, rows)
        self.say(
            f"longest batch: {len(rows)} rows in {num_tokens:,} tokens passed before the first step, "
            f"peak memory {self.peak_bytes() / 2**30:.2f} GiB"
        )


def find_longest(trainer: CausalTrainer, epoch: int) -> Sequence[int]:
    """Return the rows of this process in the forward pass of ``epoch`` that takes the most memory.

    That is the one with the longest row, which the others are padded to; of flat batches, which have no padding, the
    one with the most tokens.  Empty where the first pass is as long as any, and where rows are filled to one length.
    """
    sampler, dataset = trainer.training_sampler, trainer.train_dataset
    collator = trainer.training_collator.collator
    if not isinstance(sampler, EvenSampler) or not isinstance(dataset, SampleDataset) or collator.pad_to_sequence_len:
        return []
    sampler.epoch = epoch
    order = np.fromiter(sampler, np.int64, len(sampler))
    micro, processes = trainer.args.per_device_train_batch_size, trainer.args.world_size
    lengths = np.where(order == BLANK, 0, dataset.lengths[np.maximum(order, 0)])
    per_pass = micro * processes
    sizes = [lengths[start : start + micro] for start in range(0, len(order), micro)]
    chunks = [int(size.sum() if collator.flatten else size.max()) for size in sizes]
    longest = [max(chunks[start : start + processes]) for start in range(0, len(chunks), processes)]
    best = int(np.argmax(longest))
    if longest[best] == longest[0]:
        return []
    first = best * per_pass + micro * trainer.args.process_index
    rows: list[int] = order[first : first + micro].tolist()
    return rows


def try_batch(trainer: CausalTrainer, rows: Sequence[int]) -> int:
    """Take a forward and a backward pass with ``rows`` and leave no trace; return its tokens, padding among them."""
    batch = trainer.training_collator([trainer.train_dataset[row] for row in rows])
    num_trained = (batch["labels"] != IGNORE_INDEX).sum().clamp(min=1).to(trainer.args.device)
    model = trainer.model_wrapped
    with _left_as_found(trainer.model), trainer.accelerator.no_sync(model):
        trainer.training_step(model, dict(batch), num_trained)
        model.zero_grad(set_to_none=True)
    return int(batch["input_ids"].numel())


@contextmanager
def _left_as_found(model: torch.nn.Module) -> Iterator[None]:
    """Put random states and the model's buffers back."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
        torch.cuda.set_rng_state_all(cuda)
        with torch.no_grad():
            for buffer, before in buffers:
                if buffer.shape == before.shape:
                    buffer.copy_(before)
