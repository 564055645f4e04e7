"""Which checkpoint a run goes on from, and whose folder it may write."""

from pathlib import Path

import pytest
from tests.training.sections import ALONE, training_section

from finetune.errors import CheckpointError, ConfigError
from finetune.training.checkpoints import claim_output_dir, find_resume

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


def test_another_run_in_the_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    old = checkpoint(tmp_path / "out", 3)

    with pytest.raises(
        ConfigError, match=r"holds another run \(checkpoint-3\)\. Go on with it: --resume\. Move it aside"
    ):
        claim_output_dir(tmp_path / "out", resuming=False, replace=False)
    assert (old / "model.safetensors").read_text() == "x"


def test_replace_moves_the_old_run_aside_and_never_over_another(tmp_path: Path) -> None:
    for number in (1, 2):
        checkpoint(tmp_path / "out", number)
        moved = claim_output_dir(tmp_path / "out", resuming=False, replace=True)

        assert moved == tmp_path / f"out.previous-{number}"
        assert (moved / f"checkpoint-{number}" / "model.safetensors").read_text() == "x"
        assert list((tmp_path / "out").iterdir()) == []


def test_a_resumed_run_keeps_its_folder(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "out", 1)

    assert claim_output_dir(tmp_path / "out", resuming=True, replace=False) is None
    assert path.is_dir()


def test_a_file_and_a_working_folder_are_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match="is a file; name a folder"):
        claim_output_dir(tmp_path / "file", resuming=False, replace=False)
    with pytest.raises(ConfigError, match="is no folder for a run; name one of its own"):
        claim_output_dir(Path(), resuming=False, replace=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CheckpointError, match=r"output_dir: .*/file/out cannot be written \(Not a directory\)"):
        claim_output_dir(tmp_path / "file" / "out", resuming=False, replace=False)
