"""What a run writes down besides its weights: the resolved configuration, the plot, samples, and the card's facts."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from peft import PeftModel
from transformers.training_args import OptimizerNames

from finetune import __version__
from finetune.card import facts as card
from finetune.card import stored
from finetune.card.plot import plot_losses
from finetune.card.redact import redact
from finetune.card.render import render
from finetune.config import RunConfig
from finetune.config.data import DatasetEntry, PromptMapping
from finetune.config.run import RESOLVED
from finetune.data.prepare import StreamedData
from finetune.data.report import DataReport
from finetune.data.report import render as render_report
from finetune.data.sources import hub_name
from finetune.hardware import describe_device, peak_memory_bytes
from finetune.model.build import TrainableModel
from finetune.model.hub import read_metadata
from finetune.preprocess import Preprocessed
from finetune.surroundings import made_changes
from finetune.training.fit import FitResult, TrainingPlan
from finetune.training.samples import SampleAnswers, render_samples

DATA_REPORT = "data_report.json"
_FRAMEWORKS = (
    ("PEFT", "peft"),
    ("Transformers", "transformers"),
    ("Pytorch", "torch"),
    ("Datasets", "datasets"),
    ("Tokenizers", "tokenizers"),
)


@dataclass(frozen=True)
class RunRecord:
    """Everything that a finished run knows about itself."""

    config: RunConfig
    ready: Preprocessed
    trainable: TrainableModel
    plan: TrainingPlan
    result: FitResult
    samples: Sequence[SampleAnswers]


def write_config(config: RunConfig, data: DataReport, output_dir: Path) -> None:
    """Write the resolved configuration and the data report, before training starts."""
    (output_dir / RESOLVED).write_text(redact(config.render()), encoding="utf-8")
    _write_data_report(data, output_dir)


def _write_data_report(data: DataReport, output_dir: Path) -> None:
    (output_dir / DATA_REPORT).write_text(redact(data.to_json()), encoding="utf-8")
    (output_dir / "data_report.txt").write_text(redact(render_report(data)) + "\n", encoding="utf-8")


def write_record(record: RunRecord, output_dir: Path) -> None:
    """Write the loss plot, the samples and the model card; of a stream, the report of what was read by now."""
    if isinstance(record.ready.data, StreamedData):
        _write_data_report(record.ready.data.report, output_dir)
    plotted = plot_losses(record.result.log_history, output_dir / "loss.png")
    if record.samples:
        (output_dir / "samples.md").write_text(redact(render_samples(record.samples)), encoding="utf-8")
    facts = gather_facts(record, plot_file="loss.png" if plotted else None)
    text = render(facts)
    (output_dir / stored.FILE).write_text(stored.to_json(facts, text), encoding="utf-8")
    (output_dir / "README.md").write_text(text, encoding="utf-8")


def gather_facts(record: RunRecord, plot_file: str | None) -> card.CardFacts:
    """Collect the facts of the card: what ran, not what was asked for."""
    config = record.config
    adapter = config.adapter.adapter
    entries = config.data.datasets
    overrides = config.source.overrides
    metadata = read_metadata(record.ready.base)
    return card.CardFacts(
        title=config.card.hub_model_id or Path(config.training.output_dir).resolve().name,
        base_model=_base_name(record),
        is_local_base=record.ready.base.is_local,
        datasets=tuple(_dataset_name(entry.path) for entry in entries),
        library_name="peft" if adapter else "transformers",
        license=metadata.license,
        languages=metadata.languages,
        yaml_text=config.source.text,
        overrides=yaml.safe_dump(overrides, sort_keys=False, allow_unicode=True) if overrides else "",
        resolved_yaml=config.render(),
        finetune_version=__version__,
        hyperparameters=_hyperparameters(config, record.plan),
        framework_versions=tuple(
            (label, importlib.metadata.version(package))
            for label, package in _FRAMEWORKS
            if adapter or package != "peft"
        ),
        log_history=record.result.log_history,
        eval_results={} if record.result.eval_loss is None else {"loss": record.result.eval_loss},
        tags=("finetune", "generated_from_trainer", *([str(adapter)] if adapter else [])),
        data=_data_summary(record),
        parameters=card.ParameterSummary(
            total=record.trainable.summary.num_parameters,
            trained=record.trainable.summary.num_trained,
            method=method(record.trainable, config),
        ),
        samples=tuple(card.SampleChange(prompt=s.prompt, before=s.before, after=s.after) for s in record.samples),
        machine=_machine(record),
        usage=_usage(record),
        plot_file=plot_file,
    )


def method(trainable: TrainableModel, config: RunConfig) -> str:
    """Say in words how the weights were trained, from the model itself."""
    if isinstance(trainable.model, PeftModel):
        lora = trainable.model.peft_config["default"]
        kind = "DoRA" if lora.use_dora else "rsLoRA" if lora.use_rslora else "LoRA"
        bits = min(group.bits for group in trainable.summary.groups if not group.trained)
        held = f"{bits}-bit" if bits <= 8 else "unquantized"
        return f"{kind} adapter (r {lora.r}, alpha {lora.lora_alpha:g}) on {held} weights"
    return "selected weights (unfrozen_parameters)" if config.model.unfrozen_parameters else "all weights"


def _base_name(record: RunRecord) -> str:
    """A hub name as it is; of a local path the last part, because facts are published."""
    base = record.ready.base
    return Path(base.name).expanduser().resolve().name if base.is_local else base.name


def _dataset_name(path: str) -> card.DatasetName:
    """A hub name as it is; of a path or address the last part, without what a signed address ends with."""
    on_hub = hub_name(path)
    name = on_hub or Path(path.partition("?")[0]).expanduser().name or path
    return card.DatasetName(name=name, on_hub=on_hub is not None)


def _machine(record: RunRecord) -> card.Machine:
    result, cadence = record.result, record.plan.cadence
    num_steps, data = result.last_step - result.first_step, record.ready.data
    if isinstance(data, StreamedData):
        num_tokens = num_steps * record.plan.sampler.num_rows / cadence.total_steps * data.stream.tokens_per_sequence
    else:
        num_tokens = num_steps / cadence.steps_per_epoch * int(data.train.lengths.sum())
    return card.Machine(
        device=describe_device(),
        num_devices=record.plan.engine.place.world_size,
        runtime_s=result.runtime_s,
        tokens_per_second=num_tokens / result.runtime_s if num_tokens and result.runtime_s else None,
        peak_memory_bytes=peak_memory_bytes(),
    )


def _usage(record: RunRecord) -> card.Usage:
    config = record.config
    entry = config.data.datasets[0]
    is_chat = any(e.type in ("chat_template", "sharegpt") for e in config.data.datasets)
    return card.Usage(
        name=config.card.hub_model_id or Path(config.training.output_dir).resolve().name,
        base=_base_name(record),
        is_adapter=bool(config.adapter.adapter),
        is_chat=is_chat,
        question="Your question" if is_chat else _question(entry, record),
        bits=4 if config.model.load_in_4bit else 8 if config.model.load_in_8bit else None,
        adds_tokens=bool(record.ready.loaded.added_ids),
    )


def _question(entry: DatasetEntry, record: RunRecord) -> str:
    """An example prompt: the format where the configuration writes one, else that of the first training row."""
    if isinstance(entry.type, PromptMapping) and not entry.type.field:
        return entry.type.no_input_format.format(instruction="Your question", input="", system="")
    data = record.ready.data
    sample = data.stream.first_sample() if isinstance(data, StreamedData) else data.train[0]
    ids, labels = sample["input_ids"].tolist(), sample["labels"].tolist()
    start = next((index for index, label in enumerate(labels) if label != -100), 0)
    text: str = record.ready.tokenizer.decode(ids[: start or 8], skip_special_tokens=True)
    return text


def _hyperparameters(config: RunConfig, plan: TrainingPlan) -> card.Hyperparameters:
    training = config.training
    return card.Hyperparameters(
        learning_rate=training.learning_rate,
        train_batch_size=training.micro_batch_size,
        eval_batch_size=training.eval_batch_size,
        seed=training.seed,
        optimizer=card.describe_optimizer(
            f"OptimizerNames.{OptimizerNames(training.optimizer).name}",
            (training.adam_beta1, training.adam_beta2),
            training.adam_epsilon,
        ),
        lr_scheduler_type=training.lr_scheduler,
        num_epochs=training.num_epochs,
        max_steps=training.max_steps,
        warmup_steps=plan.cadence.warmup_steps,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        distributed_type=plan.engine.distributed_type,
        changes=tuple(made_changes(Path(training.output_dir))),
        num_devices=plan.engine.place.world_size,
    )


def _data_summary(record: RunRecord) -> card.DataSummary:
    """Count training and validation rows together; test_datasets have a report of their own."""
    report, validation = record.ready.data.report, record.ready.data.validation_report
    total = report.total
    if validation:
        total.add(validation.total)
    return card.DataSummary(
        rows_read=total.rows_read,
        rows_kept=total.samples_kept,
        rows_dropped={reason: dropped.count for reason, dropped in total.dropped.items()},
        rows_truncated=total.truncated,
        eval_rows=validation.num_train if validation else report.num_validation,
        num_tokens=total.total_tokens,
        num_trained_tokens=total.trained_tokens,
        sequence_len=record.config.data.sequence_len,
    )
