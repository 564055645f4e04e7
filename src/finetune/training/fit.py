"""Putting the Trainer together and running it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments
from transformers import PrinterCallback as DefaultPrinter

from finetune.config.data import DataSection
from finetune.config.training import TrainingSection
from finetune.data.collate import PackedCollator, PackedDataset, PaddedCollator, SampleDataset, SupervisedCollator
from finetune.data.prepare import PreparedData
from finetune.model.build import TrainableModel
from finetune.model.precision import Precision
from finetune.training.arguments import build_arguments
from finetune.training.cadence import Cadence, plan_cadence
from finetune.training.callbacks import CadenceCallback, EngineCallback, FrozenRowsCallback, HealthCallback
from finetune.training.engine import Engine
from finetune.training.sampling import EpochCallback, EvenSampler
from finetune.training.trainer import CausalTrainer, token_mean_loss


@dataclass(frozen=True)
class Batches:
    """Data sets of samples or bins, and what makes batches of them."""

    train: Dataset[Any]
    validation: Dataset[Any] | None
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


def build_batches(
    data: DataSection, prepared: PreparedData, tokenizer: PreTrainedTokenizerBase, *, flatten: bool
) -> Batches:
    """Return data sets and collators: packed where a plan was made, padded elsewhere."""
    packed = PackedCollator(tokenizer.pad_token_id, data.sequence_len, data.pad_to_sequence_len, flatten)
    padded = PaddedCollator(tokenizer.pad_token_id, data.sequence_len, data.pad_to_sequence_len)
    # an evaluation batch keeps one row per bin, so that the rows of several processes can be counted apart
    packed_rows = PackedCollator(tokenizer.pad_token_id, data.sequence_len, data.pad_to_sequence_len)
    train = PackedDataset(prepared.train, prepared.packing) if prepared.packing else SampleDataset(prepared.train)
    validation: Dataset[Any] | None = None
    if prepared.validation is not None:
        plan = prepared.validation_packing
        validation = PackedDataset(prepared.validation, plan) if plan else SampleDataset(prepared.validation)
    return Batches(
        train,
        validation,
        SupervisedCollator(packed if prepared.packing else padded),
        SupervisedCollator(packed_rows if prepared.validation_packing else padded),
    )


@dataclass(frozen=True)
class TrainingPlan:
    """What is known of the training before there are weights."""

    engine: Engine
    cadence: Cadence
    arguments: TrainingArguments
    sampler: EvenSampler


def plan(training: TrainingSection, batches: Batches, precision: Precision, engine: Engine) -> TrainingPlan:
    """Compute the run's steps from the number of batches, and set the Trainer's arguments."""
    world_size, has_validation = engine.place.world_size, batches.validation is not None
    per_step = training.micro_batch_size * world_size
    num_batches = -(-len(batches.train) // per_step)  # type: ignore[arg-type]
    cadence = plan_cadence(training, num_batches, has_validation=has_validation)
    sampler = EvenSampler(
        batches.train,
        per_step if world_size > 1 else 1,
        per_step * training.gradient_accumulation_steps,
        training.seed,
        by_length=training.group_by_length,
    )
    arguments = build_arguments(training, cadence, precision, engine, has_validation=has_validation)
    return TrainingPlan(engine, cadence, arguments, sampler)


def fit(
    training: TrainingSection,
    plan: TrainingPlan,
    trainable: TrainableModel,
    batches: Batches,
    callbacks: Sequence[TrainerCallback],
    resume: Path | None,
) -> FitResult:
    """Train.  Checkpoints go to ``output_dir``; the weights of the best evaluation are loaded at the end if asked."""
    trainer = CausalTrainer(
        model=trainable.model,
        args=plan.arguments,
        train_dataset=batches.train,
        eval_dataset=batches.validation,
        data_collator=batches.collator,
        validation_collator=batches.validation_collator,
        training_sampler=plan.sampler,
        compute_metrics=token_mean_loss,
        callbacks=[
            CadenceCallback(plan.cadence),
            EpochCallback(plan.sampler),
            HealthCallback(),
            *_own_callbacks(training, trainable),
            *callbacks,
        ],
    )
    trainer.remove_callback(DefaultPrinter)
    trainer.add_callback(EngineCallback(plan.engine, trainer))
    output = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return FitResult(
        log_history=tuple(trainer.state.log_history),
        runtime_s=output.metrics["train_runtime"],
        last_step=trainer.state.global_step,
        total_steps=plan.cadence.total_steps,
    )


def _own_callbacks(training: TrainingSection, trainable: TrainableModel) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = []
    if trainable.frozen_rows:
        callbacks.append(FrozenRowsCallback(trainable.frozen_rows))
    if training.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(training.early_stopping_patience))
    return callbacks
