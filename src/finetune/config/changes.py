"""What differs between the configuration of a run and the one that wants to go on with it, and what may."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from finetune.config.run import OWNERS, SECTIONS
from finetune.errors import ConfigError, nearest

ALL = "all"
"""The value of ``--allow-changed`` that stands for every key."""

FREE = ("early_stopping_patience", "load_best_model_at_end")
"""Keys that say when a run ends and with which of its weights: they may change without being asked."""

LENGTH = ("num_epochs", "max_steps")
"""Keys that say how far a run goes.  Most schedules are drawn over the length, and change with it."""

_STEADY = ("constant", "constant_with_warmup", "inverse_sqrt")
"""Schedules that do not know the length; all but the first have a warm-up, whose default is a share of it."""

_ORDER = "rows are dealt out by it, and the run is in the middle of an epoch"
_STATES = "the states of the optimizer in the checkpoint belong to it"
_SHAPE = "the weights in the checkpoint have the shape that it gives them"
_STREAM = "the run has a place in the stream that it makes"

FIXED: dict[str, str] = {
    "seed": _ORDER,
    "micro_batch_size": _ORDER,
    "gradient_accumulation_steps": _ORDER,
    "batch_size": _ORDER,
    "group_by_length": _ORDER,
    "sample_packing": _ORDER,
    "optimizer": _STATES,
    "unfrozen_parameters": _STATES,
    "fp16": "the scale of the loss in the checkpoint belongs to it",
    "model_type": _SHAPE,
    "special_tokens": _SHAPE,
    "tokens": _SHAPE,
    "adapter": _SHAPE,
    "lora_model_dir": "it is where the run began, and the checkpoint is past that",
    "lora_r": _SHAPE,
    "lora_target_modules": _SHAPE,
    "lora_target_linear": _SHAPE,
    "lora_modules_to_save": _SHAPE,
    "peft_use_dora": _SHAPE,
    "pretraining_dataset": _STREAM,
    "streaming": _STREAM,
    "streaming_multipack_buffer_size": _STREAM,
}
"""Keys that cannot change in the middle of a run, and why.  Others can, if the user says so, and take effect."""


@dataclass(frozen=True)
class Change:
    """One value that differs."""

    key: str
    """The key of the file that it belongs to."""
    line: str
    """``key: old -> new``, the key with the place inside it."""


def changes_between(before: str, after: str) -> list[Change]:
    """Compare two resolved configurations (YAML text) and return what differs and changes the result."""
    old, new = _values(before), _values(after)
    return [
        Change(name, line)
        for name in OWNERS
        if _matters(name, new)
        for line in differences(name, old.get(name), new.get(name))
    ]


def changed_keys(before: str, after: str) -> list[str]:
    """Return the lines of :func:`changes_between`."""
    return [change.line for change in changes_between(before, after)]


def differences(name: str, old: Any, new: Any) -> Iterator[str]:
    """Yield ``name: old -> new``; walk into lists and mappings, so that only what differs is named."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from differences(f"{name}.{key}", old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (first, second) in enumerate(zip(old, new, strict=True)):
            yield from differences(f"{name}[{index}]", first, second)
    elif old != new:
        yield f"{name}: {_shown(old)} -> {_shown(new)}"


def parse_allowed(text: str | None) -> frozenset[str]:
    """Return the keys in the value of ``--allow-changed``, which are separated by commas.

    Raises:
        ConfigError: a word is no key.
    """
    names = frozenset(name.strip() for name in (text or "").split(",") if name.strip())
    unknown = sorted(names - OWNERS.keys() - {ALL})
    if unknown:
        raise ConfigError(
            f"--allow-changed: '{unknown[0]}' is no key.{nearest(unknown[0], OWNERS)} Give keys separated by commas, "
            "or none at the end of the line for all of them"
        )
    return names


def standing_in_the_way(
    changes: Iterable[Change], allowed: Collection[str], fixed: Mapping[str, str] = FIXED
) -> list[str]:
    """Return a line for each change that nobody allowed or that cannot be made, with the reason."""
    lines = []
    for change in changes:
        if change.key in fixed:
            lines.append(f"{change.line} (cannot change in the middle of a run: {fixed[change.key]})")
        elif ALL not in allowed and change.key not in allowed:
            lines.append(change.line)
    return lines


def _values(text: str) -> dict[str, Any]:
    loaded = yaml.safe_load(text)
    return loaded if isinstance(loaded, dict) else {}


def _matters(name: str, values: Mapping[str, Any]) -> bool:
    if name in FREE or (name in LENGTH and not _follows_length(values)):
        return False
    extra = SECTIONS[OWNERS[name]].model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return bool(extra["affects"] != "nothing")


def _follows_length(values: Mapping[str, Any]) -> bool:
    """Whether the learning rate of a step depends on how many steps come after it."""
    scheduler = values.get("lr_scheduler")
    return scheduler not in _STEADY or (scheduler != _STEADY[0] and values.get("warmup_steps") is None)


def _shown(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
    return text if len(text) <= 80 else f"{text[:77]}..."
