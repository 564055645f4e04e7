"""The one subclass of the HF Trainer."""

import importlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, Trainer, TrainerState
from transformers.trainer_callback import ExportableState

from finetune.errors import CheckpointError, HealthError
from finetune.model.loss import sequence_losses
from finetune.training.checkpoints.find import verify
from finetune.training.checkpoints.manifest import DamagedError
from finetune.training.checkpoints.publish import CheckpointStore
from finetune.training.sampler import FilledSampler
from finetune.training.saving import check_weights, expect_weights


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
        store: CheckpointStore,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, data_collator=data_collator, **kwargs)
        self.store = store
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
        """Evaluate with random numbers apart: an iterator over batches draws a seed.

        Otherwise dropout in the steps that follow would depend on how often is evaluated.
        """
        with torch.random.fork_rng(devices=[]):
            return super().evaluate(*args, **kwargs)

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

    def load_finished(self, path: Path, total_steps: int) -> None:
        """Take weights and log from a checkpoint without training on: the run in it has reached its last step."""
        if self.is_deepspeed_enabled:  # the weights are DeepSpeed's, and so is the way to read them
            self._prepare_for_training(total_steps, self.get_train_dataloader(), str(path))
        else:
            self._load_from_checkpoint(str(path))
        self.state = TrainerState.load_from_json(str(path / "trainer_state.json"))
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            self._load_best_model()

    def _load_best_model(self) -> None:
        """Load the weights of the best evaluation, if they are still what was saved."""
        best = Path(self.state.best_model_checkpoint)
        self.store.engine.only_main(lambda: _refuse_damaged(best))
        super()._load_best_model()

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Publish a checkpoint: transformers writes the files, into a folder that gets its name when it is whole."""
        del model, trial
        self.store_flos()
        step, best = self.state.global_step, self.state.best_global_step
        if best and (best == step or self.store.path(best).is_dir()):
            self.state.best_model_checkpoint = str(self.store.path(best))
        self.store.save(step, [self._write_weights, self._write_optimizer, self._write_state], best)

    def _write_weights(self, folder: Path) -> None:
        self.save_model(str(folder), _internal_call=True)

    def _write_optimizer(self, folder: Path) -> None:
        with self._patient_writes():
            self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))

    def _patient_writes(self) -> AbstractContextManager[None]:
        if not self.is_deepspeed_enabled:
            return nullcontext()
        shards = importlib.import_module("finetune.training.checkpoints.shards")  # DeepSpeed takes seconds to import
        patient: AbstractContextManager[None] = shards.patient_writes(self.model_wrapped)
        return patient

    def _write_state(self, folder: Path) -> None:
        """Write random states, and the position in the run with what its callbacks remember."""
        self._save_rng_state(str(folder))
        if not self.args.should_save:
            return
        states: dict[str, list[Any]] = {}
        for part in (*self.callback_handler.callbacks, self.control):
            if isinstance(part, ExportableState):
                states.setdefault(type(part).__name__, []).append(part.state())
        self.state.stateful_callbacks = {name: kept if len(kept) > 1 else kept[0] for name, kept in states.items()}
        self.state.save_to_json(str(folder / "trainer_state.json"))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save without the pickled arguments: reading them back would run whatever is in them; check what was saved."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            (folder / "training_args.bin").unlink(missing_ok=True)
            check_weights(folder, expect_weights(self.model, None))


def _refuse_damaged(best: Path) -> None:
    try:
        verify(best)
    except DamagedError as fault:
        raise CheckpointError(
            f"load_best_model_at_end: {best} has the best weights and is not whole ({fault}). To finish with the last "
            "weights: the same command with --load_best_model_at_end=false --resume"
        ) from None


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
