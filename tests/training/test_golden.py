"""The losses of short runs, as they were when they were written down.

A change of a library or of our own code that moves a loss shows here.  Processors differ in the last bits of float32,
so the numbers are compared to one part in a hundred thousand.  To write them anew, after a change that is meant to move
them: ``python -m tests.training.test_golden`` at the root of the project.
"""

import json
import tempfile
from pathlib import Path

import pytest
import torch
from tests.story import LORA, metrics, train, write_run
from tests.tiny import save_tiny_llama

FILE = Path(__file__).with_name("golden_losses.json")
STEPS = ("--max_steps=30", "--num_epochs=9", "--val_set_size=0", "--evals_per_epoch=null", "--save_strategy=no")
RECIPES = {
    "full": ("--weight_decay=0.1", "--gradient_accumulation_steps=2"),
    "lora": (*LORA, "--lora_dropout=0.1"),
    "qlora": (*LORA, "--load_in_4bit=true"),
    "packed": ("--sample_packing=true", "--micro_batch_size=2", "--lr_scheduler=linear"),
}


def losses(folder: Path, base: Path, recipe: str) -> list[float]:
    folder.mkdir(exist_ok=True)
    return metrics(train(write_run(folder, base), *RECIPES[recipe], *STEPS), "loss")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_losses_are_those_that_were_written_down(tmp_path: Path, tiny_llama: Path, recipe: str) -> None:
    expected = json.loads(FILE.read_text())[recipe]
    found = losses(tmp_path / "run", tiny_llama, recipe)

    assert len(found) == 30
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def write() -> None:
    """Write the losses of this machine down."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = save_tiny_llama(folder / "llama")
        found = {recipe: losses(folder / recipe, base, recipe) for recipe in RECIPES}
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    write()
