"""The one subclass of the HF Trainer."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, Trainer, TrainerState

from finetune.model.loss import sequence_losses
from finetune.training.sampler import FilledSampler
from finetune.training.saving import check_weights, expect_weights
from finetune.training.step import StepRecord


class CausalTrainer(Trainer):  # type: ignore[misc]
    """Trains like the HF Trainer, evaluates by token sums, and keeps a record of the step under way.

    The Trainer's own evaluation averages the means of batches, so its loss depends on the batch size and on
    how rows fall into batches (transformers#39241).  Here each sequence contributes its summed loss and its number of
    trained tokens, and the quotient of the totals is the loss.
    """

    def __init__(
        self, *args: Any, data_collator: Any, validation_collator: Any, training_sampler: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, data_collator=data_collator, **kwargs)
        self.training_sampler = training_sampler
        self.training_collator = data_collator
        self.validation_collator = validation_collator
        self.record = StepRecord()

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Make validation batches with their own collator: they may be padded where training packs."""
        self.data_collator = self.validation_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = self.training_collator

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take one micro-batch, and remember it until the step is over."""
        self.record.take(inputs)
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        return loss

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Take one forward pass; a loss that is not finite makes the gradients so, for every process to see."""
        outcome = super().compute_loss(*args, **kwargs)
        if isinstance(outcome, tuple):
            return self.record.spread(outcome[0]), *outcome[1:]
        return self.record.spread(outcome)

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


def token_mean_loss(prediction: EvalPrediction) -> dict[str, float]:
    """The ``compute_metrics`` that belongs to :meth:`CausalTrainer.prediction_step`."""
    loss_sum, num_tokens = np.asarray(prediction.predictions, dtype=np.float64).sum(axis=0)
    return {"loss": float(loss_sum / num_tokens) if num_tokens else float("nan")}
