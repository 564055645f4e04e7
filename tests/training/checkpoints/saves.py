"""Checkpoints of a few bytes, for tests of how they come and go."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.sections import ALONE

from finetune.training.checkpoints.manifest import RunFacts
from finetune.training.checkpoints.publish import CheckpointStore

RUN = "0123456789abcdef" * 2
OTHER = "f" * 32
FACTS = RunFacts(run=RUN, config="learning_rate: 0.1\n", data_digest="d", num_samples=3)


def make_store(
    output_dir: Path, limit: int | None = None, run: str = RUN, said: list[str] | None = None
) -> CheckpointStore:
    """Return a store of one process; what it says goes into ``said``."""
    output_dir.mkdir(parents=True, exist_ok=True)
    lines = said if said is not None else []
    return CheckpointStore(output_dir, RunFacts(run, FACTS.config, "d", 3), ALONE, lines.append, limit)


def write_part(name: str, text: str) -> Callable[[Path], None]:
    """Return a writer of one file."""

    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return write


def parts(step: int) -> list[Callable[[Path], None]]:
    """Return writers of the files that a checkpoint of one process has."""
    state = f'{{"global_step": {step}}}'
    texts = {
        "model.safetensors": f"weights {step}",
        "optimizer.pt": f"moments {step}",
        "scheduler.pt": "rate",
        "deep/er.txt": "x",
        "trainer_state.json": state,
    }
    return [write_part(name, text) for name, text in texts.items()]


def save(output_dir: Path, *steps: int, limit: int | None = None, run: str = RUN) -> CheckpointStore:
    """Save checkpoints of ``steps`` one after another."""
    store = make_store(output_dir, limit, run)
    for step in steps:
        store.save(step, parts(step))
    return store


def names(folder: Path) -> set[str]:
    """Return what is in a folder, without hidden files."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)
