"""The checks in a run: before its first step, left out where nobody wants them."""

from pathlib import Path

import pytest
from rich.console import Console
from tests.story import LORA, PACKED, metrics, train, write_run

from finetune.config import load_config
from finetune.narration import Narrator
from finetune.train import run

SHORT = ["--max_steps=2", "--num_epochs=1", "--evals_per_epoch=null", "--eval_strategy=no"]


def say(config: Path, *changes: str) -> list[str]:
    """Run the story and return the lines that the checks say."""
    with Path(config.parent / "said").open("w+") as file:
        run(load_config(config, [*changes, *SHORT]), Narrator(Console(file=file, width=400)))
        file.seek(0)
        lines = file.read().splitlines()
    return [line for line in lines if line.startswith(("check ", "checks: ", "WARNING check "))]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        (["--attn_implementation=eager"], ["masks", "ends", "text", "loss"]),
        (LORA, ["masks", "ends", "text", "samples", "loss", "adapter"]),
        ([*PACKED, "--num_epochs=1"], ["masks", "ends", "text", "samples", "loss"]),
        (["--streaming=true", "--val_set_size=0"], ["masks", "ends", "text", "samples", "loss"]),
    ],
    ids=["padded", "lora", "packed", "stream"],
)
def test_each_check_says_a_line_and_the_last_says_how_long(
    tmp_path: Path, tiny_llama: Path, changes: list[str], kinds: list[str]
) -> None:
    *lines, last = say(write_run(tmp_path, tiny_llama), *changes)
    assert [line.split()[1].rstrip(":") for line in lines] == kinds
    assert last.startswith("checks: ")
    assert last.endswith(" s (--skip-checks leaves them out)")


def test_they_can_be_left_out_and_change_nothing(tmp_path: Path, tiny_llama: Path) -> None:
    config = write_run(tmp_path, tiny_llama)
    changes = [*LORA, "--lora_dropout=0.1", *SHORT]
    assert say(config, *changes, "--skip_checks=true", f"--output_dir={tmp_path / 'without'}") == []
    train(config, *changes, f"--output_dir={tmp_path / 'with'}")
    assert metrics(tmp_path / "with", "loss") == metrics(tmp_path / "without", "loss")


def test_an_adapter_that_was_trained_may_change_the_model(tmp_path: Path, tiny_llama: Path) -> None:
    config = write_run(tmp_path, tiny_llama)
    first = train(config, *LORA, *SHORT)
    lines = say(config, "--adapter=lora", f"--lora_model_dir={first}", f"--output_dir={tmp_path / 'more'}")
    assert not [line for line in lines if "check adapter" in line]
