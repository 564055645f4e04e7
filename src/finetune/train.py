"""The whole story of a run, top to bottom: :func:`run`.  Every process of a run lives through it.

``accelerate launch -m finetune.train config.yml`` starts this module; it is the ``finetune train`` command.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # before the heavy imports, so that a faulty file is answered at once
    from finetune.cli import main

    main(["train", *sys.argv[1:]])
    sys.exit()

import torch
from transformers import TrainerCallback, set_seed

from finetune.card.redact import redact
from finetune.config import RunConfig
from finetune.data.audit.gates import check_gates
from finetune.data.report import DataReport
from finetune.fitting import memory_share, refuse_disagreement, settle_auto
from finetune.hardware import describe_device, peak_memory_bytes
from finetune.model.attention import choose_attention
from finetune.model.build import Hardware, TrainableModel, build_model
from finetune.model.precision import Precision, choose_precision
from finetune.narration import Narrator
from finetune.preprocess import Preprocessed, preprocess
from finetune.processes import this_process
from finetune.publish import publish
from finetune.record import RunRecord, refuse_changed_config, refuse_changed_data, write_config, write_record
from finetune.training.callbacks import MetricsCallback, StopCallback
from finetune.training.checkpoints import find_resume
from finetune.training.deepspeed import load_deepspeed, resolve_deepspeed
from finetune.training.engine import Engine, start_engine, stop_engine
from finetune.training.fit import build_batches, fit, plan
from finetune.training.isolation import IsolationCallback
from finetune.training.longest import LongestBatch
from finetune.training.loss_check import LossCallback
from finetune.training.output import Claim, claim_output_dir
from finetune.training.positions import check_positions
from finetune.training.progress import ProgressCallback
from finetune.training.samples import Sampler
from finetune.training.saving import save_final
from finetune.training.throughput import ThroughputCallback, build_meter
from finetune.training.tracking import open_trackers


def run(config: RunConfig, narrator: Narrator, *, replace: bool = False, publishes: bool = True) -> Path:
    """Train as ``config`` says and return the folder with the result.

    ``publishes`` is off where somebody adds to the result, and uploads it, later.

    Raises:
        FinetuneError: one of its subclasses, for everything that a user can cause or meet.
        Stopped: a signal came; a checkpoint was saved before.
    """
    # 1. What is asked for can be done here, by these processes.
    config = settle_auto(config, narrator.say)
    engine, precision = connect(config)
    refuse_disagreement(config, engine)
    main = engine.place.is_main
    hardware = Hardware(precision, choose_attention(config.model, precision))
    output_dir = Path(config.training.output_dir)
    resume = engine.on_main(lambda: find_start(config, engine))
    claim = engine.only_main(lambda: claim_output(config, resume, replace=replace))
    narrator.output(output_dir, claim.moved if claim else None, resume)

    # 2. Rows become tokens; the plan of the steps follows from their number.
    ready = preprocess(config, narrator.say)
    narrator.data(ready.data, engine)
    engine.only_main(lambda: note_start(config, ready.data.report, resume, output_dir))
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
        speed, checks = measure_speed(trainable, engine), first_checks(config, trainable, ready, narrator)
        watchers = [speed, progress, metrics, *trackers, stop, sampler, *checks]
        result = fit(config.training, steps, trainable, batches, watchers, resume)
        stop.raise_if_stopped(result.last_step, result.total_steps, output_dir)

        # 5. What came out, written by the main process.
        save_final(trainable, ready.tokenizer, output_dir, main=main)
        samples = sampler.compare()
        if main:
            write_record(RunRecord(config, ready, trainable, steps, result, samples), output_dir)
    if main and publishes:
        publish(config.card, output_dir, narrator.say)
    narrator.result(output_dir, result, samples)
    stop_engine(engine)
    return output_dir


def measure_speed(trainable: TrainableModel, engine: Engine) -> ThroughputCallback:
    """Return what puts the speed beside each loss, for the device at hand."""
    return ThroughputCallback(build_meter(trainable, describe_device(), engine.place.world_size), peak_memory_bytes)


def first_checks(
    config: RunConfig, trainable: TrainableModel, ready: Preprocessed, narrator: Narrator
) -> list[TrainerCallback]:
    """Return what is proven and tried on the model at hand before the first step."""
    checks = [
        LossCallback(trainable, narrator.say),
        LongestBatch(memory_share(config), peak_memory_bytes, narrator.say),
    ]
    packs = config.data.sample_packing or config.data.eval_sample_packing
    if packs or trainable.hardware.attention.flatten:
        checks.append(IsolationCallback(trainable, len(ready.tokenizer), narrator.say))
    return checks


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


def find_start(config: RunConfig, engine: Engine) -> Path | None:
    """Return the checkpoint to go on from, whose run had the same values; None for a fresh start.

    Raises:
        CheckpointError: see :func:`find_resume`.
        ConfigError: a key that changes the result differs.
    """
    resume = find_resume(config.training, engine)
    if resume:
        refuse_changed_config(config, resume)
    return resume


def note_start(config: RunConfig, data: DataReport, resume: Path | None, output_dir: Path) -> None:
    """Write what is about to be trained, unless it goes on from other data.  Raises DataError if it does."""
    if resume:
        refuse_changed_data(data, resume)
    write_config(config, data, output_dir)


def claim_output(config: RunConfig, resume: Path | None, *, replace: bool) -> Claim:
    """Take ``output_dir`` for this run, which may go on in it; see :func:`claim_output_dir`."""
    output_dir, prepared_dir = Path(config.training.output_dir), Path(config.data.dataset_prepared_path)
    goes_on = resume is not None and resume.parent.resolve() == output_dir.resolve()
    return claim_output_dir(output_dir, prepared_dir, resuming=goes_on, replace=replace)
