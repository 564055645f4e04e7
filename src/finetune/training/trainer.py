"""The one subclass of the HF Trainer."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, Trainer, TrainerState

from finetune.errors import HealthError
from finetune.model.head import LossHead, split_batch
from finetune.model.loss import sequence_losses, sum_by_row
from finetune.training.sampler import FilledSampler
from finetune.training.saving import check_weights, expect_weights
from finetune.training.throughput import Meter


class CausalTrainer(Trainer):  # type: ignore[misc]
    """Trains like the HF Trainer, evaluates by token sums, and stops where a loss is not finite.

    The Trainer's own evaluation averages the means of batches, so its loss depends on the batch size and on
    how rows fall into batches (transformers#39241).  Here each sequence contributes its summed loss and its number of
    trained tokens, and the quotient of the totals is the loss.
    """

    def __init__(
        self,
        *args: Any,
        data_collator: Any,
        validation_collator: Any,
        training_sampler: Any,
        head: LossHead | None = None,
        meter: Meter | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, data_collator=data_collator, **kwargs)
        self.training_sampler = training_sampler
        self.training_collator = data_collator
        self.validation_collator = validation_collator
        self.head = head
        self.meter = meter or Meter()

    @property
    def proven_head(self) -> LossHead | None:
        """The output layer that gives losses, once :mod:`finetune.training.loss_check` has found it right."""
        return self.head if self.head is not None and self.head.proven else None

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Make validation batches with their own collator: they may be padded where training packs."""
        self.data_collator = self.validation_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = self.training_collator

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Draw the batches of one optimizer step; how long that takes and what is in them is measured."""
        self.meter.ask()
        batches, num_items_in_batch = super().get_batch_samples(*args, **kwargs)
        self.meter.take(batches)
        return batches, num_items_in_batch

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Take one forward pass; refuse a loss that is not finite before the backward pass, where DeepSpeed steps."""
        head = self.proven_head
        if head is None or return_outputs:
            outcome = super().compute_loss(model, _without_ours(inputs), return_outputs, num_items_in_batch)
        else:
            outcome = self._head_loss(head, model, inputs, num_items_in_batch)
        loss = outcome[0] if isinstance(outcome, tuple) else outcome
        if not torch.isfinite(loss):
            raise HealthError(not_finite("the loss", loss.item(), self.state.global_step + 1))
        return outcome

    def _head_loss(
        self,
        head: LossHead,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None,
    ) -> torch.Tensor:
        """Divide the loss sum as the Trainer does: by the trained tokens of all micro-batches of all processes.

        Engines average gradients over the processes, which the number of processes undoes.
        """
        total = head.loss_sum(model, inputs)
        if num_items_in_batch is None:
            return total / max(len(inputs["trained_targets"]), 1)
        loss: torch.Tensor = total * self.accelerator.num_processes / num_items_in_batch
        return loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Deal the rows out by :class:`finetune.training.sampler.EvenSampler`; transformers' own place to say so."""
        return self.training_sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """Deal the rows of an evaluation out, each once, whatever the number of processes."""
        per_step = self.args.per_device_eval_batch_size * self.args.world_size
        return FilledSampler(len(eval_dataset), per_step if self.args.world_size > 1 else 1)

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Return per-sequence loss sums and token counts, ``[batch, 2]`` float64, in the place of logits.

        Batches come from :class:`finetune.data.collate.SupervisedCollator`.
        """
        del prediction_loss_only, ignore_keys
        inputs = self._prepare_inputs(inputs)
        if head := self.proven_head:
            sums = sum_by_row(head.token_losses(model, inputs), inputs["trained_counts"])
        else:
            sums = _logit_sums(model, inputs)
        return None, sums, torch.zeros(len(sums), device=sums.device)

    def load_checkpoint(self, path: Path) -> None:
        """Take weights and log from a checkpoint without training on: the run in it has reached its last step."""
        self._load_from_checkpoint(str(path))
        self.state = TrainerState.load_from_json(str(path / "trainer_state.json"))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save without the pickled arguments: reading them back would run whatever is in them; check what was saved."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            (folder / "training_args.bin").unlink(missing_ok=True)
            check_weights(folder, expect_weights(self.model, None))


def _without_ours(inputs: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only our own way to the loss reads."""
    return {name: value for name, value in inputs.items() if not name.startswith("trained_")}


def _logit_sums(model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
    """Return per-sequence loss sums and token counts, ``[rows, 2]`` float64, from logits at the kept positions."""
    ours, wanted = split_batch(inputs)
    with torch.no_grad():
        logits = model(**ours, logits_to_keep=wanted["logits_to_keep"]).logits
    return sequence_losses(logits, wanted["shift_labels"])


def not_finite(what: str, value: float, step: int) -> str:
    """Word the message for a number that is not finite."""
    return (
        f"step {step}: {what} is {value}; the step was not taken and the last checkpoint is whole. "
        "Lower learning_rate, add warmup_steps, or use bf16 in place of fp16; look at the rows of this step too"
    )


def token_mean_loss(prediction: EvalPrediction) -> dict[str, float]:
    """The ``compute_metrics`` that belongs to :meth:`CausalTrainer.prediction_step`."""
    loss_sum, num_tokens = np.asarray(prediction.predictions, dtype=np.float64).sum(axis=0)
    return {"loss": float(loss_sum / num_tokens) if num_tokens else float("nan")}
