"""Putting the Trainer together and running it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments
from transformers import PrinterCallback as DefaultPrinter

from finetune.config.data import DataSection
from finetune.config.training import TrainingSection
from finetune.data.collate import (
    PackedCollator,
    PackedDataset,
    PaddedCollator,
    SampleDataset,
    StreamDataset,
    SupervisedCollator,
)
from finetune.data.prepare import PreparedData, StreamedData
from finetune.model.build import Hardware, TrainableModel
from finetune.training.arguments import build_arguments
from finetune.training.cadence import Cadence, plan_cadence
from finetune.training.callbacks import CadenceCallback, EngineCallback, FrozenRowsCallback
from finetune.training.checkpoints.find import Found
from finetune.training.checkpoints.publish import CheckpointStore
from finetune.training.checkpoints.space import estimate_needs
from finetune.training.checkpoints.unpickled import weights_only
from finetune.training.engine import Engine
from finetune.training.health import HealthCallback
from finetune.training.loss_check import check_loss
from finetune.training.sampler import EpochCallback, EvenSampler, FilledSampler
from finetune.training.stopping import EvaluationCallback, StopCallback, is_owed
from finetune.training.throughput import Throughput
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
    first_step: int = 0
    """Step of the checkpoint that this went on from; runtime_s counts from there."""
    throughput: Throughput | None = None
    """Speed of all its steps; None if it took none."""


@dataclass(frozen=True)
class TrainingPlan:
    """What is known of the training before there are weights."""

    engine: Engine
    cadence: Cadence
    arguments: TrainingArguments
    sampler: EvenSampler | FilledSampler


def plan(
    training: TrainingSection, prepared: PreparedData | StreamedData, hardware: Hardware, engine: Engine
) -> TrainingPlan:
    """Compute the run's steps from the number of batches, and set the Trainer's arguments."""
    world_size, has_validation = engine.place.world_size, prepared.validation is not None
    per_step = training.micro_batch_size * world_size
    sampler = _deal(training, prepared, per_step, world_size)
    cadence = plan_cadence(training, -(-sampler.num_rows // per_step), has_validation=has_validation)
    arguments = build_arguments(training, cadence, hardware.precision, engine, has_validation=has_validation)
    return TrainingPlan(engine, cadence, arguments, sampler)


def _deal(
    training: TrainingSection, prepared: PreparedData | StreamedData, per_step: int, world_size: int
) -> EvenSampler | FilledSampler:
    """Return the order of the rows: of a stream the sequences one after another, as many as the run takes."""
    global_batch = per_step * training.gradient_accumulation_steps
    if isinstance(prepared, StreamedData):
        assert training.max_steps, "a stream needs max_steps"
        return FilledSampler(training.max_steps * global_batch, 1)
    rows = training_rows(prepared)
    return EvenSampler(
        len(rows),
        per_step if world_size > 1 else 1,
        global_batch,
        training.seed,
        lengths=rows.lengths.tolist() if training.group_by_length and isinstance(rows, SampleDataset) else None,
        work=prepared.packing.work if prepared.packing else None,
        num_processes=world_size,
    )


def training_rows(prepared: PreparedData) -> SampleDataset | PackedDataset:
    """Return the samples, or where a plan was made the bins of samples, that training draws from."""
    return PackedDataset(prepared.train, prepared.packing) if prepared.packing else SampleDataset(prepared.train)


def build_batches(
    data: DataSection,
    prepared: PreparedData | StreamedData,
    tokenizer: PreTrainedTokenizerBase,
    hardware: Hardware,
    num_rows: int,
) -> Batches:
    """Return data sets and collators: packed where a plan was made, padded elsewhere.

    Of a stream the run takes ``num_rows`` sequences.
    """
    packed = PackedCollator(
        tokenizer.pad_token_id, data.sequence_len, data.pad_to_sequence_len, hardware.attention.flatten
    )
    padded = PaddedCollator(
        tokenizer.pad_token_id, data.sequence_len, data.pad_to_sequence_len, flatten=hardware.attention.flatten
    )
    train: Dataset[Any]
    if isinstance(prepared, StreamedData):
        train, packs = StreamDataset(prepared.stream, num_rows), data.sample_packing
    else:
        train, packs = training_rows(prepared), prepared.packing is not None
    validation: Dataset[Any] | None = None
    if prepared.validation is not None:
        plan = prepared.validation_packing
        validation = PackedDataset(prepared.validation, plan) if plan else SampleDataset(prepared.validation)
    return Batches(
        train,
        validation,
        tokenizer,
        SupervisedCollator(packed if packs else padded),
        SupervisedCollator(packed if prepared.validation_packing else padded),
    )


def fit(
    training: TrainingSection,
    plan: TrainingPlan,
    trainable: TrainableModel,
    batches: Batches,
    watch: Callable[[CausalTrainer], Sequence[TrainerCallback]],
    store: CheckpointStore,
    resume: Found | None,
) -> FitResult:
    """Train.  Checkpoints go into ``store``; the weights of the best evaluation are loaded at the end if asked.

    ``watch`` makes further callbacks for the Trainer that it is given.

    Raises:
        CheckpointError: a checkpoint cannot be saved or read, or somebody else's has a name that this run needs.
    """
    first_step, total_steps = resume.step if resume else 0, plan.cadence.total_steps
    needs = plan.engine.on_main(
        lambda: estimate_needs(trainable.model, trainable.stored, training.optimizer, batches.tokenizer, plan.engine)
    )
    saves = plan.cadence.eval_at if training.save_strategy == "best" else plan.cadence.save_at
    store.prepare(needs, first_step, total_steps, saves)
    trainer = _build_trainer(training, plan, trainable, batches, store)
    watchers = watch(trainer)
    for callback in [*watchers, *_closing_callbacks(plan, trainer, trainable, resume)]:
        trainer.add_callback(callback)
    started = time.monotonic()
    with weights_only(deepspeed=plan.engine.deepspeed is not None):
        _take_steps(trainer, plan, trainable, resume)
    is_stopped = any(isinstance(callback, StopCallback) and callback.stops for callback in watchers)
    if training.load_best_model_at_end and not is_stopped:
        trainer.evaluate()
    history = tuple(trainer.state.log_history)
    return FitResult(
        log_history=history,
        runtime_s=time.monotonic() - started,
        last_step=trainer.state.global_step,
        total_steps=total_steps,
        eval_loss=next((row["eval_loss"] for row in reversed(history) if "eval_loss" in row), None),
        first_step=first_step,
        throughput=trainer.meter.rate(trainer.meter.whole),
    )


def _build_trainer(
    training: TrainingSection,
    plan: TrainingPlan,
    trainable: TrainableModel,
    batches: Batches,
    store: CheckpointStore,
) -> CausalTrainer:
    """Return the Trainer with the callbacks that change what it does; those that only look on come after them."""
    callbacks: list[TrainerCallback] = [CadenceCallback(plan.cadence)]
    if isinstance(plan.sampler, EvenSampler):
        callbacks.append(EpochCallback(plan.sampler))
    if trainable.frozen_rows:
        callbacks.append(FrozenRowsCallback(trainable.frozen_rows))
    if training.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(training.early_stopping_patience))
    trainer = CausalTrainer(
        model=trainable.model,
        args=plan.arguments,
        train_dataset=batches.train,
        eval_dataset=batches.validation,
        processing_class=batches.tokenizer,
        data_collator=batches.collator,
        validation_collator=batches.validation_collator,
        training_sampler=plan.sampler,
        store=store,
        head=trainable.head,
        compute_metrics=token_mean_loss,
        callbacks=callbacks,
    )
    trainer.remove_callback(DefaultPrinter)
    return trainer


def _closing_callbacks(
    plan: TrainingPlan, trainer: CausalTrainer, trainable: TrainableModel, resume: Found | None
) -> list[TrainerCallback]:
    """Return those that come after all others; the last sees what the others have decided to save."""
    return [
        EngineCallback(plan.engine, trainer),
        EvaluationCallback(plan.cadence, trainer),
        HealthCallback(plan.engine, trainer, trainable.hardware.precision, resume.path if resume else None),
    ]


def _take_steps(trainer: CausalTrainer, plan: TrainingPlan, trainable: TrainableModel, resume: Found | None) -> None:
    """Train from ``resume`` on; where its run had taken all steps, load it and take the evaluation that it lacks."""
    if resume and resume.step >= plan.cadence.total_steps:
        trainer.load_finished(resume.path, plan.cadence.total_steps)
        check_loss(trainable, trainer.store.say)  # the evaluation then rounds as in a run that was not stopped
        _restore_rows(trainable)
        if is_owed(plan.cadence, trainer.state):
            trainer.evaluate()
    else:
        trainer.train(resume_from_checkpoint=str(resume.path) if resume else None)
    _restore_rows(trainable)


def _restore_rows(trainable: TrainableModel) -> None:
    """Put frozen rows back: a checkpoint of ZeRO's brings its own copy, in which they have decayed."""
    if trainable.frozen_rows:
        trainable.frozen_rows.restore()
