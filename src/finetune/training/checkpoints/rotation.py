"""Taking checkpoints away: only what this run wrote, and so that a kill leaves a whole one or none."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from finetune.data.files import sync
from finetune.training.checkpoints.manifest import DamagedError, read_manifest
from finetune.training.checkpoints.names import TRASH, checkpoints, own_leftovers, step_of


def rotate(output_dir: Path, run: str, limit: int, protected: Collection[int]) -> None:
    """Remove the oldest checkpoints of ``run`` beyond ``limit``; those at the steps ``protected`` stay.

    Raises:
        OSError: one cannot be removed.
    """
    own = [path for path in checkpoints(output_dir) if is_of_run(path, run)]
    free = [path for path in own if step_of(path) not in protected]
    for path in free[: max(len(own) - limit, 0)]:
        remove(path, run)


def remove(path: Path, run: str) -> None:
    """Take a checkpoint's name away with one rename, then its files: what a kill leaves has no checkpoint's name."""
    trash = path.with_name(f"{TRASH}{step_of(path)}-{run}")
    shutil.rmtree(trash, ignore_errors=True)
    path.rename(trash)
    sync(path.parent)
    shutil.rmtree(trash)


def is_of_run(path: Path, run: str) -> bool:
    """Whether ``path`` is a folder, not a link to one, that ``run`` wrote."""
    if path.is_symlink():
        return False
    try:
        return read_manifest(path).facts.run == run
    except DamagedError:
        return False


def sweep(output_dir: Path, run: str) -> None:
    """Remove what a killed process of ``run`` was writing or removing."""
    for leftover in own_leftovers(output_dir, run):
        if not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)


def set_aside(output_dir: Path, step: int, run: str) -> list[str]:
    """Give checkpoints after ``step`` another name, and return what was done in words.

    Those that another run wrote stay; :func:`finetune.training.checkpoints.publish.refuse_taken` speaks of them.
    """
    notes = []
    for path in checkpoints(output_dir):
        if step_of(path) <= step or path.is_symlink() or _is_of_another(path, run):
            continue
        number = 1
        while os.path.lexists(target := path.with_name(f"{path.name}.set-aside-{number}")):
            number += 1
        path.rename(target)
        notes.append(f"{path.name} is now {target.name}; the run goes on before it")
    if notes:
        sync(output_dir)
    return notes


def _is_of_another(path: Path, run: str) -> bool:
    try:
        return read_manifest(path).facts.run != run
    except DamagedError:
        return False  # it may have been this run's: its name is in the way, its files stay
