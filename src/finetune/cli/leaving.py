"""Ending a process that is done.

Python would take torch and transformers apart object by object: one to two seconds of processor time for memory that
the system takes back anyhow, and in each process of a group that a scheduler or a person waits for.
"""

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Let the process end as what is done meanwhile ends: well, with its exit code, or with 1 after an exception.

    Threads are still waited for, and what is registered with ``atexit`` from now on still runs: the earliest is the
    last.
    """
    exit_code = 1

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(exit_code)

    atexit.register(leave)
    try:
        yield
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    exit_code = 0
