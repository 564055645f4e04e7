"""Keeping one run out of another's folder."""

import fcntl
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from finetune.attempt.state import LOCK, RUN_STATE, STAGED_STATE
from finetune.config.run import RESOLVED, SURROUNDINGS
from finetune.errors import CheckpointError, ConfigError
from finetune.training.checkpoints.names import checkpoints
from finetune.training.checkpoints.run import RUN_ID, STAGED_ID

_REPORTS = ("data_report.json", "data_report.txt")
_BEFORE_TRAINING = {LOCK, RUN_ID, STAGED_ID, RUN_STATE, RESOLVED, SURROUNDINGS, *_REPORTS, ".DS_Store", "wandb"}
"""What a run that failed before its first step leaves: nothing worth keeping."""


@dataclass(frozen=True)
class Claim:
    """An output folder that belongs to this process until it lets go, or ends."""

    moved: Path | None
    """Where another run that was in it is now."""
    lock: IO[str]


def let_go(claim: Claim | None) -> None:
    """Give a folder back, also where a forked process still holds the open file; None is nobody's."""
    if claim:
        fcntl.flock(claim.lock, fcntl.LOCK_UN)
        claim.lock.close()


def claim_output_dir(output_dir: Path, prepared_dir: Path, *, resuming: bool, replace: bool) -> Claim:
    """Make ``output_dir`` ready to be written, without ever deleting what is there.

    A folder with another run in it is refused, or with ``replace`` its content is moved aside.  ``prepared_dir``,
    which may lie in it, stays.

    Raises:
        ConfigError: another run is in the folder, a live one writes to it, or it is no folder for a run.
        CheckpointError: it cannot be written.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise ConfigError(f"output_dir: {output_dir} is a file; name a folder")
    places = (Path.home(), Path.cwd())
    if output_dir.resolve() in {folder for place in places for folder in (place, *place.parents)}:
        raise ConfigError(f"output_dir: {output_dir} is no folder for a run; name one of its own")
    if (output_dir / ".git").exists():
        raise ConfigError(f"output_dir: {output_dir} is a git repository and no folder for a run; name one of its own")
    content = _content(output_dir, prepared_dir)
    if content and not resuming and not replace:
        go_on = "Go on with it: --resume. " if checkpoints(output_dir) else ""
        raise ConfigError(
            f"output_dir: {output_dir} holds another run ({', '.join(path.name for path in content[:5])}). {go_on}"
            "Move it aside and start anew: --replace. Or choose another output_dir"
        )
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock = _lock(output_dir)
        moved = _move_aside(output_dir, content) if content and not resuming else None
    except OSError as error:
        raise CheckpointError(f"output_dir: {output_dir} cannot be written ({error.strerror})") from error
    return Claim(moved, lock)


def _content(output_dir: Path, prepared_dir: Path) -> list[Path]:
    """What another run would lose."""
    if not output_dir.is_dir():
        return []
    inside = prepared_dir.resolve()
    return sorted(
        entry
        for entry in output_dir.iterdir()
        if not _is_before_training(entry) and entry.resolve() not in (inside, *inside.parents)
    )


def _is_before_training(entry: Path) -> bool:
    return entry.name in _BEFORE_TRAINING or fnmatch(entry.name, STAGED_STATE) or is_debug_log(entry)


def is_debug_log(file: Path) -> bool:
    """Whether ``file`` of an output folder holds what libraries or a launcher said."""
    return fnmatch(file.name, "debug*.log")


def _lock(output_dir: Path) -> IO[str]:
    """Lock the folder for this process; the lock ends with it, however it ends."""
    lock = (output_dir / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"output_dir: another process is writing to {output_dir} now; wait for it, or choose another output_dir"
        ) from None
    return lock


def _move_aside(output_dir: Path, content: list[Path]) -> Path:
    number = 1
    while (target := output_dir.with_name(f"{output_dir.name}.previous-{number}")).exists():
        number += 1
    target.mkdir()
    for entry in list(output_dir.iterdir()):
        if entry in content or (_is_before_training(entry) and entry.name != LOCK):
            entry.rename(target / entry.name)
    return target
