"""The one subclass of the HF Trainer."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import EvalPrediction, Trainer, TrainerState

from finetune.data.collate import SampleDataset
from finetune.errors import HealthError
from finetune.training.sampler import LengthGroupedSampler


class CausalTrainer(Trainer):  # type: ignore[misc]
    """Trains like the HF Trainer, evaluates by token sums, and stops where a loss is not finite.

    The Trainer's own evaluation averages the means of batches, so its loss depends on the batch size and on
    how rows fall into batches (transformers#39241).  Here each sequence contributes its summed loss and its number of
    trained tokens, and the quotient of the totals is the loss.
    """

    def __init__(
        self, *args: Any, data_collator: Any, validation_collator: Any, group_by_length: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, data_collator=data_collator, **kwargs)
        self.training_collator = data_collator
        self.validation_collator = validation_collator
        self.group_by_length = group_by_length

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Make validation batches with their own collator: they may be padded where training packs."""
        self.data_collator = self.validation_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = self.training_collator

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take one forward and backward pass; refuse a loss that is not finite before it moves anything."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise HealthError(not_finite("the loss", loss.item(), self.state.global_step + 1))
        return loss

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

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        if not self.group_by_length:
            sampler: Sampler[int] | None = super()._get_train_sampler(dataset)
            return sampler
        assert isinstance(dataset, SampleDataset)
        step_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(dataset.lengths.tolist(), step_size, self.args.seed)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save without the pickled arguments: reading them back would run whatever is in them."""
        super()._save(output_dir, state_dict)
        Path(output_dir or self.args.output_dir, "training_args.bin").unlink(missing_ok=True)


def not_finite(what: str, value: float, step: int) -> str:
    """Word the message for a number that is not finite."""
    return (
        f"step {step}: {what} is {value}; the step was not taken and the last checkpoint is whole. "
        "Lower learning_rate, add warmup_steps, or use bf16 in place of fp16; look at the rows of this step too"
    )


def sequence_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum the cross entropy of each sequence over its trained tokens.

    Args:
        logits: ``[batch, kept, vocabulary]``, any float type.
        labels: ``[batch, kept]``, the token that each position has to predict, -100 where untrained.

    Returns:
        ``[batch, 2]`` float64: the loss sum in nats and the number of trained tokens.
    """
    rows = []
    for row_logits, row_labels in zip(logits, labels, strict=True):
        kept = row_labels != -100
        loss = torch.nn.functional.cross_entropy(row_logits[kept].float(), row_labels[kept], reduction="sum")
        rows.append(torch.stack([loss.double(), kept.sum().double()]))
    return torch.stack(rows)


def token_mean_loss(prediction: EvalPrediction) -> dict[str, float]:
    """The ``compute_metrics`` that belongs to :meth:`CausalTrainer.prediction_step`."""
    loss_sum, num_tokens = np.asarray(prediction.predictions, dtype=np.float64).sum(axis=0)
    return {"loss": float(loss_sum / num_tokens) if num_tokens else float("nan")}
