"""Processes that nobody waits for any more: none is left behind."""

import ctypes
import signal
import sys
import time
from pathlib import Path

from finetune.attempt.state import is_in_use

PR_SET_PDEATHSIG = 1
"""``prctl``'s name for it, in linux/prctl.h."""

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_POLL_S = 0.1


def end_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the process that started this one dies, by SIGKILL for instance."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def wait_for_orphans(output_dir: Path, patience_s: float) -> None:
    """Wait until no process trains in ``output_dir``, whose launcher is gone; it may be saving a checkpoint."""
    deadline = time.monotonic() + patience_s
    while is_in_use(output_dir) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
