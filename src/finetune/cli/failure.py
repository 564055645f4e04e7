"""Why a process ends: said once, by the first of several that fail, and past the launcher that started them.

A launcher turns every exit code into 1 and writes a traceback of its own.  So a process that it started leaves code and
text in a file, and :mod:`finetune.cli.hand_over`, which called the launcher, says them at the end.
"""

import os
import sys
from pathlib import Path
from typing import IO

from finetune.cli.peers import speaks_for_all

FAILURE_FILE = "FINETUNE_FAILURE_FILE"
"""Environment variable: the file that the first process to fail writes into."""


def tell_failure(text: str, exit_code: int, stream: IO[str] | None = None) -> None:
    """Say why this process ends with ``exit_code``, unless another process of the run was first.

    ``stream`` is the terminal where standard error leads elsewhere.
    """
    if not _leave(text, exit_code) and speaks_for_all():
        stream = stream or sys.stderr
        stream.write(text.rstrip("\n") + "\n")
        stream.flush()


def read_failure(file: Path) -> tuple[int, str] | None:
    """Return exit code and text that a process has left, or None where none did."""
    if not file.is_file():
        return None
    exit_code, _, text = file.read_text(encoding="utf-8").partition("\n")
    return (int(exit_code), text) if exit_code else None


def has_reader() -> bool:
    """Whether :mod:`finetune.cli.hand_over` started this process, and goes on when it has ended."""
    return bool(os.environ.get(FAILURE_FILE))


def _leave(text: str, exit_code: int) -> bool:
    """Write the file; whether somebody will read what is in it, be it this or another process's."""
    name = os.environ.get(FAILURE_FILE)
    if not name:
        return False
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return True
    except OSError:  # who wanted to know has gone
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{exit_code}\n{text}")
    return True
