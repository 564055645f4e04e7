"""The one subclass of the HF Trainer."""

import importlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, Trainer, TrainerControl, TrainerState
from transformers.trainer_callback import ExportableState

from finetune.errors import CheckpointError
from finetune.model.head import LossHead, logit_sums
from finetune.training.checkpoints.find import verify
from finetune.training.checkpoints.manifest import DamagedError
from finetune.training.checkpoints.publish import CheckpointStore
from finetune.training.sampler import FilledSampler
from finetune.training.saving import check_weights, expect_weights
from finetune.training.step import StepRecord
from finetune.training.throughput import Meter


class EvaluationStopped(Exception):  # noqa: N818 - it is a request fulfilled, not an error
    """A signal asks not to wait for the end of an evaluation; a callback raises it between two batches."""


class CausalTrainer(Trainer):  # type: ignore[misc]
    """Trains like the HF Trainer, evaluates by token sums, and keeps a record of the step under way.

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
        head: LossHead | None = None,
        meter: Meter | None = None,
        **kwargs: Any,
    ) -> None:
        self.control: TrainerControl
        super().__init__(*args, data_collator=data_collator, **kwargs)
        self.store = store
        self.training_sampler = training_sampler
        self.training_collator = data_collator
        self.validation_collator = validation_collator
        self.head = head
        self.record = StepRecord()
        self.meter = meter or Meter()
        self.compiled = False
        """Whether the layers are compiled code now."""

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

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate with random numbers apart: an iterator over batches draws a seed.

        Otherwise dropout in the steps that follow would depend on how often is evaluated.
        """
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        # compiled layers would be compiled again, for lengths that no step has
        eager = torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()
        with torch.random.fork_rng(devices), eager:
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
        """Take one forward pass; a loss that is not finite makes the gradients so, for every process to see."""
        head = self.proven_head
        if head is not None and not return_outputs:
            return self.record.spread(self._head_loss(head, model, inputs, num_items_in_batch))
        outcome = super().compute_loss(model, _without_ours(inputs), return_outputs, num_items_in_batch)
        if isinstance(outcome, tuple):
            return self.record.spread(outcome[0]), *outcome[1:]
        return self.record.spread(outcome)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take one micro-batch, and remember it until the step is over."""
        self.record.take(inputs)
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        return loss

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
        head = self.proven_head
        sums = head.row_sums(model, inputs) if head else logit_sums(model, inputs)
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


def _without_ours(inputs: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only our own way to the loss reads."""
    return {name: value for name, value in inputs.items() if not name.startswith("trained_")}


def token_mean_loss(prediction: EvalPrediction) -> dict[str, float]:
    """The ``compute_metrics`` that belongs to :meth:`CausalTrainer.prediction_step`."""
    loss_sum, num_tokens = np.asarray(prediction.predictions, dtype=np.float64).sum(axis=0)
    return {"loss": float(loss_sum / num_tokens) if num_tokens else float("nan")}
