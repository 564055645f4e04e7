"""The way of a checkpoint to its name: written beside it by all processes, checked, sealed, renamed by the main one."""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError

from finetune.data.files import sync, write_synced
from finetune.disk import size_text
from finetune.errors import CheckpointError
from finetune.training.checkpoints import links
from finetune.training.checkpoints.find import num_processes
from finetune.training.checkpoints.manifest import (
    MANIFEST,
    Manifest,
    RunFacts,
    SealedFile,
    content,
    dealt,
    installed_versions,
    seal,
)
from finetune.training.checkpoints.names import checkpoints, staging_of, step_of
from finetune.training.checkpoints.rotation import is_of_run, rotate
from finetune.training.checkpoints.space import Needs, check_room, explain_failure
from finetune.training.engine import Engine

T = TypeVar("T")
Write = Callable[[Path], None]
FAULTS = (OSError, RuntimeError, SafetensorError)
"""What libraries raise when they cannot write a file; on a full disk too, and then in words that do not say so."""


class BrokenOffError(Exception):
    """A process left what all do together, where the others wait for it and cannot be told; its cause is why.

    It has to end, so that they see it gone.
    """


class CheckpointStore:
    """The checkpoints of one run in its ``output_dir``."""

    def __init__(
        self, output_dir: Path, facts: RunFacts, engine: Engine, say: Callable[[str], None], limit: int | None = None
    ) -> None:
        """``limit`` is how many are kept; None keeps all."""
        self.output_dir = output_dir
        self.facts = facts
        self.engine = engine
        self.say = say
        self.limit = limit
        self.needs: Needs | None = None

    def prepare(self, needs: Needs, first_step: int, last_step: int, save_at: Iterable[int]) -> None:
        """Refuse a run whose checkpoints or result cannot be saved, before its first step.

        Raises:
            CheckpointError: the disk has not enough room, or somebody else's folder has a name that the run may need.
        """
        self.needs = needs
        self.engine.only_main(lambda: self._prepare(needs, first_step, last_step, save_at))

    def needed(self, *, final: bool = False) -> int | None:
        """Return about how many bytes a checkpoint takes, or the result, if that was computed."""
        if self.needs is None:
            return None
        return self.needs.final if final else self.needs.checkpoint

    def path(self, step: int) -> Path:
        """Return where the checkpoint of ``step`` stands, or would."""
        return self.output_dir / f"checkpoint-{step}"

    def save(self, step: int, writers: Sequence[Write], best: int | None = None) -> None:
        """Publish what ``writers`` write into a folder, then remove what is more than ``limit``.

        Every process has to call this with as many writers: each is called by all, and all wait for it.  ``best`` is
        the step of the best evaluation so far, whose checkpoint stays.

        Raises:
            CheckpointError: a process could not write; nothing of this checkpoint is left, and all raise.
        """
        started, target = time.monotonic(), self.path(step)
        staging = self.engine.on_main(lambda: self._begin(target))
        if staging is None:
            self._tidy(step, best)
            return
        written = False
        try:
            for write in writers:
                self.together(target, staging, lambda write=write: write(staging))  # type: ignore[misc]
            written = True
            files = self.sealed(target, staging)
            manifest = Manifest(step, self.facts, files, installed_versions())
            self.engine.only_main(lambda: self._publish(staging, target, manifest))
        except BaseException:
            # the main process may have failed, and cleared away, while another was still writing
            if self.engine.place.is_main or not written:
                shutil.rmtree(staging, ignore_errors=True)
            raise
        self._tidy(step, best)
        self.say(f"{target.name} saved in {time.monotonic() - started:.1f} s ({size_text(manifest.num_bytes)})")

    def together(self, target: Path, staging: Path, action: Callable[[], T]) -> list[T]:
        """Do ``action`` in every process and return what each gives; the failure of one is that of all.

        Raises:
            CheckpointError: of ``target``, which is written in ``staging``.
        """
        result: T | None = None
        failure: str | None = None
        try:
            result = action()
        except torch.OutOfMemoryError:
            raise
        except BrokenOffError as broken:
            cause = broken.__cause__
            assert isinstance(cause, Exception)
            raise CheckpointError(explain_failure(target, staging, cause, self.needed())) from cause
        except CheckpointError as error:
            failure = str(error)
        except FAULTS as error:
            failure = explain_failure(target, staging, error, self.needed(final=target == self.output_dir))
        outcomes = self.engine.gather((failure, result))
        failures = [said for said, _ in outcomes if said]
        if failures:
            raise CheckpointError(failures[0])
        return [given for _, given in outcomes]  # type: ignore[misc]

    def sealed(self, target: Path, staging: Path) -> dict[str, SealedFile]:
        """Force all files of ``staging`` to disk and hash them, each process its part."""
        place = self.engine.place
        listed = self.engine.on_main(lambda: content(staging))  # one view of a shared folder, not one for each machine
        parts = self.together(target, staging, lambda: seal(dealt(listed, place.rank, place.world_size), staging))
        return dict(sorted((name, file) for part in parts for name, file in part.items()))

    def _prepare(self, needs: Needs, first_step: int, last_step: int, save_at: Iterable[int]) -> None:
        refuse_taken(self.output_dir, self.facts.run, first_step, last_step)
        num_saves = sum(step > first_step for step in save_at)
        present = sum(is_of_run(path, self.facts.run) for path in checkpoints(self.output_dir))
        most = present + num_saves if self.limit is None else min(present + num_saves, self.limit + 1)
        check_room(self.output_dir, needs, num_saves, max(most - present, 1), self.say)

    def _begin(self, target: Path) -> Path | None:
        """Make the folder to write in; None where this run has saved this step."""
        if is_of_run(target, self.facts.run):
            return None
        if os.path.lexists(target):
            raise CheckpointError(_taken(target))
        staging = staging_of(self.output_dir, str(step_of(target)), self.facts.run)
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
        except OSError as error:
            raise CheckpointError(explain_failure(target, staging, error, self.needed())) from error
        return staging

    def _publish(self, staging: Path, target: Path, manifest: Manifest) -> None:
        """Seal the folder itself and give it its name."""
        found = num_processes(staging)
        if found not in (0, self.engine.place.world_size):
            raise CheckpointError(
                f"{target}: {found} of {self.engine.place.world_size} processes wrote into it; output_dir has to be a "
                "folder that all machines share"
            )
        try:
            write_synced(staging / MANIFEST, manifest.to_json().encode())
            for folder in (*(path for path in staging.rglob("*") if path.is_dir()), staging):
                sync(folder)
            if os.path.lexists(target):
                raise CheckpointError(_taken(target))
            staging.rename(target)
            sync(self.output_dir)
        except OSError as error:
            raise CheckpointError(explain_failure(target, staging, error, self.needed())) from error

    def _tidy(self, step: int, best: int | None) -> None:
        """Set the links and remove old checkpoints; what fails here costs room and nothing else."""
        if not self.engine.place.is_main:
            return
        links.point(self.output_dir, links.LATEST, self.path(step))
        if best is not None and self.path(best).is_dir():
            links.point(self.output_dir, links.BEST, self.path(best))
        if self.limit is None:
            return
        try:
            rotate(self.output_dir, self.facts.run, self.limit, {step, best if best is not None else step})
        except OSError as error:
            self.say(f"WARNING {error.filename or self.output_dir}: an old checkpoint could not be removed ({error})")


def refuse_taken(output_dir: Path, run: str, first_step: int, last_step: int) -> None:
    """Refuse to train towards names that somebody else's folders have.

    Raises:
        CheckpointError: there is a checkpoint after ``first_step``, and ``run`` did not write it.
    """
    for path in checkpoints(output_dir):
        if first_step < step_of(path) <= last_step and not is_of_run(path, run):
            raise CheckpointError(_taken(path))


def _taken(target: Path) -> str:
    return (
        f"{target} is there and was not written by this run, which may save under that name; nothing is overwritten. "
        "Move it away, or choose another output_dir"
    )
