"""Which names mean what."""

from pathlib import Path

from tests.training.checkpoints.saves import OTHER, RUN

from finetune.training.checkpoints.names import checkpoints, own_leftovers, staging_of, step_of


def test_checkpoints_are_sorted_by_their_number(tmp_path: Path) -> None:
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-best", "checkpoint-9.set-aside-1", "xcheckpoint-1"):
        (tmp_path / name).mkdir()

    assert [step_of(path) for path in checkpoints(tmp_path)] == [9, 10]


def test_what_another_run_left_behind_is_not_this_ones(tmp_path: Path) -> None:
    own = staging_of(tmp_path, "3", RUN)
    for folder in (own, staging_of(tmp_path, "final", RUN), staging_of(tmp_path, "3", OTHER), tmp_path / ".staging-3"):
        folder.mkdir()

    assert own_leftovers(tmp_path, RUN) == [own, staging_of(tmp_path, "final", RUN)]
