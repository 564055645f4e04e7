"""A user's own format: ``type: package.module:function``, where the function turns a row into pieces."""

import importlib
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from finetune.data.formats.row import Format, Row, describe
from finetune.data.segments import Piece, RowError, Sample
from finetune.errors import ConfigError, nearest


@dataclass
class CustomFormat:
    """Calls ``function(row)`` and checks that it gives a list of Piece."""

    name: str
    function: Callable[[Row], object]
    notes: Counter[str] = field(default_factory=Counter)
    chunk_len: int | None = None

    def __call__(self, row: Row) -> Sample:
        """Return the function's pieces."""
        try:
            sample = self.function(row)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise RowError(f"{self.name} fails on this row: {type(error).__name__}: {error}") from error
        if not isinstance(sample, list) or not all(isinstance(piece, Piece) for piece in sample):
            raise RowError(f"{self.name} must return a list of Piece, but returned {describe(sample)}")
        return sample


def load_custom(name: str) -> Format:
    """Import ``package.module:function``.  Raises ConfigError where there is no such module or function."""
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"type {name!r}: cannot import {module_name} ({error}); it is looked for in "
            f"{', '.join(sys.path[:2])} and the installed packages; put its folder in PYTHONPATH"
        ) from None
    function = vars(module).get(function_name)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if callable(value)]
        raise ConfigError(
            f"type {name!r}: {module_name} has no function {function_name!r}.{nearest(function_name, functions)}"
        )
    return CustomFormat(name, function)
