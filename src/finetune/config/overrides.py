"""Keys given on the command line: ``--key value``, ``--key=value`` or ``key=value``.

A key may reach into the file: ``datasets[0].path`` or ``datasets.0.path``.
"""

import re
from typing import Any

from finetune.config.document import Document, KeyPath, parse_value
from finetune.errors import ConfigError


def parse_overrides(arguments: list[str]) -> dict[str, Any]:
    """Turn command line words into ``{key: value}``, in order.

    Raises:
        ConfigError: a word is neither a key nor a value.
    """
    overrides: dict[str, Any] = {}
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if "=" in word:
            name, _, text = word.partition("=")
        elif word.startswith("--"):
            name, text = word, "true"
            if position < len(arguments) and not arguments[position].startswith("--"):
                text = arguments[position]
                position += 1
        else:
            raise ConfigError(f"command line: {word!r} belongs to no key; write --key value or key=value")
        if not name.strip("-") or not text:
            raise ConfigError(f"command line: {word!r} has no {'value' if name else 'key'}; null unsets a key")
        overrides[_normal_name(name)] = parse_value(text)
    return overrides


def apply_overrides(document: Document, overrides: dict[str, Any]) -> None:
    """Put ``overrides`` into the document's values, and note that they came from the command line."""
    for name, value in overrides.items():
        path = _key_path(name)
        _set(document.values, path, value, name)
        for known in [place for place in document.places if place[: len(path)] == path]:
            del document.places[known]
        document.places[path] = f"command line: --{name}"


def _normal_name(name: str) -> str:
    """Drop leading dashes; ``--base-model`` is ``base_model``."""
    head, dot, rest = name.lstrip("-").partition(".")
    return head.replace("-", "_") + dot + rest


def _key_path(name: str) -> KeyPath:
    parts = [part for part in re.split(r"[.\[\]]+", name) if part]
    return tuple(int(part) if part.isdigit() else part for part in parts)


def _set(values: dict[str, Any], path: KeyPath, value: Any, name: str) -> None:
    target: Any = values
    for position, part in enumerate(path):
        last = position == len(path) - 1
        if isinstance(target, list):
            if not isinstance(part, int) or part >= len(target):
                raise ConfigError(f"command line: --{name}: the list has {len(target)} entries, numbered from 0")
        elif not isinstance(target, dict) or isinstance(part, int):
            raise ConfigError(f"command line: --{name}: {path[position - 1]!r} holds a plain value, not further keys")
        if last:
            target[part] = value
            return
        if isinstance(target, dict) and target.get(part) is None:
            target[part] = {}
        target = target[part]
