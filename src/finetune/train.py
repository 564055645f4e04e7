"""The whole story of a run, top to bottom: :func:`run`.  Every process of a run lives through it.

``accelerate launch -m finetune.train config.yml`` starts this module; it is the ``finetune train`` command.
"""

import os
import sys
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # before the heavy imports, so that a faulty file is answered at once
    from finetune.cli import command

    command("train")
    sys.exit()

from transformers import TrainerCallback, set_seed

from finetune.attempt.attempt import Attempt
from finetune.card.redact import redact
from finetune.config import RunConfig
from finetune.disk import writing
from finetune.fitting import refuse_disagreement, settle_auto
from finetune.memory import Work
from finetune.model.build import build_model
from finetune.narration import Narrator
from finetune.preprocess import preprocess
from finetune.processes import this_process
from finetune.publish import publish
from finetune.record import RunRecord, write_record
from finetune.start import (
    ROOM,
    check_data,
    connect,
    find_start,
    measure_speed,
    note_start,
    open_store,
    plan_checks,
    plan_compilation,
    take_output,
)
from finetune.training.callbacks import MetricsCallback
from finetune.training.changed import ChangedValuesCallback
from finetune.training.checkpoints.final import publish_final
from finetune.training.engine import stop_engine
from finetune.training.fit import build_batches, fit, plan
from finetune.training.ledger import open_ledger
from finetune.training.output import let_go
from finetune.training.positions import check_positions
from finetune.training.progress import ProgressCallback
from finetune.training.samples import Sampler
from finetune.training.saving import save_final
from finetune.training.stopping import StopCallback
from finetune.training.tracking import open_trackers
from finetune.training.trainer import CausalTrainer


@dataclass(frozen=True)
class RunOptions:
    """What the command line decides about a run besides its configuration."""

    replace: bool = False
    """Move another run in output_dir aside."""
    allowed: Collection[str] = ()
    """Keys that may be other than those of the checkpoint that the run goes on from; see config/changes.py."""
    publishes: bool = True
    """Upload the result; off where somebody adds to it, and uploads it, later."""


def run(
    config: RunConfig, narrator: Narrator, options: RunOptions | None = None, attempt: Attempt | None = None
) -> Path:
    """Train as ``config`` says and return the folder with the result.

    ``attempt`` watches signals already; without one they are left to the caller.

    Raises:
        FinetuneError: one of its subclasses, for everything that a user can cause or meet.
        Stopped: a signal came; a checkpoint was saved before.
    """
    attempt = attempt or Attempt()
    attempt.take(this_process())
    attempt.belong(config.training)
    attempt.stop.say = narrator.say
    with ExitStack() as held, attempt.recorded():
        return _run(config, narrator, options or RunOptions(), attempt, held)


def _run(config: RunConfig, narrator: Narrator, options: RunOptions, attempt: Attempt, held: ExitStack) -> Path:
    """The story itself: see :func:`run`."""
    # 1. What is asked for can be done here, by these processes.
    config = settle_auto(config, narrator.say)
    engine, hardware = connect(config)
    refuse_disagreement(config, engine)
    main, output_dir = engine.place.is_main, Path(config.training.output_dir)
    start = engine.on_main(lambda: find_start(config, hardware, engine, options.allowed))
    claim, run_id = take_output(config, start, engine, narrator, attempt, replace=options.replace)
    held.callback(let_go, claim)

    # 2. Rows become tokens; the plan of the steps follows from their number.
    ready = preprocess(config, narrator.say)
    narrator.data(ready.data, engine)
    engine.only_main(lambda: note_start(config, ready.data.report, start, output_dir))
    store = open_store(config, start, run_id, ready.data.report, engine, narrator)
    check_data(config, ready, engine, narrator)
    steps = plan(config.training, ready.data, hardware, engine)
    narrator.steps(steps.cadence, engine, streamed=config.stream.streaming)
    compilation = plan_compilation(config, steps, hardware, narrator)

    # 3. Weights become trainable.
    set_seed(config.training.seed)
    work = Work(config, engine.place.world_size)
    with work.explained():
        trainable = build_model(config.model, config.adapter, ready.base, hardware, ready.loaded, narrator.say)
    narrator.model(trainable, check_positions(trainable.model.config, config.data.sequence_len))

    # 4. Training.
    batches = build_batches(config.data, ready.data, ready.tokenizer, trainable.hardware, steps.sampler.num_rows)
    sampler = Sampler(config.training, ready.tokenizer, trainable, ready.data.validation, engine)
    with (
        work.explained(),
        compilation.explained(),
        writing(output_dir, "the results of this run", ROOM),
        ProgressCallback(narrator.console) as progress,
        open_trackers(config.tracking, output_dir, redact(config.render()), narrator.say) as trackers,
    ):
        stop, speed = StopCallback(attempt, engine, config.training), measure_speed(trainable, engine)
        records = [MetricsCallback(output_dir / "metrics.jsonl"), *open_ledger(os.environ, engine.place.rank)]
        watchers = [ChangedValuesCallback(start.keys), speed, progress, *records, *trackers, stop, sampler]
        checks = plan_checks(config, ready, trainable, narrator, is_new=start.checkpoint is None)

        def watch(trainer: CausalTrainer) -> list[TrainerCallback]:
            trainer.meter = speed.meter
            return [*watchers, *checks(trainer), *compilation.callbacks(trainer, narrator.say), work.watch(trainer)]

        result = fit(config.training, steps, trainable, batches, watch, store, start.checkpoint)
        stop.raise_if_stopped(result.last_step, result.total_steps)

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
