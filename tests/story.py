"""A small run to tell the story with: forty rows of capitals, a tiny Llama, seconds of training."""

import json
import os
from collections.abc import Collection
from pathlib import Path

import yaml
from rich.console import Console

from finetune.config import load_config
from finetune.narration import Narrator
from finetune.train import RunOptions, run

FACTS = [("Norway", "Oslo"), ("France", "Paris"), ("Japan", "Tokyo"), ("Peru", "Lima"), ("Kenya", "Nairobi")]
LORA = ["--adapter=lora", "--lora_target_linear=true", "--lora_r=4"]
UNFROZEN = ["--unfrozen_parameters=[mlp, '^model.embed_tokens.weight$[5:]']"]
PACKED = ["--sample_packing=true", "--micro_batch_size=1", "--num_epochs=5"]


def write_run(folder: Path, model_dir: Path) -> Path:
    """Write rows and a configuration into ``folder``: 32 rows to train on, 8 to validate, 8 steps an epoch."""
    rows = [
        {"instruction": f"Capital of {country}, {n}?", "output": f"{city}."}
        for n in range(8)
        for country, city in FACTS
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "base_model": str(model_dir),
        "datasets": [
            {
                "path": str(folder / "rows.jsonl"),
                "type": {"format": "{instruction} ", "no_input_format": "{instruction} "},
            }
        ],
        "dataset_prepared_path": str(folder / "prepared"),
        "val_set_size": 8,
        "sequence_len": 128,
        "micro_batch_size": 4,
        "learning_rate": 0.01,
        "num_epochs": 2,
        "warmup_steps": 1,
        "logging_steps": 1,
        "bf16": False,
        "evals_per_epoch": 2,
        "output_dir": str(folder / "out"),
    }
    path = folder / "config.yml"
    path.write_text("# the user's own comment\n" + yaml.safe_dump(values, sort_keys=False))
    return path


def train(config_file: Path, *changes: str, replace: bool = False, allowed: Collection[str] = ()) -> Path:
    """Run the whole story in this process, in silence, and return the output folder."""
    with Path(os.devnull).open("w") as nowhere:
        config, options = load_config(config_file, list(changes)), RunOptions(replace=replace, allowed=allowed)
        return run(config, Narrator(Console(file=nowhere)), options)


def metrics(folder: Path, name: str) -> list[float]:
    """Return the logged values of one metric, in order."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]
