"""A process that ends itself with SIGKILL at a chosen file operation of a save; the product knows nothing of it."""

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from reliability.forks import Work, command, run
from reliability.runs import Case

FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree")


def save_of(what: int | str) -> re.Pattern[str]:
    """Return what the paths of one save look like, of a step or the ``final`` one; before and after its publication."""
    return re.compile(rf"/(checkpoint|\.staging)-{what}(?!\d)")


def killed_in_save(case: Case, step: int) -> None:
    """Train until the save of ``step`` begins, and no further: the checkpoints before it stand."""

    place = str(case.out)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and any(save_of(step).search(_inside(place, argument)) for argument in arguments[:2]):
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> int:
        sys.addaudithook(hook)
        return command("train", case.config)()

    done = run(work, case.folder / "train.log")
    if done.exit_code != -signal.SIGKILL:
        raise RuntimeError(f"the save of step {step} was not reached: {done.last_words}")


def watched(work: Work, out: Path, *, kill_at: int = 0, counter: Path | None = None) -> Work:
    """Return ``work`` that counts its file operations in saves, and kills itself at one of them.

    Python announces each operation to an audit hook before it is done, in whatever library.
    """
    place = str(out)
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in FILE_EVENTS or not any(_in_save(place, argument) for argument in arguments[:2]):
            return
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched_work() -> int:
        sys.addaudithook(hook)
        code = work()
        if counter:
            counter.write_text(str(seen))
        return code

    return watched_work


def _in_save(out: str, argument: Any) -> bool:
    """Whether a file operation is one on a checkpoint."""
    return any(word in _inside(out, argument) for word in ("checkpoint-", "staging", "trash"))


def _inside(folder: str, argument: Any) -> str:
    """Return the path that a file operation is about, relative to ``folder``; empty for any other."""
    path = os.fsdecode(argument) if isinstance(argument, str | bytes | os.PathLike) else ""
    return path.removeprefix(folder) if path.startswith(folder) else ""
