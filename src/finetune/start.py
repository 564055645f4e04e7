"""What a run settles before its first step: its processes, its start, its folder, and what it proves."""

from collections.abc import Callable, Collection
from pathlib import Path

import torch
from transformers import TrainerCallback

from finetune.attempt.attempt import Attempt
from finetune.card.redact import redact
from finetune.config import RunConfig
from finetune.continuation import Continuation, continue_from, note_changes, refuse_changed_data
from finetune.data.audit.gates import check_gates
from finetune.data.report import DataReport
from finetune.disk import writing
from finetune.fitting import memory_share
from finetune.hardware import describe_device, peak_memory_bytes
from finetune.model.attention import choose_attention
from finetune.model.build import Hardware, TrainableModel
from finetune.model.precision import choose_precision
from finetune.narration import Narrator
from finetune.preprocess import Preprocessed
from finetune.processes import this_process
from finetune.record import write_config
from finetune.surroundings import gather_surroundings
from finetune.training.checkpoints.find import find_resume
from finetune.training.checkpoints.manifest import RunFacts
from finetune.training.checkpoints.publish import CheckpointStore
from finetune.training.checkpoints.run import begin_run, read_run_id, saved_nothing
from finetune.training.checks.callback import ChecksCallback, Subject
from finetune.training.checks.rows import check_rows, look
from finetune.training.compilation import Compilation, choose_compilation, refuse_compilation
from finetune.training.deepspeed import load_deepspeed, resolve_deepspeed
from finetune.training.engine import Engine, start_engine
from finetune.training.fit import TrainingPlan
from finetune.training.longest import LongestBatch
from finetune.training.loss_check import LossCallback
from finetune.training.output import Claim, claim_output_dir
from finetune.training.throughput import ThroughputCallback, build_meter
from finetune.training.trainer import CausalTrainer

ROOM = "free some space, or set output_dir to a folder that has room"
"""What to do where the disk of a run is full."""


def connect(config: RunConfig) -> tuple[Engine, Hardware]:
    """Find the other processes, and settle what DeepSpeed, the precision and the attention are.

    Raises:
        ConfigError: the DeepSpeed file is missing, faulty, or contradicts the YAML.
        HardwareError: a device lacks what was asked for.
        LaunchError: the processes do not find each other.
    """
    place = this_process()
    found = load_deepspeed(config.distributed, Path(config.source.file))
    refuse_compilation(config.training, deepspeed=found is not None)
    precision = choose_precision(config.training, deepspeed=found is not None)
    settings = resolve_deepspeed(found, config.training, precision, place.world_size, cpu=not torch.cuda.is_available())
    return start_engine(place, settings), Hardware(precision, choose_attention(config.model, precision))


def find_start(config: RunConfig, hardware: Hardware, engine: Engine, allowed: Collection[str]) -> Continuation:
    """Return the checkpoint to go on from, whose run had the same values but for those ``allowed``; or a fresh start.

    Raises:
        CheckpointError: see :func:`find_resume`.
        ConfigError: a key that changes the result differs.
    """
    resume = find_resume(config.training, engine, read_run_id(Path(config.training.output_dir)))
    surroundings = gather_surroundings(config, hardware)
    return continue_from(config, resume, surroundings, allowed) if resume else Continuation(surroundings)


def take_output(
    config: RunConfig, start: Continuation, engine: Engine, narrator: Narrator, attempt: Attempt, *, replace: bool
) -> tuple[Claim | None, str]:
    """Take ``output_dir`` for this run, which may go on in it, and say so; see :func:`claim_output_dir`.

    A run that was to resume and ended before its first checkpoint starts over in its own folder.

    Returns:
        The main process's hold on the folder, and the run's id.
    """
    output_dir, prepared_dir = Path(config.training.output_dir), Path(config.data.dataset_prepared_path)
    found = start.checkpoint
    goes_on = found is not None and found.path.parent.resolve() == output_dir.resolve()
    starts_over = config.training.auto_resume_from_checkpoints and found is None
    claim = engine.only_main(
        lambda: claim_output_dir(
            output_dir,
            prepared_dir,
            resuming=goes_on or (starts_over and saved_nothing(output_dir)),
            replace=replace,
        )
    )
    run_id, cleared = engine.on_main(lambda: begin_run(output_dir, found))
    path, step = (found.path, found.step) if found else (None, 0)
    attempt.join(engine.on_main(lambda: attempt.begin(path, step, run_id)))
    narrator.output(output_dir, claim.moved if claim else None, found, (*cleared, *start.notes))
    narrator.note(attempt.note)
    return claim, run_id


def note_start(config: RunConfig, data: DataReport, start: Continuation, output_dir: Path) -> None:
    """Write what is about to be trained, unless it goes on from other data.  Raises DataError if it does."""
    if start.checkpoint:
        refuse_changed_data(data, start.checkpoint)
    with writing(output_dir, "the record of this run", ROOM):
        write_config(config, data, output_dir)
        note_changes(start, output_dir)


def open_store(
    config: RunConfig, start: Continuation, run_id: str, data: DataReport, engine: Engine, narrator: Narrator
) -> CheckpointStore:
    """Return where this run's checkpoints go, with what each of them says of it."""
    facts = RunFacts(
        run=run_id,
        config=redact(config.render()),
        data_digest=data.digest,
        num_samples=data.num_train,
        world_size=engine.place.world_size,
        engine=engine.name,
        surroundings=start.surroundings.to_json(),
    )
    training = config.training
    return CheckpointStore(Path(training.output_dir), facts, engine, narrator.say, training.save_total_limit)


def check_data(config: RunConfig, ready: Preprocessed, engine: Engine, narrator: Narrator) -> None:
    """Hold the data to the limits of the YAML, and prove its masks and ends.  Raises DataError where it fails."""
    check_gates(config.data, ready.data.report, ready.data.validation_report)
    if not config.training.skip_checks:
        engine.only_main(lambda: check_rows(look(ready.data), config.data, ready.tokenizer, narrator.say))


def plan_checks(
    config: RunConfig, ready: Preprocessed, trainable: TrainableModel, narrator: Narrator, *, is_new: bool
) -> Callable[[CausalTrainer], list[TrainerCallback]]:
    """Return what proves the loss, the model and the memory before the first step; only the model can be left out."""
    packs = config.data.sample_packing
    shares_rows = packs or bool(config.data.eval_sample_packing) or trainable.hardware.attention.flatten
    fresh = is_new and not config.adapter.lora_model_dir
    subject = Subject(trainable, len(ready.tokenizer), ready.data, packs, shares_rows, fresh)

    def callbacks(trainer: CausalTrainer) -> list[TrainerCallback]:
        of_model = [] if config.training.skip_checks else [ChecksCallback(subject, trainer, narrator.say)]
        longest = LongestBatch(trainer, memory_share(config), peak_memory_bytes, narrator.say)
        return [LossCallback(trainable, narrator.say), *of_model, longest]

    return callbacks


def plan_compilation(config: RunConfig, plan: TrainingPlan, hardware: Hardware, narrator: Narrator) -> Compilation:
    """Decide whether the layers are compiled, and say so where that was left open."""
    uses_deepspeed = plan.engine.deepspeed is not None
    compilation = choose_compilation(
        config.training, plan.cadence.total_steps, hardware.precision, deepspeed=uses_deepspeed
    )
    narrator.note(compilation.note)
    if config.training.fp8 and not compilation.on:
        narrator.note("fp8 is fast where the layers are compiled: torch_compile: true")
    return compilation


def measure_speed(trainable: TrainableModel, engine: Engine) -> ThroughputCallback:
    """Return what puts the speed beside each loss, for the device at hand."""
    return ThroughputCallback(build_meter(trainable, describe_device(), engine.place.world_size), peak_memory_bytes)
