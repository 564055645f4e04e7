"""The id of a run in its folder, and how a start finds things."""

from pathlib import Path

from tests.training.checkpoints.saves import OTHER, RUN, make_store, names, parts, save

from finetune.training.checkpoints.find import Found, verify
from finetune.training.checkpoints.names import staging_of
from finetune.training.checkpoints.run import RUN_ID, begin_run, read_run_id, saved_nothing


def found(path: Path, step: int) -> Found:
    return Found(path, step, verify(path))


def test_a_run_has_an_id_from_its_first_start(tmp_path: Path) -> None:
    run, notes = begin_run(tmp_path, None)

    assert notes == []
    assert read_run_id(tmp_path) == run
    assert begin_run(tmp_path, None)[0] == run
    assert names(tmp_path) == set()


def test_a_run_that_goes_on_keeps_the_id_of_its_checkpoint(tmp_path: Path) -> None:
    store = save(tmp_path, 1)
    assert begin_run(tmp_path, found(store.path(1), 1))[0] == RUN
    assert read_run_id(tmp_path) == RUN


def test_a_run_that_starts_from_anothers_checkpoint_has_its_own_id(tmp_path: Path) -> None:
    store = save(tmp_path / "old", 1)
    (tmp_path / "new").mkdir()
    assert begin_run(tmp_path / "new", found(store.path(1), 1))[0] != RUN


def test_a_checkpoint_without_manifest_belongs_to_the_run_of_its_folder(tmp_path: Path) -> None:
    run, _ = begin_run(tmp_path, None)
    (tmp_path / "checkpoint-1").mkdir()
    assert begin_run(tmp_path, Found(tmp_path / "checkpoint-1", 1, None))[0] == run


def test_a_start_clears_and_makes_way(tmp_path: Path) -> None:
    store = save(tmp_path, 1, 2)
    staging_of(tmp_path, "3", RUN).mkdir()

    _, notes = begin_run(tmp_path, found(store.path(1), 1))

    assert notes == ["checkpoint-2 is now checkpoint-2.set-aside-1; the run goes on before it"]
    assert not staging_of(tmp_path, "3", RUN).exists()
    assert (tmp_path / "latest").readlink() == Path("checkpoint-1")


def test_an_unreadable_id_is_none(tmp_path: Path) -> None:
    for text in ("", "../..", "x" * 32, RUN[:-1]):
        (tmp_path / RUN_ID).write_text(text)
        assert read_run_id(tmp_path) is None


def test_a_run_without_a_checkpoint_or_result_has_nothing_to_lose(tmp_path: Path) -> None:
    assert not saved_nothing(tmp_path)  # it may be anybody's
    (tmp_path / RUN_ID).write_text(OTHER)
    (tmp_path / "metrics.jsonl").touch()
    assert saved_nothing(tmp_path)

    (tmp_path / "model.safetensors").touch()
    assert not saved_nothing(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    make_store(tmp_path).save(1, parts(1))
    assert not saved_nothing(tmp_path)
