"""Which checkpoint a run goes on from."""

from pathlib import Path

import pytest
from tests.training.checkpoints.saves import OTHER, RUN, save
from tests.training.sections import ALONE, training_section

from finetune.errors import CheckpointError
from finetune.training.checkpoints.find import Found, find_resume, resume_step
from finetune.training.checkpoints.manifest import MANIFEST

WHOLE = {"trainer_state.json": '{"global_step": 3}', "model.safetensors": "x", "optimizer.pt": "x", "scheduler.pt": "x"}


def unsealed(folder: Path, step: int, **changes: str | None) -> Path:
    """Write a checkpoint as another tool would."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name, content in {**WHOLE, **changes}.items():
        if content is not None:
            (path / name).write_text(content)
    return path


def find(output_dir: Path, run: str | None = None, **changes: object) -> Found | None:
    return find_resume(training_section(output_dir=str(output_dir), **changes), ALONE, run)


def newest(output_dir: Path, run: str | None = None) -> Found | None:
    return find(output_dir, run, auto_resume_from_checkpoints=True)


def test_a_fresh_start_unless_asked(tmp_path: Path) -> None:
    save(tmp_path, 5)

    assert find(tmp_path) is None
    assert newest(tmp_path / "new") is None


def test_the_newest_checkpoint_is_taken_by_number(tmp_path: Path) -> None:
    save(tmp_path, 9, 10)
    (tmp_path / "checkpoint-best").mkdir()

    found = newest(tmp_path)

    assert found is not None
    assert (found.path, found.step, found.notes) == (tmp_path / "checkpoint-10", 10, ())
    assert found.manifest is not None
    assert found.manifest.facts.config == "learning_rate: 0.1\n"
    assert resume_step(found.path) == 10


def test_a_damaged_one_is_named_with_its_file_and_what_it_costs(tmp_path: Path) -> None:
    save(tmp_path, 6, 9, 12)
    (tmp_path / "checkpoint-12" / "optimizer.pt").unlink()
    (tmp_path / "checkpoint-9" / "model.safetensors").write_text("weights 8")

    found = newest(tmp_path)

    assert found is not None
    assert found.step == 6
    assert found.notes == (
        "WARNING checkpoint-12 is not whole (optimizer.pt is missing); going on from checkpoint-6, 6 steps earlier",
        "WARNING checkpoint-9 is not whole (the content of model.safetensors changed); "
        "going on from checkpoint-6, 3 steps earlier",
    )


def test_a_named_checkpoint_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path, 3).path(3)
    (path / "scheduler.pt").write_text("rat")

    with pytest.raises(
        CheckpointError,
        match=r"checkpoint-3 is not a whole checkpoint \(scheduler.pt has 3 bytes instead of 4\). --resume without",
    ):
        find(tmp_path, resume_from_checkpoint=str(path))
    with pytest.raises(CheckpointError, match=r"checkpoint-4 is not a whole checkpoint \(no such folder\)"):
        find(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_a_link_stands_for_the_checkpoint_that_it_leads_to(tmp_path: Path) -> None:
    save(tmp_path, 3, 4)
    found = find(tmp_path, resume_from_checkpoint=str(tmp_path / "latest"))
    assert found is not None
    assert found.path == (tmp_path / "checkpoint-4").resolve()


def test_only_damaged_checkpoints_are_never_a_silent_start_from_zero(tmp_path: Path) -> None:
    save(tmp_path, 3, 6)
    unsealed(tmp_path, 9)
    for step in (3, 6):
        (tmp_path / f"checkpoint-{step}" / "scheduler.pt").unlink()

    with pytest.raises(CheckpointError) as raised:
        newest(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}: no checkpoint is whole, and the run will not start over by itself.\n"
        "  checkpoint-9: no manifest.json\n"
        "  checkpoint-6: scheduler.pt is missing\n"
        "  checkpoint-3: scheduler.pt is missing\n"
        "To go on from one without a manifest all the same, name it: resume_from_checkpoint: <folder>. To start from "
        "the beginning: --replace, or move them away"
    )


def test_the_checkpoint_of_another_run_is_no_place_to_go_on_from(tmp_path: Path) -> None:
    save(tmp_path, 3)
    save(tmp_path, 500, run=OTHER)

    found = newest(tmp_path, RUN)
    assert found is not None
    assert found.step == 3
    assert found.notes[0].startswith("WARNING checkpoint-500 is not whole (it belongs to another run)")


def test_one_without_a_manifest_is_taken_if_it_is_named_and_the_user_is_told(tmp_path: Path) -> None:
    path = unsealed(tmp_path, 3)

    found = find(tmp_path, resume_from_checkpoint=str(path))

    assert found is not None
    assert (found.path, found.step, found.manifest) == (path, 3, None)
    assert found.notes[0].startswith(f"WARNING {path} has no manifest.json: another tool or an older version wrote it")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trainer_state.json": None}, "no trainer_state.json"),
        ({"trainer_state.json": "{"}, "trainer_state.json is damaged"),
        ({"model.safetensors": None}, "no weights"),
        ({"optimizer.pt": None}, "no optimizer.pt"),
    ],
)
def test_a_named_one_without_manifest_has_to_have_its_files(
    tmp_path: Path, changes: dict[str, str | None], reason: str
) -> None:
    path = unsealed(tmp_path, 3, **changes)

    with pytest.raises(CheckpointError, match=rf"checkpoint-3 is not a whole checkpoint \({reason}\)"):
        find(tmp_path, resume_from_checkpoint=str(path))


def test_every_file_of_the_newest_checkpoint_is_guarded(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    for file in [path for path in (tmp_path / "checkpoint-2").rglob("*") if path.is_file()]:
        whole = file.read_bytes()
        for damaged in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 4]), None):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            found = newest(tmp_path)
            assert found is not None
            assert found.step == 1, f"{file.name} is damaged, and nobody saw it"
            assert file.name in found.notes[0]
        file.write_bytes(whole)
    assert (tmp_path / "checkpoint-2" / MANIFEST).is_file()
