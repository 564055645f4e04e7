"""The checks of a configuration that need more than one of its sections."""

import re
from collections.abc import Iterator

from finetune.config.document import Fault
from finetune.config.run import RunConfig
from finetune.config.unbounded import stream_contradictions

_COMMIT = re.compile("[0-9a-f]{40}")


def contradictions(config: RunConfig) -> Iterator[Fault]:
    """Yield what no single section can see."""
    yield from _adapter_contradictions(config)
    yield from _validation_contradictions(config)
    yield from _data_contradictions(config)
    yield from stream_contradictions(config)


def _adapter_contradictions(config: RunConfig) -> Iterator[Fault]:
    adapter, model, training = config.adapter, config.model, config.training
    bits = "load_in_4bit" if model.load_in_4bit else "load_in_8bit"
    if model.quantized and not adapter.adapter:
        yield Fault((bits,), f"{bits} freezes the weights, so nothing could be trained; add adapter: lora")
    if training.fp8 and model.quantized:
        yield Fault(("fp8",), f"fp8 rounds unquantized weights, and {bits} quantizes them; drop one of the two")
    if adapter.adapter == "qlora" and not model.load_in_4bit:
        yield Fault(("adapter",), "adapter: qlora needs load_in_4bit: true; use adapter: lora for an unquantized base")
    if adapter.adapter and model.unfrozen_parameters:
        yield Fault(
            ("unfrozen_parameters",),
            f"unfrozen_parameters trains the weights themselves and adapter: {adapter.adapter} freezes them; "
            "drop one of the two",
        )
    if model.unfrozen_parameters and training.gradient_checkpointing_kwargs.get("use_reentrant"):
        yield Fault(
            ("gradient_checkpointing_kwargs",),
            "use_reentrant: true loses gradients where the first layers are frozen (unfrozen_parameters); "
            "set it to false",
        )


def _validation_contradictions(config: RunConfig) -> Iterator[Fault]:
    data, training = config.data, config.training
    if data.val_set_size and data.test_datasets:
        yield Fault(("val_set_size",), "val_set_size and test_datasets exclude each other")
    if data.val_set_size and any(entry.weight > 1 for entry in data.datasets):
        yield Fault(
            ("val_set_size",),
            "val_set_size would hold out copies of rows that are trained, since a weight above 1 repeats rows; "
            "name validation data with test_datasets",
        )
    if data.val_set_size == 1:
        yield Fault(
            ("val_set_size",), "val_set_size: 1 would hold out every row; give a fraction below 1 or a count above"
        )
    if not data.has_validation:
        wanted = {
            "evals_per_epoch": training.evals_per_epoch,
            "eval_steps": training.eval_steps,
            "eval_strategy": training.eval_strategy not in (None, "no"),
            "save_strategy": training.save_strategy == "best",
            "early_stopping_patience": training.early_stopping_patience,
            "load_best_model_at_end": training.load_best_model_at_end,
            "eval_table_size": training.eval_table_size,
        }
        for name in [name for name, value in wanted.items() if value]:
            yield Fault((name,), f"{name} needs validation data; set val_set_size or test_datasets")
    elif training.load_best_model_at_end and training.save_strategy == "no":
        yield Fault(("save_strategy",), "save_strategy: no leaves load_best_model_at_end without weights to load")
    elif training.eval_strategy == "no" and (training.early_stopping_patience or training.load_best_model_at_end):
        yield Fault(
            ("eval_strategy",), "eval_strategy: no leaves early stopping and the best model without evaluations"
        )


def _data_contradictions(config: RunConfig) -> Iterator[Fault]:
    data, training, model = config.data, config.training, config.model
    if data.sample_packing and training.group_by_length:
        yield Fault(("group_by_length",), "group_by_length has no meaning with sample_packing; drop one of the two")
    if (data.chat_template == "jinja") != bool(data.chat_template_jinja):
        yield Fault(("chat_template",), "chat_template: jinja and chat_template_jinja belong together")
    if model.trust_remote_code and not model.base_is_folder and not _COMMIT.fullmatch(model.model_revision or ""):
        yield Fault(
            ("trust_remote_code",),
            "trust_remote_code runs code from the hub; pin the commit that you have read with model_revision: and its "
            "40 hexadecimal digits, because a branch or tag can be moved to other code",
        )
