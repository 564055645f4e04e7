"""Whose folder it is: the id that a run keeps from its first start to its last resume."""

import os
import re
import uuid
from pathlib import Path

from finetune.data.files import sync, write_synced
from finetune.training.checkpoints import links
from finetune.training.checkpoints.find import Found
from finetune.training.checkpoints.manifest import MANIFEST
from finetune.training.checkpoints.names import checkpoints
from finetune.training.checkpoints.rotation import set_aside, sweep

RUN_ID = ".run-id"
"""File of an output folder with the id of its run."""
STAGED_ID = f"{RUN_ID}.new"
"""Its name while it is written; a kill can leave it."""
_ID = re.compile(r"[0-9a-f]{32}")


def begin_run(output_dir: Path, found: Found | None) -> tuple[str, list[str]]:
    """Give the run in ``output_dir`` its id, clear away what a killed process of it left, and return both.

    Checkpoints that are newer than the one to go on from (damaged, or of a way that is not taken) get other names, so
    that the run can reach their steps again.  To be called by the main process, under the folder's lock.
    """
    inside = found is not None and found.path.parent.resolve() == output_dir.resolve()
    run = read_run_id(output_dir)
    if found and inside and found.manifest:
        run = found.manifest.facts.run
    elif found and not inside:
        run = None
    run = run or uuid.uuid4().hex
    if read_run_id(output_dir) != run:
        staged = output_dir / STAGED_ID
        write_synced(staged, f"{run}\n".encode())
        staged.replace(output_dir / RUN_ID)
        sync(output_dir)
    sweep(output_dir, run)
    if not found or not inside:
        return run, []
    notes = set_aside(output_dir, found.step, run)
    links.point(output_dir, links.LATEST, found.path)
    return run, notes


def read_run_id(output_dir: Path) -> str | None:
    """Return the id of the run that ``output_dir`` belongs to; None where none is noted."""
    try:
        text = (output_dir / RUN_ID).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if _ID.fullmatch(text) else None


def saved_nothing(output_dir: Path) -> bool:
    """Whether the run in ``output_dir`` ended before its first checkpoint and its result: nothing can be lost."""
    return (
        read_run_id(output_dir) is not None
        and not checkpoints(output_dir)
        and not os.path.lexists(output_dir / MANIFEST)
        and not any(output_dir.glob("*.safetensors"))
    )
