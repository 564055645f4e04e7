"""Putting the Trainer together and running it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, PreTrainedTokenizerBase, TrainerCallback
from transformers import PrinterCallback as DefaultPrinter

from finetune.config.data import DataSection
from finetune.config.training import TrainingSection
from finetune.data.collate import PackedCollator, PackedDataset, PaddedCollator, SampleDataset, SupervisedCollator
from finetune.data.prepare import PreparedData
from finetune.model.build import Hardware, TrainableModel
from finetune.training.arguments import build_arguments
from finetune.training.cadence import Cadence, plan_cadence
from finetune.training.callbacks import CadenceCallback, FrozenRowsCallback, HealthCallback
from finetune.training.checkpoints import resume_step
from finetune.training.trainer import CausalTrainer, token_mean_loss


@dataclass(frozen=True)
class Batches:
    """Data sets of samples or bins, and what makes batches of them."""

    train: Dataset[Any]
    validation: Dataset[Any] | None
    tokenizer: PreTrainedTokenizerBase
    collator: SupervisedCollator
    validation_collator: SupervisedCollator


@dataclass(frozen=True)
class FitResult:
    """What training leaves besides the weights."""

    log_history: tuple[dict[str, Any], ...]
    """Rows of the Trainer's log: ``loss`` or ``eval_loss`` with ``epoch`` and ``step``."""
    runtime_s: float
    last_step: int
    total_steps: int
    eval_loss: float | None
    """Validation loss of the weights that training ended with; None without validation data."""


def build_batches(
    data: DataSection, prepared: PreparedData, tokenizer: PreTrainedTokenizerBase, hardware: Hardware
) -> Batches:
    """Return data sets and collators: packed where a plan was made, padded elsewhere."""
    packed = PackedCollator(
        tokenizer.pad_token_id, data.sequence_len, data.pad_to_sequence_len, hardware.attention.flatten
    )
    padded = PaddedCollator(tokenizer.pad_token_id, data.sequence_len, data.pad_to_sequence_len)
    train = PackedDataset(prepared.train, prepared.packing) if prepared.packing else SampleDataset(prepared.train)
    validation: Dataset[Any] | None = None
    if prepared.validation is not None:
        plan = prepared.validation_packing
        validation = PackedDataset(prepared.validation, plan) if plan else SampleDataset(prepared.validation)
    return Batches(
        train,
        validation,
        tokenizer,
        SupervisedCollator(packed if prepared.packing else padded),
        SupervisedCollator(packed if prepared.validation_packing else padded),
    )


def plan(training: TrainingSection, batches: Batches) -> Cadence:
    """Compute the run's steps from the number of batches."""
    num_items = len(batches.train)  # type: ignore[arg-type]
    num_batches = -(-num_items // training.micro_batch_size)
    return plan_cadence(training, num_batches, has_validation=batches.validation is not None)


def fit(
    training: TrainingSection,
    trainable: TrainableModel,
    batches: Batches,
    cadence: Cadence,
    callbacks: Sequence[TrainerCallback],
    resume: Path | None,
) -> FitResult:
    """Train.  Checkpoints go to ``output_dir``; the weights of the best evaluation are loaded at the end if asked."""
    trainer = CausalTrainer(
        model=trainable.model,
        args=build_arguments(
            training, cadence, trainable.hardware.precision, has_validation=batches.validation is not None
        ),
        train_dataset=batches.train,
        eval_dataset=batches.validation,
        processing_class=batches.tokenizer,
        data_collator=batches.collator,
        validation_collator=batches.validation_collator,
        group_by_length=training.group_by_length,
        compute_metrics=token_mean_loss,
        callbacks=[CadenceCallback(cadence), HealthCallback(), *_own_callbacks(training, trainable), *callbacks],
    )
    trainer.remove_callback(DefaultPrinter)
    started = time.monotonic()
    if resume and resume_step(resume) >= cadence.total_steps:
        trainer.load_checkpoint(resume)
    else:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if training.load_best_model_at_end:
        trainer.evaluate()
    history = tuple(trainer.state.log_history)
    return FitResult(
        log_history=history,
        runtime_s=time.monotonic() - started,
        last_step=trainer.state.global_step,
        total_steps=cadence.total_steps,
        eval_loss=next((row["eval_loss"] for row in reversed(history) if "eval_loss" in row), None),
    )


def _own_callbacks(training: TrainingSection, trainable: TrainableModel) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = []
    if trainable.frozen_rows:
        callbacks.append(FrozenRowsCallback(trainable.frozen_rows))
    if training.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(training.early_stopping_patience))
    return callbacks
