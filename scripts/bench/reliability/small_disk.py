"""A disk of a few hundred kilobytes, in a name space of one process, so that nobody else sees it."""

import ctypes
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliability.forks import Outcome, Work, run

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
LIBC = ctypes.CDLL(None, use_errno=True)
FILE_EVENTS = ("open", "os.rename", "os.mkdir")


@dataclass(frozen=True)
class Disk:
    """A mounted tmpfs."""

    path: Path

    @property
    def free(self) -> int:
        """Bytes that can be written."""
        return shutil.disk_usage(self.path).free

    def fill(self, leave: int) -> None:
        """Take all but ``leave`` bytes."""
        with (self.path / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(self.free - leave, 1))

    def empty(self) -> None:
        """Give back what was taken."""
        (self.path / "filler").unlink(missing_ok=True)

    def filled_at(self, path: re.Pattern[str], leave: int, work: Work) -> Work:
        """Return ``work`` whose disk is full from its first file operation on such a ``path``."""
        done = False

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal done
            if done or event not in FILE_EVENTS or not arguments:
                return
            text = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
            if text.startswith(str(self.path)) and path.search(text):
                done = True
                self.fill(leave)

        def filled_work() -> int:
            sys.addaudithook(hook)
            return work()

        return filled_work


def on_small_disk(folder: Path, num_bytes: int, script: Callable[[Disk], Any]) -> Any:
    """Run ``script`` in a process that has a disk of this size mounted at ``folder``; return what it returns (JSON)."""
    folder.mkdir(parents=True, exist_ok=True)
    answer = folder.with_suffix(".answer")
    answer.unlink(missing_ok=True)

    def work() -> int:
        _mount(folder, num_bytes)
        answer.write_text(json.dumps(script(Disk(folder))))
        return 0

    done: Outcome = run(work, folder.with_suffix(".log"))
    if done.exit_code:
        raise OSError(done.last_words)
    return json.loads(answer.read_text())


def why_not(folder: Path) -> str:
    """Return why this machine cannot mount such a disk; an empty string where it can."""
    try:
        on_small_disk(folder, 10**6, lambda disk: disk.free)
    except OSError as error:
        return f"no small disk can be mounted here ({error})"
    return ""


def _mount(folder: Path, num_bytes: int) -> None:
    user, group = os.getuid(), os.getgid()
    _check(LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _check(LIBC.mount(b"none", os.fsencode(folder), b"tmpfs", 0, f"size={num_bytes}".encode()))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
