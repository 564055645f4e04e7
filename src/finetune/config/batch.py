"""``micro_batch_size: auto``: how the samples of an optimizer step are split is left to the memory of the device."""

from typing import Annotated, Any

from pydantic import Field, PlainSerializer, WithJsonSchema, WrapValidator
from pydantic_core.core_schema import ValidatorFunctionWrapHandler

AUTO = 0
"""What stands for ``auto`` until :mod:`finetune.estimate.auto` decides, before anything is loaded."""


def _read(value: Any, handler: ValidatorFunctionWrapHandler) -> int:
    return AUTO if value == "auto" else int(handler(value))


def _write(value: int) -> int | str:
    return "auto" if value == AUTO else value


BatchSplit = Annotated[
    int,
    Field(ge=1),
    WrapValidator(_read),
    PlainSerializer(_write),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}),
]
"""A whole number from 1, or auto."""


def fill_auto(values: dict[str, Any]) -> None:
    """Fill in the keys beside ``micro_batch_size: auto``, in place; batch_size has to be given with it."""
    values.setdefault("gradient_accumulation_steps", "auto")
    values.setdefault("eval_batch_size", 1)
