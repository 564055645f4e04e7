"""What the tests of several processes share: a small run, how to start it, and how to compare two of them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from tests.tiny import save_tiny_llama

FACTS = [("Norway", "Oslo"), ("France", "Paris"), ("Japan", "Tokyo"), ("Peru", "Lima"), ("Kenya", "Nairobi")]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
LORA = ("--adapter=lora", "--lora_target_linear=true", "--lora_r=4")


def write_run(folder: Path) -> Path:
    """Write a model, 45 rows of very different lengths, 7 of them for validation, and a configuration."""
    save_tiny_llama(folder / "llama")
    rows = [
        {
            "instruction": f"Capital of {country}{', please' * (n % 4)}, {n}?",
            "output": f"{city}{', of course' * (n % 3)}.",
        }
        for n in range(9)
        for country, city in FACTS
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for stage in (0, 1, 2, 3):
        # no tensor of the small model is so small that ZeRO-3 keeps it whole
        zero = {"stage": stage, "stage3_param_persistence_threshold": 0}
        zero["stage3_gather_16bit_weights_on_model_save"] = True
        (folder / f"zero{stage}.json").write_text(json.dumps({"zero_optimization": zero}))
    columns = {"format": "{instruction} ", "no_input_format": "{instruction} "}
    values = {
        "base_model": str(folder / "llama"),
        "datasets": [{"path": str(folder / "rows.jsonl"), "type": columns}],
        "dataset_prepared_path": str(folder / "prepared"),
        "val_set_size": 7,
        "sequence_len": 128,
        "learning_rate": 0.01,
        "num_epochs": 2,
        "warmup_steps": 1,
        "logging_steps": 1,
        "bf16": False,
        "evals_per_epoch": 2,
        "micro_batch_size": 4,
        "output_dir": str(folder / "out"),
    }
    (folder / "config.yml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder / "config.yml"


@dataclass
class Case:
    """One training in a group of processes."""

    config: Path
    name: str
    world_size: int
    changes: tuple[str, ...]
    exit_codes: list[int] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.config.parent / self.name

    @property
    def log(self) -> str:
        path = self.out.with_suffix(".log")
        return path.read_text() if path.is_file() else ""

    def to_dict(self) -> dict[str, Any]:
        arguments = [str(self.config), *self.changes, f"--output_dir={self.out}"]
        return {"world_size": self.world_size, "arguments": arguments, "log": str(self.out.with_suffix(".log"))}


def run_cases(cases: list[Case]) -> None:
    """Run the cases one after another and note their exit codes."""
    listing = cases[0].config.parent / f"cases-{cases[0].name}.json"
    listing.write_text(json.dumps([case.to_dict() for case in cases]))
    command = [sys.executable, str(Path(__file__).with_name("forks.py")), str(listing)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    for case, codes in zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True):
        case.exit_codes = codes


def torchrun(num_processes: int, config: Path, *changes: str) -> subprocess.Popen[str]:
    """Start a run under the real launcher."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    command = [*launcher, "-m", "finetune.train", str(config), *changes]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, start_new_session=True
    )


def metrics(folder: Path, name: str) -> list[float]:
    """Return a column of ``metrics.jsonl``."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a final folder."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def largest_difference(first: Path, second: Path) -> float:
    """Compare the final weights; names, shapes and types have to be the same."""
    one, two = weights(first), weights(second)
    assert {n: (t.shape, t.dtype) for n, t in one.items()} == {n: (t.shape, t.dtype) for n, t in two.items()}
    return max((one[name].float() - two[name].float()).abs().max().item() for name in one)
