"""Memory that runs out: how it is told from other failures, and one wording for every command."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from finetune.disk import size_text
from finetune.errors import HardwareError
from finetune.hardware import peak_memory_bytes

_TEXTS = ("can't allocate memory", "out of memory", "not enough memory", "ALLOC_FAILED", "bad_alloc")
"""Of exceptions that are plain RuntimeErrors, on a CPU and in CUDA's libraries."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory has run out, on a device or on the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


@contextmanager
def explained_memory(describe: Callable[[], str]) -> Iterator[None]:
    """Say what could be changed where memory runs out, as ``describe`` words it then.

    Raises:
        HardwareError: it did; every other exception goes through as it is.
    """
    try:
        yield
    except Exception as error:
        # what loads weights has worded it already, as if the files were at fault
        if is_out_of_memory(error) or (error.__cause__ and is_out_of_memory(error.__cause__)):
            raise HardwareError(describe()) from error
        raise


def describe_exhausted(doing: str, changes: Sequence[str], *facts: str) -> str:
    """Word the failure: what was being done, what there is, ``facts``, and what helps, the cheapest first."""
    lines = [
        f"memory ran out in {doing}; this process had taken {size_text(peak_memory_bytes())}, "
        f"and the {'GPU' if torch.cuda.is_available() else 'machine'} has {size_text(total_memory_bytes())}.",
        *(fact for fact in facts if fact),
        "What helps, the cheapest first:",
        *(f"  {change}" for change in changes),
    ]
    return "\n  ".join(lines)


def total_memory_bytes() -> int:
    """Return what the GPU of this process has, or the machine where there is none."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
