"""``run.json`` of an output folder: how the run in it stands, for the scripts that start it.

A launcher turns the exit codes of its processes into 1; this file has the true one.
"""

import fcntl
import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from finetune.errors import EXIT_CODES

RUN_STATE = "run.json"
STAGED_STATE = f".{RUN_STATE}.*"
"""Names under which ``run.json`` is written before it gets its own; a kill can leave one."""
LOCK = ".lock"
"""File of an output folder that the main process of a live run holds a lock on."""

_PLACE = re.compile(r"[^\s:;,()]+\.\w+:\d+(?::\d+)?|\b(?:step|row|rank) \d+")


@dataclass(frozen=True)
class Fault:
    """Why a run failed."""

    id: str
    """Name of the error's class."""
    message: str
    """Secrets and home folders taken out."""
    where: str | None
    """File and line, step or row, where the message names one."""
    hint: str
    """What to do about an exit code of this kind."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What ``run.json`` holds; times are seconds since 1970."""

    status: str = "running"
    """``running``, ``finished``, ``stopped`` (a signal) or ``failed``."""
    exit_code: int | None = None
    """Of the command, whatever a launcher makes of it; None while it runs."""
    retryable: bool | None = None
    """Whether the same command with --resume may do better; None while it runs."""
    run_id: str
    """Kept by all starts that go on with one run."""
    attempt: str
    """Of this start."""
    step: int = 0
    """Step of the last checkpoint, or the last of all."""
    total_steps: int | None = None
    """None before the data is known."""
    last_checkpoint: str | None = None
    """Folder in the output folder, or path of the checkpoint elsewhere that the run began with."""
    started: float
    ended: float | None = None
    pid: int
    """Of the main process."""
    host: str
    world_size: int
    error: Fault | None = None

    @property
    def is_running(self) -> bool:
        """Whether nobody has written an end; the process may be dead all the same."""
        return self.status == "running"

    def ended_with(self, exit_code: int, at: float, error: Fault | None = None) -> "RunState":
        """Return the state at the end of the command."""
        code = EXIT_CODES.get(exit_code, EXIT_CODES[1])
        step = self.total_steps if exit_code == 0 and self.total_steps else self.step
        return replace(
            self,
            status=code.status,
            exit_code=exit_code,
            retryable=code.retryable,
            ended=at,
            step=step,
            error=error if code.status == "failed" else None,
        )


def fault(name: str, message: str, exit_code: int) -> Fault:
    """Return why a run failed from the name of an error's class and its message, which is redacted already."""
    found = _PLACE.search(message)
    return Fault(name, message, found[0] if found else None, EXIT_CODES.get(exit_code, EXIT_CODES[1]).hint)


def read_state(output_dir: Path) -> RunState | None:
    """Return what ``run.json`` says; None where there is none, or none that can be read."""
    try:
        values: dict[str, Any] = json.loads((output_dir / RUN_STATE).read_text(encoding="utf-8"))
        error = values.pop("error")
        return RunState(**values, error=Fault(**error) if error else None)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_state(state: RunState, output_dir: Path) -> None:
    """Replace ``run.json`` whole.

    Raises OSError.  On a full disk it writes over the file that is there, which needs no new space: that the disk is
    full is what the file has to say then.
    """
    text = json.dumps(asdict(state), indent=2) + "\n"
    target, staged = output_dir / RUN_STATE, output_dir / STAGED_STATE.replace("*", str(os.getpid()))
    try:
        with staged.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(target)
    except OSError:
        with suppress(OSError):
            staged.unlink(missing_ok=True)
        with target.open("r+", encoding="utf-8") as file:
            file.write(text)
            file.truncate()
        return
    folder = os.open(output_dir, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_in_use(output_dir: Path) -> bool:
    """Whether the main process of a live run holds the folder."""
    try:
        with (output_dir / LOCK).open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
