"""Fixtures that several folders share: a configuration file, a tokenizer trained here, a two-layer Llama."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from finetune.cli import main

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("WANDB_MODE", "offline")

SHARED = Path(__file__).resolve().parents[2] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the seeds and real data in ../shared are not here")

MINIMAL: dict[str, Any] = {
    "base_model": "./model",
    "datasets": [{"path": "rows.jsonl", "type": "alpaca"}],
    "learning_rate": 1e-3,
}

WriteConfig = Callable[..., Path]


def pytest_collection_finish() -> None:
    """Spare the imports of all modules the collections that accelerate asks for: half the time of a small run."""
    gc.collect()
    gc.freeze()


class Outcome(NamedTuple):
    exit_code: int
    out: str
    err: str


Finetune = Callable[..., Outcome]


@pytest.fixture
def finetune(capfd: pytest.CaptureFixture[str]) -> Finetune:
    """Run the command in this process."""

    def run(*arguments: object) -> Outcome:
        exit_code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            exit_code = int(exit_.code or 0)
        return Outcome(exit_code, *capfd.readouterr())

    return run


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    """Write a minimal configuration, changed by keyword arguments (None removes a key), and return its path."""

    def write(**changes: Any) -> Path:
        values = {name: value for name, value in {**MINIMAL, **changes}.items() if value is not None}
        path = tmp_path / "config.yml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return write
