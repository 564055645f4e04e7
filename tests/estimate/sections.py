"""Setups of the estimator from the keys that matter to a test."""

from pathlib import Path
from typing import Any

import yaml

from finetune.config import RunConfig, load_config
from finetune.estimate.ask import setup_of
from finetune.estimate.devices import Device
from finetune.estimate.setup import Setup

BIG = Device("a large GPU", "cuda", 1000 * 2**30)
CPU = Device("a large machine", "cpu", 1000 * 2**30)
NEEDED = {"learning_rate": 1e-3, "datasets": [{"path": "rows.jsonl", "type": "alpaca"}]}


def config_of(folder: Path, base: Path, **keys: Any) -> RunConfig:
    """Load a configuration that was written into ``folder``."""
    file = folder / "config.yml"
    file.write_text(yaml.safe_dump({**NEEDED, "base_model": str(base), **keys}), encoding="utf-8")
    return load_config(file)


def make_setup(
    folder: Path, base: Path, device: Device = BIG, zero: dict[str, Any] | None = None, processes: int = 1, **keys: Any
) -> Setup:
    """Return the setup of ``keys``; ``zero`` is the block of a DeepSpeed file."""
    settings = None if zero is None else {"zero_optimization": zero}
    return setup_of(config_of(folder, base, **keys), settings, processes, device)
