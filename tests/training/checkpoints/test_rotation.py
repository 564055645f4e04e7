"""What is taken away, and what never is."""

from pathlib import Path

from tests.training.checkpoints.saves import OTHER, RUN, make_store, names, parts, save

from finetune.training.checkpoints.manifest import MANIFEST
from finetune.training.checkpoints.names import TRASH, staging_of
from finetune.training.checkpoints.rotation import is_of_run, rotate, set_aside, sweep


def test_the_newest_stay_and_the_best(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4, 5)
    rotate(tmp_path, RUN, 3, {5, 2})
    assert {"checkpoint-2", "checkpoint-4", "checkpoint-5"} == names(tmp_path) - {"latest"}

    rotate(tmp_path, RUN, 1, {5, 2})
    assert {"checkpoint-2", "checkpoint-5"} == names(tmp_path) - {"latest"}


def test_only_what_this_run_wrote_is_removed(tmp_path: Path) -> None:
    """Not foreign folders, nor those without a manifest or with a damaged one, nor links, though the names fit."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    save(elsewhere, 7)
    save(out, 1, run=OTHER)
    (out / "checkpoint-2").mkdir()
    (out / "checkpoint-2" / "mine.txt").write_text("mine")
    (out / "checkpoint-3").symlink_to(elsewhere / "checkpoint-7")
    save(out, 4, 5, 6)
    (out / "checkpoint-4" / MANIFEST).write_text("{}")

    rotate(out, RUN, 1, {6})

    kept = {f"checkpoint-{step}" for step in (1, 2, 3, 4, 6)}
    assert names(out) - {"latest"} == kept
    assert (elsewhere / "checkpoint-7" / "model.safetensors").is_file()
    assert (out / "checkpoint-2" / "mine.txt").is_file()


def test_a_link_inside_a_checkpoint_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows").write_text("rows")
    save(tmp_path / "out", 1, 2)
    (tmp_path / "out" / "checkpoint-1" / "data").symlink_to(tmp_path / "data")

    rotate(tmp_path / "out", RUN, 1, {2})

    assert names(tmp_path / "out") == {"checkpoint-2", "latest"}
    assert (tmp_path / "data" / "rows").read_text() == "rows"


def test_a_start_clears_what_a_kill_left_of_this_run_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    own = [staging_of(tmp_path, "3", RUN), staging_of(tmp_path, "final", RUN), tmp_path / f"{TRASH}2-{RUN}"]
    foreign = [staging_of(tmp_path, "3", OTHER), tmp_path / ".staging-3", tmp_path / ".trash-bin"]
    for folder in (*own, *foreign):
        folder.mkdir()
        (folder / "file").touch()
    linked = staging_of(tmp_path, "9", RUN)
    linked.symlink_to(tmp_path / "mine")

    sweep(tmp_path, RUN)

    assert {path for path in tmp_path.iterdir() if path.name.startswith(".")} == {*foreign, linked}
    assert (tmp_path / "mine" / "file").is_file()


def test_newer_checkpoints_make_way_and_stay_readable(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    (tmp_path / "checkpoint-3" / MANIFEST).unlink()
    save(tmp_path, 4, run=OTHER)

    notes = set_aside(tmp_path, 1, RUN)

    assert notes == [
        "checkpoint-2 is now checkpoint-2.set-aside-1; the run goes on before it",
        "checkpoint-3 is now checkpoint-3.set-aside-1; the run goes on before it",
    ]
    assert is_of_run(tmp_path / "checkpoint-2.set-aside-1", RUN)
    assert {"checkpoint-1", "checkpoint-4"} <= names(tmp_path)
    make_store(tmp_path).save(2, parts(2))
    assert set_aside(tmp_path, 1, RUN) == ["checkpoint-2 is now checkpoint-2.set-aside-2; the run goes on before it"]
