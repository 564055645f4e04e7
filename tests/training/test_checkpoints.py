"""Which checkpoint a run goes on from."""

from pathlib import Path

import pytest
from tests.training.sections import ALONE, training_section

from finetune.errors import CheckpointError
from finetune.training.checkpoints import find_resume

WHOLE = {"trainer_state.json": "{}", "model.safetensors": "x", "optimizer.pt": "x", "scheduler.pt": "x"}


def checkpoint(folder: Path, step: int, **changes: str | None) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name, content in {**WHOLE, **changes}.items():
        if content is not None:
            (path / name).write_text(content)
    return path


def find(output_dir: Path, **changes: object) -> Path | None:
    return find_resume(training_section(output_dir=str(output_dir), **changes), ALONE)


def test_a_fresh_start_unless_asked(tmp_path: Path) -> None:
    checkpoint(tmp_path, 5)

    assert find(tmp_path) is None
    assert find(tmp_path / "new", auto_resume_from_checkpoints=True) is None


def test_the_newest_whole_checkpoint_is_taken_by_number(tmp_path: Path) -> None:
    checkpoint(tmp_path, 9)
    newest = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 11, **{"trainer_state.json": None})
    (tmp_path / "checkpoint-best").mkdir()

    assert find(tmp_path, auto_resume_from_checkpoints=True) == newest


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trainer_state.json": None}, "no trainer_state.json"),
        ({"trainer_state.json": "{"}, "trainer_state.json is damaged"),
        ({"model.safetensors": None}, "no weights"),
        ({"optimizer.pt": None}, "no optimizer.pt"),
    ],
)
def test_a_named_checkpoint_that_is_not_whole_is_refused(
    tmp_path: Path, changes: dict[str, str | None], reason: str
) -> None:
    path = checkpoint(tmp_path, 3, **changes)

    with pytest.raises(CheckpointError, match=rf"checkpoint-3 is not a whole checkpoint \({reason}\)"):
        find(tmp_path, resume_from_checkpoint=str(path))


def test_only_broken_checkpoints_are_never_a_silent_start_from_zero(tmp_path: Path) -> None:
    checkpoint(tmp_path, 3, **{"scheduler.pt": None})

    with pytest.raises(
        CheckpointError, match=r"none of checkpoint-3 is whole .* move them away to start from the beginning"
    ):
        find(tmp_path, auto_resume_from_checkpoints=True)
