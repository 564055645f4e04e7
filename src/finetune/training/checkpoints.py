"""Finding the checkpoint to go on from."""

import json
import re
from pathlib import Path

from finetune.config.training import TrainingSection
from finetune.errors import CheckpointError

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")


def find_resume(training: TrainingSection) -> Path | None:
    """Return the checkpoint to resume from, or None for a fresh start.

    Raises:
        CheckpointError: a checkpoint was named and is missing or incomplete, or output_dir holds only broken ones.
    """
    if training.resume_from_checkpoint:
        path = Path(training.resume_from_checkpoint)
        missing = _missing(path)
        if missing:
            raise CheckpointError(f"resume_from_checkpoint: {path} is not a whole checkpoint ({missing})")
        return path
    if not training.auto_resume_from_checkpoints:
        return None
    found = checkpoints(Path(training.output_dir))
    for path in reversed(found):
        if not _missing(path):
            return path
    if found:
        raise CheckpointError(
            f"{training.output_dir}: none of {', '.join(path.name for path in found)} is whole "
            f"({_missing(found[-1])} in the last); "
            "move them away to start from the beginning"
        )
    return None


def resume_step(checkpoint: Path) -> int:
    """Return the optimizer steps that a checkpoint has behind it."""
    return int(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])


def checkpoints(output_dir: Path) -> list[Path]:
    """Return the checkpoint folders of ``output_dir`` by step, oldest first."""
    numbered = [
        (int(match[1]), path)
        for path in output_dir.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    ]
    return [path for _, path in sorted(numbered)]


def _missing(path: Path) -> str:
    """Name what a checkpoint lacks; an empty string for a whole one."""
    if not path.is_dir():
        return "no such folder"
    state = path / "trainer_state.json"
    if not state.is_file():
        return "no trainer_state.json"
    try:
        json.loads(state.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return "trainer_state.json is damaged"
    if not any((path / name).is_file() for name in _WEIGHTS):
        return "no weights"
    needed = ("optimizer.pt", "scheduler.pt")
    return next((f"no {name}" for name in needed if not (path / name).is_file()), "")
