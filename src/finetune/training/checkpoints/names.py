"""The names that this package gives: checkpoints, what is on its way in, and what is on its way out."""

import re
from pathlib import Path

STAGING = ".staging-"
TRASH = ".trash-"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def checkpoints(output_dir: Path) -> list[Path]:
    """Return the checkpoints of ``output_dir`` by step, oldest first."""
    return sorted((path for path in output_dir.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name)), key=step_of)


def step_of(path: Path) -> int:
    """Return the step in a checkpoint's name."""
    match = _CHECKPOINT.fullmatch(path.name)
    assert match, path
    return int(match[1])


def staging_of(output_dir: Path, what: str, run: str) -> Path:
    """Return where ``what`` (a step, or ``final``) is written before it has its name."""
    return output_dir / f"{STAGING}{what}-{run}"


def own_leftovers(output_dir: Path, run: str) -> list[Path]:
    """Return folders of ``run`` that were on their way in or out when their process ended."""
    return sorted(path for kind in (STAGING, TRASH) for path in output_dir.glob(f"{kind}*-{run}"))
