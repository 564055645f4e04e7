"""The whole story of a run, top to bottom: :func:`run`.

``accelerate launch -m finetune.train config.yml`` starts this module; it is the ``finetune train`` command.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":  # before the heavy imports, so that a faulty file is answered at once
    from finetune.cli import main

    main(["train", *sys.argv[1:]])
    sys.exit()

import torch
from transformers import set_seed

from finetune.card.redact import redact
from finetune.config import RunConfig
from finetune.errors import ConfigError, LaunchError
from finetune.model.attention import choose_attention
from finetune.model.build import Hardware, build_model
from finetune.model.positions import check_positions
from finetune.model.precision import choose_precision
from finetune.narration import Narrator
from finetune.preprocess import preprocess
from finetune.publish import publish
from finetune.record import RunRecord, refuse_changed_config, write_config, write_record
from finetune.training.callbacks import MetricsCallback, StopCallback
from finetune.training.checkpoints import find_resume
from finetune.training.fit import build_batches, fit, plan
from finetune.training.isolation import check_isolation
from finetune.training.output import claim_output_dir
from finetune.training.progress import ProgressCallback
from finetune.training.samples import Sampler
from finetune.training.saving import save_final
from finetune.training.tracking import open_trackers


def run(config: RunConfig, narrator: Narrator, *, replace: bool = False) -> Path:
    """Train as ``config`` says and return the folder with the result.

    Raises:
        FinetuneError: one of its subclasses, for everything that a user can cause or meet.
        Stopped: a signal came; a checkpoint was saved before.
    """
    # 1. What is asked for can be done here.
    refuse_several_processes(config)
    resume = find_resume(config.training)
    precision = choose_precision(config.training)
    hardware = Hardware(precision, choose_attention(config.model, precision))
    output_dir, prepared_dir = Path(config.training.output_dir), Path(config.data.dataset_prepared_path)
    goes_on = resume is not None and resume.parent.resolve() == output_dir.resolve()
    if resume:
        refuse_changed_config(config, resume)

    claim = claim_output_dir(output_dir, prepared_dir, resuming=goes_on, replace=replace)
    narrator.output(output_dir, claim.moved, resume)

    # 2. Rows become tokens.
    ready = preprocess(config, narrator.say)
    narrator.data(ready.data)
    write_config(config, ready.data.report, output_dir)

    # 3. Weights become trainable.
    set_seed(config.training.seed)
    trainable = build_model(config.model, config.adapter, ready.base, hardware, ready.loaded, narrator.say)
    narrator.model(trainable)
    narrator.note(check_positions(trainable.model.config, config.data.sequence_len))

    # 4. Training.
    batches = build_batches(config.data, ready.data, ready.tokenizer, trainable.hardware)
    if config.data.sample_packing or config.data.eval_sample_packing:
        check_isolation(trainable, len(ready.tokenizer), narrator.say)
    cadence = plan(config.training, batches)
    narrator.steps(cadence)
    sampler = Sampler(config.training, ready.tokenizer, precision, ready.data.validation)
    before = sampler.answers(trainable.model)
    metrics, resolved = MetricsCallback(output_dir / "metrics.jsonl"), redact(config.render())
    with (
        StopCallback(narrator.say) as stop,
        ProgressCallback(narrator.console) as progress,
        open_trackers(config.tracking, output_dir, resolved, narrator.say) as trackers,
    ):
        watchers = [progress, metrics, *trackers, stop]
        result = fit(config.training, trainable, batches, cadence, watchers, resume)
        stop.raise_if_stopped(result.last_step, result.total_steps, output_dir)

        # 5. What came out.
        save_final(trainable.model, ready.tokenizer, output_dir, trainable.stored)
        samples = sampler.compare(before, sampler.answers(trainable.model))
        write_record(RunRecord(config, ready, trainable, cadence, result, samples), output_dir)
    publish(config.card, output_dir, narrator.say)
    narrator.result(output_dir, result, samples)
    return output_dir


def refuse_several_processes(config: RunConfig) -> None:
    """Training runs in one process; more would each train on everything and write over each other.

    Raises:
        ConfigError: the configuration asks for DeepSpeed.
        LaunchError: the process was started as one of several.
    """
    if config.distributed.deepspeed:
        raise ConfigError(
            f"deepspeed: {config.distributed.deepspeed} spreads a run over several processes, "
            "and this version trains in one; add --deepspeed null"
        )
    if torch.cuda.device_count() > 1 and "LOCAL_RANK" not in os.environ:
        raise LaunchError(
            f"{torch.cuda.device_count()} GPUs are visible, and this version trains on one; set CUDA_VISIBLE_DEVICES=0"
        )
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1:
        raise LaunchError(
            f"started as one of {world_size} processes, and this version trains in one; use --num_processes 1"
        )
