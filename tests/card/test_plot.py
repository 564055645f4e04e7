import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from finetune.card.plot import plot_losses

BLUE, ORANGE = (0x5B, 0x8F, 0xC7), (0xC2, 0x41, 0x0C)
TRAINING = [{"loss": 3.0 / step, "step": step, "epoch": step / 10} for step in range(1, 11)]
VALIDATION = [{"eval_loss": 3.5 / step, "step": step, "epoch": step / 10} for step in (1, 5, 10)]


def pixels_of(path: Path, colour: tuple[int, int, int]) -> int:
    picture = np.rint(imread(path)[..., :3] * 255).astype(int)
    return int((picture == colour).all(axis=-1).sum())


@pytest.mark.parametrize(
    ("log", "has_training", "has_validation"),
    [
        (TRAINING + VALIDATION, True, True),
        (TRAINING, True, False),
        (VALIDATION, False, True),
        ([{"loss": 1.5, "step": 3}], True, False),
        ([{"loss": math.nan, "step": 1}, *VALIDATION], False, True),
        ([{"loss": 2.0, "step": 1}, {"loss": math.inf, "step": 2}, {"loss": 1.0, "step": 3}], True, False),
        ([*TRAINING, {"train_runtime": 1.0, "step": 10}], True, False),
    ],
    ids=["both", "training", "validation", "one point", "all nan", "a gap", "summary row"],
)
def test_each_logged_loss_is_drawn_in_its_colour(
    log: list[dict[str, float]], has_training: bool, has_validation: bool, tmp_path: Path
) -> None:
    assert plot_losses(log, tmp_path / "loss.png") is True
    assert (pixels_of(tmp_path / "loss.png", BLUE) > 20) == has_training
    assert (pixels_of(tmp_path / "loss.png", ORANGE) > 20) == has_validation


@pytest.mark.parametrize(
    "log",
    [[], [{"train_runtime": 1.0}], [{"loss": math.nan, "step": 1}]],
    ids=["empty", "no loss", "not finite"],
)
def test_nothing_to_draw_leaves_no_file(log: list[dict[str, float]], tmp_path: Path) -> None:
    assert plot_losses(log, tmp_path / "loss.png") is False
    assert not (tmp_path / "loss.png").exists()


def test_the_same_losses_give_the_same_file(tmp_path: Path) -> None:
    plot_losses(TRAINING, tmp_path / "a.png")
    plot_losses(TRAINING, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_picture_is_small(tmp_path: Path) -> None:
    plot_losses(TRAINING + VALIDATION, tmp_path / "loss.png")
    assert imread(tmp_path / "loss.png").shape[:2] == (450, 800)
    assert (tmp_path / "loss.png").stat().st_size < 100_000


def test_the_card_needs_neither_torch_nor_pyplot() -> None:
    program = (
        "import sys, finetune.card.plot, finetune.card.render\n"
        "print(sorted({'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
