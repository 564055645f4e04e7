"""Saves to disks of many sizes, from too small for anything to large enough.

Started as ``unshare -rm python full_disks.py folder``: a file system in memory is mounted there, and its size changed.
Prints one of ``"saved"`` and the error's text for each size, or what else went wrong.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tests.training.checkpoints.saves import make_store, names, write_part

from finetune.errors import CheckpointError
from finetune.training.checkpoints.final import publish_final
from finetune.training.checkpoints.find import verify
from finetune.training.checkpoints.publish import CheckpointStore, Write
from finetune.training.checkpoints.space import Needs

PAGE = 4096
SIZES = (*range(9), 20, 40, 60, 70, 74, 76, *range(78, 160, 6))
"""Pages that are free when a save begins; it takes 153."""


def writers() -> list[Write]:
    """Weights of 75 pages, then optimizer states of as many, by the libraries that write them in a run."""
    tensor = torch.ones(75 * PAGE // 4)
    return [
        lambda folder: save_file({"a": tensor}, folder / "model.safetensors"),
        lambda folder: torch.save({"m": tensor}, folder / "optimizer.pt"),
        write_part("trainer_state.json", '{"global_step": 1}'),
    ]


def resize(folder: Path, free_pages: int) -> None:
    """Leave so many pages free."""
    used = shutil.disk_usage(folder).used
    subprocess.run(["mount", "-o", f"remount,size={used + free_pages * PAGE}", folder], check=True)


def attempt(store: CheckpointStore, out: Path) -> str:
    """Save a checkpoint and a result where there may be no room; what was there has to stay whole."""
    try:
        store.save(2, writers())
        outcome = "saved"
    except CheckpointError as error:
        outcome = str(error)
    verify(out / "checkpoint-1")
    if "checkpoint-2" in names(out):
        verify(out / "checkpoint-2")
    left = [path.name for path in out.iterdir() if path.name.startswith(".")]
    return outcome if not left and ("checkpoint-2" in names(out)) == (outcome == "saved") else f"left {left}"


def main(folder: Path) -> list[str]:
    """Try every size."""
    outcomes = []
    for free_pages in SIZES:
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
        out = folder / "out"
        store = make_store(out)
        store.save(1, writers())
        store.needs = Needs(627_000, 300_000)
        resize(folder, free_pages)
        outcomes.append(attempt(store, out))
        subprocess.run(["umount", folder], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={20 * PAGE}", "none", folder], check=True)
    try:
        store = make_store(folder / "out")
        store.needs = Needs(627_000, 300_000)
        publish_final(store, 1, writers()[0])
    except CheckpointError as error:
        outcomes.append(str(error))
    outcomes.append(f"left {sorted(names(folder / 'out'))}")
    return outcomes


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
