"""The longest batch before the first step: found, tried, and without a trace."""

import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tests.story import LORA, write_run

from finetune.config import load_config
from finetune.estimate.devices import host_bytes
from finetune.fitting import plan_memory
from finetune.narration import Narrator
from finetune.train import run


@pytest.fixture
def config_file(tmp_path: Path, tiny_llama: Path) -> Path:
    """A run whose rows but one, somewhere in the middle, are short."""
    file = write_run(tmp_path, tiny_llama)
    rows = [{"instruction": f"Capital {number}?", "output": "Oslo."} for number in range(40)]
    rows[11]["output"] = "A long answer. " * 9
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def train(file: Path, name: str, *changes: str) -> tuple[Path, str]:
    """Run, and return the output folder and what was printed."""
    text = file.parent / f"{name}.txt"
    with text.open("w") as stream:
        config = load_config(file, [*changes, f"--output_dir={file.parent / name}"])
        folder = run(config, Narrator(Console(file=stream, width=200)))
    return folder, text.read_text()


@pytest.mark.parametrize("changes", [[*LORA, "--lora_dropout=0.1"], ["--neftune_noise_alpha=5"]], ids=["lora", "full"])
def test_a_tried_batch_leaves_no_trace(config_file: Path, changes: list[str], request: pytest.FixtureRequest) -> None:
    # rows of a million tokens make the estimate large, and nothing else: no row is that long
    plain, silent = train(config_file, "plain", *changes)
    large = ["--sequence_len=1048576", *changes]
    tried, said = train(config_file, "tried", *large)

    assert "longest batch" not in silent
    assert re.search(r"longest batch: 4 rows in \d+ tokens passed before the first step, peak memory", said)
    first, second = (load_file(next(folder.glob("*.safetensors"))) for folder in (plain, tried))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_that_is_sure_to_fit_tries_nothing(config_file: Path) -> None:
    plan = plan_memory(load_config(config_file))
    assert plan is not None
    assert plan.share < 0.5
    assert plan.setup.device.num_bytes == host_bytes()


def test_batches_of_one_length_are_not_tried(config_file: Path) -> None:
    _, said = train(config_file, "filled", "--sequence_len=128", "--pad_to_sequence_len=true", "--eval_batch_size=1")
    assert "longest batch" not in said
