"""Whose folder a run may write."""

import subprocess
import sys
from pathlib import Path

import pytest

from finetune.errors import CheckpointError, ConfigError
from finetune.training.output import Claim, claim_output_dir


def claim(folder: Path, *, resuming: bool = False, replace: bool = False) -> Claim:
    return claim_output_dir(folder, folder / "prepared", resuming=resuming, replace=replace)


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text("x")
    return path


def test_another_run_in_the_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    old = checkpoint(tmp_path / "out", 3)

    with pytest.raises(
        ConfigError, match=r"holds another run \(checkpoint-3\)\. Go on with it: --resume\. Move it aside"
    ):
        claim(tmp_path / "out")
    assert (old / "model.safetensors").read_text() == "x"


def test_resuming_is_only_offered_where_there_is_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").touch()

    with pytest.raises(ConfigError, match=r"holds another run \(model\.safetensors\)\. Move it aside"):
        claim(tmp_path / "out")


def test_replace_moves_the_old_run_aside_and_never_over_another(tmp_path: Path) -> None:
    for number in (1, 2):
        checkpoint(tmp_path / "out", number)
        (tmp_path / "out" / "config.resolved.yml").write_text(str(number))
        moved = claim(tmp_path / "out", replace=True).moved

        assert moved == tmp_path / f"out.previous-{number}"
        assert (moved / f"checkpoint-{number}" / "model.safetensors").read_text() == "x"
        assert (moved / "config.resolved.yml").read_text() == str(number)
        assert [entry.name for entry in (tmp_path / "out").iterdir()] == [".lock"]


def test_what_a_failed_start_leaves_is_no_run(tmp_path: Path) -> None:
    for name in ("config.resolved.yml", "data_report.json", "data_report.txt", "prepared"):
        (tmp_path / "out" / name).mkdir(parents=True)

    assert claim(tmp_path / "out").moved is None


def test_what_a_kill_in_the_first_moment_leaves_is_no_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".run-id.new").touch()
    (out / ".run.json.4711").touch()
    claim(out)


def test_prepared_data_inside_the_folder_stays_where_it_is(tmp_path: Path) -> None:
    checkpoint(tmp_path / "out", 1)
    (tmp_path / "out" / "prepared").mkdir()

    claim(tmp_path / "out", replace=True)

    assert (tmp_path / "out" / "prepared").is_dir()


def test_a_resumed_run_keeps_its_folder(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "out", 1)

    assert claim(tmp_path / "out", resuming=True).moved is None
    assert path.is_dir()


@pytest.mark.parametrize("how", [{}, {"resuming": True}, {"replace": True}], ids=["fresh", "resume", "replace"])
def test_a_live_run_is_never_disturbed(tmp_path: Path, how: dict[str, bool]) -> None:
    program = (
        "import sys; from pathlib import Path; from finetune.training.output import claim_output_dir as c\n"
        f"claim = c(Path({str(tmp_path / 'out')!r}), Path('p'), resuming=False, replace=False)\n"
        "print('claimed', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"claimed\n"
        with pytest.raises(ConfigError, match=r"another process is writing to .*out now"):
            claim(tmp_path / "out", **how)
        other.communicate()
    assert claim(tmp_path / "out").moved is None


def test_a_file_and_a_working_folder_are_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match="is a file; name a folder"):
        claim(tmp_path / "file")
    with pytest.raises(ConfigError, match="is no folder for a run; name one of its own"):
        claim(Path(), replace=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CheckpointError, match=r"output_dir: .*/file/out cannot be written \(Not a directory\)"):
        claim(tmp_path / "file" / "out")
