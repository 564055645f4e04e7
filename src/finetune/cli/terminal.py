"""Who writes to the terminal while a run trains: the run itself, and not the libraries under it.

Standard output and error are turned at their file descriptors, so that C++ code follows, which knows no Python logging.
"""

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from finetune.cli.console import DEBUG, LIBRARIES
from finetune.errors import CheckpointError

if TYPE_CHECKING:
    from rich.console import Console

    from finetune.processes import ProcessPlace

STREAMS = (1, 2)
"""File descriptors of standard output and error."""

LAST_LINES_S = 5
"""How long the lines that a process has written may take to get to the terminal after its end."""

PREFIX = """
import sys
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(sys.argv[1].encode() + line)
    sys.stdout.buffer.flush()
"""
"""A process by itself, so that the last words of one that is killed come through."""


@dataclass(frozen=True)
class Terminal:
    """What a run talks to."""

    console: "Console"
    errors: IO[str]
    """Where the last words of a process go: the terminal's standard error."""
    keep_log: Callable[[Path], None]
    """To be called with ``output_dir`` once it is this run's own: what libraries say is kept in it."""


def log_name(place: "ProcessPlace") -> str:
    """Return the file of ``output_dir`` that has what libraries said in one process."""
    return f"debug-{place.rank}.log" if place.rank else "debug.log"


@contextmanager
def open_terminal(place: "ProcessPlace", *, debug: bool) -> Iterator[Terminal]:
    """Turn everything but the run's own lines from the terminal to a log file; with ``debug`` show all of it.

    Of several processes the main one alone speaks; with ``debug`` all do, each line with the rank in front.  To be
    entered before a heavy library is imported: several take hold of the streams on import.

    Yields:
        The console, and how to say where the log file is to be.
    """
    from rich.console import Console

    if debug:
        os.environ[DEBUG] = "1"
        with ExitStack() as stack:
            if place.world_size > 1:
                stack.enter_context(_ranked_lines(place.rank))
            yield Terminal(Console(soft_wrap=True), sys.stderr, lambda output_dir: None)
        return
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with _turned_streams() as (log, terminal), _library_errors(terminal[1]) if place.is_main else ExitStack():
        console = Console(soft_wrap=True, file=terminal[0], quiet=not place.is_main)
        yield Terminal(console, terminal[1], lambda output_dir: log.keep(output_dir / log_name(place)))


class _Log:
    """Where the streams lead: a nameless file, until a folder is this run's own."""

    def __init__(self) -> None:
        self.early = tempfile.TemporaryFile()  # noqa: SIM115 - it closes with the context that the streams are turned in

    def keep(self, path: Path) -> None:
        """Write to ``path`` from here on, first what was said before.

        Raises:
            CheckpointError: it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)  # on a machine of its own folder the main process made none
            with path.open("ab", buffering=0) as file:
                _flush()
                self.early.seek(0)
                file.write(self.early.read())
                _turn([file.fileno()] * 2)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be written ({error.strerror})") from error


@contextmanager
def _turned_streams() -> Iterator[tuple[_Log, tuple[IO[str], IO[str]]]]:
    """Lead the streams into a log; yield it and the terminal's own two."""
    _flush()
    log, kept = _Log(), [os.dup(number) for number in STREAMS]
    output, error = (os.fdopen(os.dup(number), "w", buffering=1, encoding=sys.stdout.encoding) for number in kept)
    with log.early, output, error:
        _turn([log.early.fileno()] * 2)
        try:
            yield log, (output, error)
        finally:
            _give_back(kept)


@contextmanager
def _ranked_lines(rank: int) -> Iterator[None]:
    """Put ``[rank N]`` at the head of each line of both streams; whole lines, so that processes do not mix them."""
    _flush()
    kept = [os.dup(number) for number in STREAMS]
    writers = [
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PREFIX, f"[rank {rank}] "],
            stdin=subprocess.PIPE,
            stdout=number,
            start_new_session=True,  # Ctrl-C is for the run, which still has something to say
        )
        for number in kept
    ]
    pipes = [writer.stdin for writer in writers if writer.stdin]
    _turn([pipe.fileno() for pipe in pipes])
    try:
        yield
    finally:
        _give_back(kept)
        for writer, pipe in zip(writers, pipes, strict=True):
            pipe.close()
            with suppress(subprocess.TimeoutExpired):  # a service that was started meanwhile still holds the stream
                writer.wait(LAST_LINES_S)


@contextmanager
def _library_errors(terminal: IO[str]) -> Iterator[None]:
    """Show at the terminal what libraries log as an error; the log file has it, and their warnings, too."""
    shown, logged = logging.StreamHandler(terminal), logging.StreamHandler(sys.stderr)
    shown.setLevel(logging.ERROR)
    # a logger that has a handler loses logging's last resort, which writes warnings to standard error
    logged.setLevel(logging.WARNING)
    added = [(logging.getLogger(name), shown) for name in LIBRARIES] + [(logging.getLogger(), logged)]
    for logger, handler in added:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, handler in added:
            logger.removeHandler(handler)


def _turn(targets: list[int]) -> None:
    for target, number in zip(targets, STREAMS, strict=True):
        os.dup2(target, number)


def _give_back(kept: list[int]) -> None:
    """Point the streams at the terminal again."""
    _flush()
    _turn(kept)
    for number in kept:
        os.close(number)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
