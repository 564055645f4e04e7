"""How the exit code of a process survives its launcher, which turns every failure into 1."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

EXIT_CODE_FILE = "FINETUNE_EXIT_CODE_FILE"
"""Environment variable: the file that the first process to fail writes its exit code into."""


@contextmanager
def exit_code_for_launcher() -> Iterator[None]:
    """Leave the exit code of this process, if it fails as the first, for the process that called the launcher."""
    try:
        yield
    except SystemExit as error:
        _leave(error.code if isinstance(error.code, int) else int(error.code is not None))
        raise
    except BaseException:
        _leave(1)
        raise


def _leave(exit_code: int) -> None:
    name = os.environ.get(EXIT_CODE_FILE)
    if name and exit_code:
        with suppress(OSError):  # another was first, or who wanted to know has gone
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(file, str(exit_code).encode())
            os.close(file)
