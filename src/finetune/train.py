"""The whole story of a run, top to bottom: :func:`run`.  Every process of a run lives through it.

``accelerate launch -m finetune.train config.yml`` starts this module; it is the ``finetune train`` command.
"""

import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # before the heavy imports, so that a faulty file is answered at once
    from finetune.cli import main

    main(["train", *sys.argv[1:]])
    sys.exit()

import torch
from transformers import set_seed

from finetune.card.redact import redact
from finetune.config import RunConfig
from finetune.continuation import Continuation, continue_from, note_changes, refuse_changed_data
from finetune.data.audit.gates import check_gates
from finetune.data.report import DataReport
from finetune.model.attention import choose_attention
from finetune.model.build import Hardware, build_model
from finetune.model.precision import Precision, choose_precision
from finetune.narration import Narrator
from finetune.preprocess import preprocess
from finetune.processes import this_process
from finetune.publish import publish
from finetune.record import RunRecord, write_config, write_record
from finetune.surroundings import gather_surroundings
from finetune.training.callbacks import MetricsCallback, StopCallback
from finetune.training.changed import ChangedValuesCallback
from finetune.training.checkpoints.final import publish_final
from finetune.training.checkpoints.find import find_resume
from finetune.training.checkpoints.manifest import RunFacts
from finetune.training.checkpoints.publish import CheckpointStore
from finetune.training.checkpoints.run import begin_run, read_run_id, saved_nothing
from finetune.training.deepspeed import load_deepspeed, resolve_deepspeed
from finetune.training.engine import Engine, start_engine, stop_engine
from finetune.training.fit import build_batches, fit, plan
from finetune.training.isolation import IsolationCallback
from finetune.training.ledger import open_ledger
from finetune.training.output import Claim, claim_output_dir
from finetune.training.positions import check_positions
from finetune.training.progress import ProgressCallback
from finetune.training.samples import Sampler
from finetune.training.saving import save_final
from finetune.training.tracking import open_trackers


@dataclass(frozen=True)
class RunOptions:
    """What the command line decides about a run besides its configuration."""

    replace: bool = False
    """Move another run in output_dir aside."""
    allowed: Collection[str] = ()
    """Keys that may be other than those of the checkpoint that the run goes on from; see config/changes.py."""
    publishes: bool = True
    """Upload the result; off where somebody adds to it, and uploads it, later."""


def run(config: RunConfig, narrator: Narrator, options: RunOptions | None = None) -> Path:
    """Train as ``config`` says and return the folder with the result.

    Raises:
        FinetuneError: one of its subclasses, for everything that a user can cause or meet.
        Stopped: a signal came; a checkpoint was saved before.
    """
    # 1. What is asked for can be done here, by these processes.
    options = options or RunOptions()
    engine, precision = connect(config)
    main = engine.place.is_main
    hardware = Hardware(precision, choose_attention(config.model, precision))
    output_dir = Path(config.training.output_dir)
    start = engine.on_main(lambda: find_start(config, hardware, engine, options.allowed))
    _lock, run_id = take_output(config, start, engine, narrator, replace=options.replace)

    # 2. Rows become tokens; the plan of the steps follows from their number.
    ready = preprocess(config, narrator.say)
    narrator.data(ready.data, engine)
    engine.only_main(lambda: note_start(config, ready.data.report, start, output_dir))
    store = open_store(config, start, run_id, ready.data.report, engine, narrator)
    check_gates(config.data, ready.data.report, ready.data.validation_report)
    steps = plan(config.training, ready.data, hardware, engine)
    narrator.steps(steps.cadence, engine, streamed=config.stream.streaming)

    # 3. Weights become trainable.
    set_seed(config.training.seed)
    trainable = build_model(config.model, config.adapter, ready.base, hardware, ready.loaded, narrator.say)
    narrator.model(trainable)
    narrator.note(check_positions(trainable.model.config, config.data.sequence_len))

    # 4. Training.
    batches = build_batches(config.data, ready.data, ready.tokenizer, trainable.hardware, steps.sampler.num_rows)
    sampler = Sampler(config.training, ready.tokenizer, trainable, ready.data.validation, engine)
    metrics, resolved = MetricsCallback(output_dir / "metrics.jsonl"), redact(config.render())
    with (
        StopCallback(narrator.say, engine) as stop,
        ProgressCallback(narrator.console) as progress,
        open_trackers(config.tracking, output_dir, resolved, narrator.say) as trackers,
    ):
        watchers = [ChangedValuesCallback(start.keys), progress, metrics, *trackers, stop, sampler]
        watchers += open_ledger(os.environ, engine.place.rank)
        if config.data.sample_packing or config.data.eval_sample_packing:
            watchers.append(IsolationCallback(trainable, len(ready.tokenizer), narrator.say))
        result = fit(config.training, steps, trainable, batches, watchers, store, start.checkpoint)
        stop.raise_if_stopped(result.last_step, result.total_steps, output_dir)

        # 5. What came out, written by the main process.
        publish_final(store, result.last_step, lambda folder: save_final(trainable, ready.tokenizer, folder, main=main))
        samples = sampler.compare()
        if main:
            write_record(RunRecord(config, ready, trainable, steps, result, samples), output_dir)
    if main and options.publishes:
        publish(config.card, output_dir, narrator.say)
    narrator.result(output_dir, result, samples)
    stop_engine(engine)
    return output_dir


def connect(config: RunConfig) -> tuple[Engine, Precision]:
    """Find the other processes, and settle what DeepSpeed and the precision are.

    Raises:
        ConfigError: the DeepSpeed file is missing, faulty, or contradicts the YAML.
        HardwareError: a device lacks what was asked for.
        LaunchError: the processes do not find each other.
    """
    place = this_process()
    found = load_deepspeed(config.distributed, Path(config.source.file))
    precision = choose_precision(config.training, deepspeed=found is not None)
    settings = resolve_deepspeed(found, config.training, precision, place.world_size, cpu=not torch.cuda.is_available())
    return start_engine(place, settings), precision


def find_start(config: RunConfig, hardware: Hardware, engine: Engine, allowed: Collection[str]) -> Continuation:
    """Return the checkpoint to go on from, whose run had the same values but for those ``allowed``; or a fresh start.

    Raises:
        CheckpointError: see :func:`find_resume`.
        ConfigError: a key that changes the result differs.
    """
    resume = find_resume(config.training, engine, read_run_id(Path(config.training.output_dir)))
    surroundings = gather_surroundings(config, hardware)
    return continue_from(config, resume, surroundings, allowed) if resume else Continuation(surroundings)


def note_start(config: RunConfig, data: DataReport, start: Continuation, output_dir: Path) -> None:
    """Write what is about to be trained, unless it goes on from other data.  Raises DataError if it does."""
    if start.checkpoint:
        refuse_changed_data(data, start.checkpoint)
    write_config(config, data, output_dir)
    note_changes(start, output_dir)


def take_output(
    config: RunConfig, start: Continuation, engine: Engine, narrator: Narrator, *, replace: bool
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
    narrator.output(output_dir, claim.moved if claim else None, found, (*cleared, *start.notes))
    return claim, run_id


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
