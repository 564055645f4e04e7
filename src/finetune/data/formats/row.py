"""What every format shares: its type, and the checks that a row's columns are what the format expects."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from finetune.config.data import DataSection, DatasetEntry
from finetune.config.secrets import find_secret
from finetune.data.segments import RowError, Sample
from finetune.data.tokenize import Tokenizer
from finetune.errors import nearest

Row = Mapping[str, Any]


class Format(Protocol):
    """Turns one row into a sample; raises RowError for a row in the wrong shape."""

    notes: Counter[str]
    """What the user should know about the rows so far, such as turns that were left out, and how often."""
    chunk_len: int | None
    """Cut each sample's tokens into samples of this length (:func:`finetune.data.tokenize.split_samples`)."""

    def __call__(self, row: Row) -> Sample: ...


Builder = Callable[[DatasetEntry, DataSection, Tokenizer], Format]


def describe(value: object) -> str:
    """Say what a value is, the way a user of JSON names it, with the start of it; a credential is not repeated."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return f"an object with {listed(value)}" if value else "an empty object"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list"}
    shown = repr(value) if len(repr(value)) <= 40 else repr(value)[:37] + "..."
    shown = "a credential" if find_secret(repr(value)) else shown
    return f"{kinds.get(type(value), type(value).__name__)} ({shown})"


def listed(names: Mapping[str, Any]) -> str:
    """Join the names of columns or keys for a message."""
    return ", ".join(str(name) for name in names) or "none"


def column(row: Row, name: str) -> Any:
    """Return a column that must be there; its value may be null."""
    if name not in row:
        hint = nearest(name, (str(key) for key in row))
        raise RowError(f"no column {name!r}; the row has: {listed(row)}.{hint}", name)
    return row[name]


def required_text(row: Row, name: str) -> str:
    """Return a column that must be there and must be text."""
    return as_text(column(row, name), name)


def nullable_text(row: Row, name: str) -> str:
    """Return a column that must be there; null means empty text."""
    value = column(row, name)
    return "" if value is None else as_text(value, name)


def optional_text(row: Row, name: str) -> str:
    """Return a column that may be absent or null: empty text then."""
    value = row.get(name)
    return "" if value is None else as_text(value, name)


def as_text(value: object, place: str) -> str:
    """Return ``value`` if it is text.  A number is not: writing it out would be a guess."""
    if not isinstance(value, str):
        raise RowError(f"{place} must be text, but is {describe(value)}", place)
    return value


def as_flag(value: object, place: str) -> bool:
    """Return a boolean; 0 and 1 count as one."""
    if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    raise RowError(f"{place} must be true or false, but is {describe(value)}", place)


def as_objects(value: object, place: str) -> list[Mapping[str, Any]]:
    """Return a non-empty list of objects, given as such or as JSON text."""
    if isinstance(value, str):
        value = parse_json(value, place)
    if not isinstance(value, list):
        raise RowError(f"{place} must be a list of objects, but is {describe(value)}", place)
    if not value:
        raise RowError(f"{place} is an empty list", place)
    for number, item in enumerate(value):
        if not isinstance(item, dict | Mapping):  # dict first: asking an abstract class is slow
            raise RowError(f"{place}[{number}] must be an object, but is {describe(item)}", f"{place}[{number}]")
    return value


def parse_json(text: str, place: str) -> Any:
    """Parse JSON that a column holds as text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        problem = f"{place} is text that is not valid JSON ({error.msg} at character {error.pos + 1})"
        raise RowError(problem, place) from None
