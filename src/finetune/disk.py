"""Disks that take no more: one wording for every place that writes, and one look before a long piece of work.

Libraries report a full disk each in their own way: Python with an errno, tokenizers and safetensors with a text,
numpy with a count, and torch's archive writer with two file positions and no word of a disk.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.errors import CheckpointError

FULL = (errno.ENOSPC, errno.EDQUOT)
STORAGE = (*FULL, errno.EFBIG, errno.EIO, errno.EROFS)
"""What a disk, and no wrong name, answers with."""

_CUT_SHORT = (". unexpected pos ", "PytorchStreamWriter failed", " requested and ")
"""Parts of the texts of torch and numpy when fewer bytes were taken than were given."""


def size_text(num_bytes: float) -> str:
    """Return ``"4.1 GB"``, ``"12 MB"`` for less than one, or ``"3 kB"`` for less than that."""
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:,.1f} GB"
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes >= 5e5 or not num_bytes else f"{num_bytes / 1e3:.0f} kB"


def free_bytes(path: Path) -> int:
    """Return what is free where ``path`` is, or where it would be made."""
    place = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(place).free


def storage_fault(error: BaseException) -> str | None:
    """Return in words what the disk answered, or None where ``error`` is about something else.

    Looks at what caused ``error`` too: libraries wrap what the system said.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in STORAGE:
            return os.strerror(link.errno)
        for number in STORAGE:
            if f"(os error {number})" in str(link) or f"[Errno {number}]" in str(link):
                return os.strerror(number)
        if isinstance(link, RuntimeError | OSError) and any(part in str(link) for part in _CUT_SHORT):
            return "the disk took only a part of a file"
        link = link.__cause__ or link.__context__
    return None


@contextmanager
def writing(path: Path, what: str, remedy: str, *, needed: int | None = None) -> Iterator[None]:
    """Turn a disk that takes no more, met while ``what`` is written to ``path``, into an error that says so.

    Meant to stand inside of whatever removes a half-written folder: what is free is measured when it happens.

    Args:
        path: file or folder, named in the message.
        what: such as "the checkpoint".
        remedy: an imperative, such as "set output_dir to a folder that has room".
        needed: bytes that it takes, where they are known.

    Raises:
        CheckpointError: a write failed for a reason of the disk's; any other exception goes through as it is.
    """
    try:
        yield
    except Exception as error:
        fault = storage_fault(error)
        if fault is not None and not isinstance(error, CheckpointError):
            raise no_room(path, what, remedy, fault, needed=needed) from error
        raise


def no_room(path: Path, what: str, remedy: str, fault: str, *, needed: int | None = None) -> CheckpointError:
    """Return the error that says that ``path`` does not take ``what``: why, what it needs, what is free, what to do."""
    needs = f"it needs {size_text(needed)}, and " if needed else ""
    return CheckpointError(
        f"{path} cannot take {what} ({fault}): {needs}{size_text(free_bytes(path))} are free there; {remedy}"
    )


def refuse_small_disk(path: Path, what: str, remedy: str, *, needed: int) -> None:
    """Raise CheckpointError, before ``what`` is begun, if ``needed`` bytes do not fit where ``path`` is."""
    free = free_bytes(path)
    if needed > free:
        raise CheckpointError(
            f"{path} has {size_text(free)} free, and {what} needs about {size_text(needed)}; {remedy}"
        )
