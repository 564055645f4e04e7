"""The one subclass of the HF Trainer."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, Trainer, TrainerControl, TrainerState

from finetune.errors import HealthError
from finetune.model.loss import sequence_losses
from finetune.training.sampler import FilledSampler
from finetune.training.saving import check_weights, expect_weights


class EvaluationStopped(Exception):  # noqa: N818 - it is a request fulfilled, not an error
    """A signal asks not to wait for the end of an evaluation; a callback raises it between two batches."""


class CausalTrainer(Trainer):  # type: ignore[misc]
    """Trains like the HF Trainer, evaluates by token sums, and stops where a loss is not finite.

    The Trainer's own evaluation averages the means of batches, so its loss depends on the batch size and on
    how rows fall into batches (transformers#39241).  Here each sequence contributes its summed loss and its number of
    trained tokens, and the quotient of the totals is the loss.
    """

    def __init__(
        self, *args: Any, data_collator: Any, validation_collator: Any, training_sampler: Any, **kwargs: Any
    ) -> None:
        self.control: TrainerControl
        super().__init__(*args, data_collator=data_collator, **kwargs)
        self.training_sampler = training_sampler
        self.training_collator = data_collator
        self.validation_collator = validation_collator

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Make validation batches with their own collator: they may be padded where training packs."""
        self.data_collator = self.validation_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = self.training_collator

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate, and leave the random states as they were: how often a run evaluates must not change its dropout."""
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            return super().evaluate(*args, **kwargs)

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, model: Any, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Log, evaluate and save where that is due; an evaluation that a signal ends is followed by the checkpoint."""
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        except EvaluationStopped:
            self.control.should_evaluate = False  # at the end of an epoch this is called again
            self._save_checkpoint(model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Take one forward pass; refuse a loss that is not finite before the backward pass, where DeepSpeed steps."""
        outcome = super().compute_loss(*args, **kwargs)
        loss = outcome[0] if isinstance(outcome, tuple) else outcome
        if not torch.isfinite(loss):
            raise HealthError(not_finite("the loss", loss.item(), self.state.global_step + 1))
        return outcome

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
        labels = inputs.pop("shift_labels")
        with torch.no_grad():
            logits = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits
        sums = sequence_losses(logits, labels)
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
