"""Links that lead to a checkpoint."""

from pathlib import Path

from finetune.training.checkpoints.links import point


def test_a_link_is_relative_and_moves_on(tmp_path: Path) -> None:
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}").mkdir()
        point(tmp_path, "latest", tmp_path / f"checkpoint-{step}")

    assert (tmp_path / "latest").readlink() == Path("checkpoint-2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-2", "latest"]


def test_a_file_or_folder_of_that_name_stays(tmp_path: Path) -> None:
    (tmp_path / "best").write_text("mine")
    point(tmp_path, "best", tmp_path / "checkpoint-1")

    assert (tmp_path / "best").read_text() == "mine"
    assert not (tmp_path / "best").is_symlink()
