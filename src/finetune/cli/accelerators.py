"""Which accelerators and processors this machine shows, found without importing torch where that can be."""

import os
import subprocess
import sys

from finetune.cli.importing import heavy_imports

VISIBLE = "CUDA_VISIBLE_DEVICES"
ANSWER_S = 30
"""A driver that was asleep takes seconds to answer; a broken one never does."""


def count_accelerators() -> int:
    """Return how many GPUs this process may use; 0 means that it trains on the CPU."""
    if os.environ.get(VISIBLE, "0") in ("", "-1"):
        return 0
    listing = _ask_driver()
    if listing is None:
        with heavy_imports():
            import torch

        return torch.cuda.device_count()
    return num_visible(listing, os.environ.get(VISIBLE))


def num_visible(listing: str, visible: str | None) -> int:
    """Count the GPUs of ``nvidia-smi --list-gpus`` that ``CUDA_VISIBLE_DEVICES`` leaves, as CUDA itself does.

    CUDA takes the names from the left and stops at the first that is none of its GPUs.
    """
    gpus = [line for line in listing.splitlines() if line.startswith("GPU ")]
    if visible is None:
        return len(gpus)
    names = [name.strip() for name in visible.split(",")]
    known = [name in map(str, range(len(gpus))) or (name != "" and f"UUID: {name}" in listing) for name in names]
    return known.index(False) if False in known else len(known)


def count_processors() -> int:
    """Return how many processors this process may use."""
    if sys.platform == "linux":  # in a container, or under a scheduler, fewer than the machine has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_one_accelerator() -> None:
    """Leave one GPU visible: in a single process transformers would copy the model to all of them (DataParallel).

    To be called before torch meets its first GPU.
    """
    os.environ[VISIBLE] = os.environ.get(VISIBLE, "0").split(",")[0]


def _ask_driver() -> str | None:
    """Return the driver's list of GPUs, or None where there is no such driver or it does not answer."""
    try:
        finished = subprocess.run(
            ["nvidia-smi", "--list-gpus"],  # noqa: S607 - it lies wherever the driver's package has put it
            capture_output=True,
            text=True,
            check=True,
            timeout=ANSWER_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout
