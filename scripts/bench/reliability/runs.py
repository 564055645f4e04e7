"""The small run that the matrix is about: a random Llama of two layers, forty rows, dropout, many checkpoints."""

import hashlib
import json
import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from tests.tiny import save_tiny_llama

from reliability.forks import Child, Outcome, command, start

FACTS = [("Norway", "Oslo"), ("France", "Paris"), ("Japan", "Tokyo"), ("Peru", "Lima"), ("Kenya", "Nairobi")]
COLUMNS = {"format": "{instruction} ", "no_input_format": "{instruction} "}
ROWS = [
    {"instruction": f"Capital of {country}{', please' * (n % 4)}, {n}?", "output": f"{city}{', of course' * (n % 3)}."}
    for n in range(8)
    for country, city in FACTS
]
LORA: Mapping[str, Any] = {"adapter": "lora", "lora_target_linear": True, "lora_r": 4, "lora_dropout": 0.1}
VALUES: Mapping[str, Any] = {
    "val_set_size": 0,
    "sequence_len": 128,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 0.01,
    "num_epochs": 2,
    "warmup_steps": 1,
    "logging_steps": 1,
    "bf16": False,
    "save_steps": 2,
    "save_total_limit": 2,
}
"""Twenty steps in two epochs."""


@dataclass(frozen=True)
class Case:
    """One configuration in a folder of its own."""

    folder: Path
    config: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self, *words: str, name: str = "train", world_size: int = 1) -> Child:
        """Start a command of ``finetune`` on this configuration."""
        return start(command(name, self.config, *words), self.folder / f"{name}.log", world_size)

    def run(self, *words: str, name: str = "train", world_size: int = 1) -> Outcome:
        """Run a command of ``finetune`` on this configuration to its end."""
        return self.start(*words, name=name, world_size=world_size).wait()


@dataclass(frozen=True)
class Lab:
    """Where the matrix is run, and how much of it."""

    folder: Path
    short: bool = False
    chance: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - moments, no secrets

    def count(self, full: int, short: int) -> int:
        """Return how many cases to run."""
        return short if self.short else full

    @cached_property
    def model(self) -> Path:
        """A random Llama that drops attention at random, so that a lost random state shows."""
        folder = save_tiny_llama(self.folder / "llama")
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "attention_dropout": 0.1}))
        return folder

    @cached_property
    def rows(self) -> Path:
        path = self.folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        return path

    def case(self, name: str, **changes: Any) -> Case:
        """Write a configuration into a new folder; None leaves a key out."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        values = {
            "base_model": str(self.model),
            "datasets": [{"path": str(self.rows), "type": COLUMNS}],
            "dataset_prepared_path": str(self.folder / "prepared"),
            "output_dir": str(folder / "out"),
            **VALUES,
            **changes,
        }
        config = folder / "config.yml"
        kept = {key: value for key, value in values.items() if value is not None}
        config.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
        return Case(folder, config)


def weights_digest(folder: Path) -> str:
    """Return one SHA-256 over the final weights of a run; empty where there are none."""
    files = sorted(folder.glob("*.safetensors"))
    whole = b"".join(file.name.encode() + hashlib.sha256(file.read_bytes()).digest() for file in files)
    return hashlib.sha256(whole).hexdigest() if files else ""


def ledger(out: Path, after: int = 0) -> list[tuple[Any, ...]]:
    """Return step, loss, gradient norm and learning rate of each step behind ``after``."""
    file = out / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    wanted = [row for row in rows if "loss" in row and row["step"] > after]
    return [(row["step"], row["loss"], row.get("grad_norm"), row.get("learning_rate")) for row in wanted]


def published(out: Path) -> list[int]:
    """Return the steps whose checkpoint folders have their final name, oldest first."""
    found = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in out.glob("checkpoint-*"))
    return sorted(int(match[1]) for match in found if match)


def resumed_from(text: str) -> int | None:
    """Return the step that a run said it goes on from."""
    match = re.search(r"resuming from \S*checkpoint-(\d+)", text)
    return int(match[1]) if match else None


def has_staging(out: Path) -> bool:
    """Whether a save was cut off: its folder is still there, under a name that no resume takes."""
    return any(out.glob(".staging*"))
