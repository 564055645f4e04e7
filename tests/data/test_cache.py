"""Folders that are built once, published whole, and checked when they are used again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.data.cache import MANIFEST, STALE_S, Built, build_once, find_damage, shared_staging
from finetune.errors import CheckpointError, DataError


def write_files(folder: Path) -> Built:
    (folder / "data").mkdir()
    (folder / "data" / "a.bin").write_bytes(b"0123456789")
    (folder / "b.json").write_text("{}")
    return Built()


def fail_to_build(folder: Path) -> Built:
    raise AssertionError("built again")


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "prepared"
    built = build_once(root, "key", write_files)
    found = build_once(root, "key", fail_to_build)
    assert (built.path, built.cached, built.notes) == (root / "key", False, ())
    assert (found.path, found.cached, found.notes) == (root / "key", True, ())
    assert names(root) == [".lock-key", "key"]


def truncate(entry: Path) -> None:
    (entry / "data" / "a.bin").write_bytes(b"01234")


def flip_a_byte(entry: Path) -> None:
    (entry / "data" / "a.bin").write_bytes(b"0123456780")


def remove_a_file(entry: Path) -> None:
    (entry / "b.json").unlink()


def remove_the_manifest(entry: Path) -> None:
    (entry / MANIFEST).unlink()


def break_the_manifest(entry: Path) -> None:
    (entry / MANIFEST).write_text("{")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "data/a.bin has 5 bytes instead of 10"),
        (flip_a_byte, "the content of data/a.bin changed"),
        (remove_a_file, "b.json is missing"),
        (remove_the_manifest, "manifest.json is missing"),
        (break_the_manifest, "unreadable: "),
    ],
)
def test_a_damaged_entry_is_built_anew_and_said(tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    entry = build_once(tmp_path, "key", write_files).path
    damage(entry)
    again = build_once(tmp_path, "key", write_files)
    assert not again.cached
    (note,) = again.notes
    assert note.startswith(f"{entry}: was damaged ({reason}")
    assert note.endswith(") and has been built anew")
    assert find_damage(entry) is None


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail_half_way(folder: Path) -> Built:
        write_files(folder)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        build_once(tmp_path, "key", fail_half_way)
    assert names(tmp_path) == [".lock-key"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    root = tmp_path / "file" / "prepared"
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError) as caught:
        build_once(root, "key", write_files)
    assert str(caught.value) == (
        f"dataset_prepared_path: {root} cannot take the prepared data (Not a directory); set "
        "dataset_prepared_path to a folder that can be written"
    )


def run(program: str, *arguments: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


FULL_DISK = """
import resource, sys, pathlib
from finetune.data.cache import Built, build_once
from finetune.errors import CheckpointError, DataError
def build(folder):
    (folder / "a").write_bytes(bytes(2000))
    return Built()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try: build_once(pathlib.Path(sys.argv[1]), "key", build)
except CheckpointError as error: print(error)
"""


def test_a_disk_that_takes_no_more_is_named_and_left_clean(tmp_path: Path) -> None:
    message, _ = run(FULL_DISK, tmp_path).communicate(timeout=60)
    assert message.startswith(f"{tmp_path} cannot take the prepared data (File too large): ")
    assert "GB are free there; free some space, or set dataset_prepared_path" in message
    assert names(tmp_path) == [".lock-key"]


BUILD = """
import os, sys, pathlib, time
from finetune.data.cache import Built, build_once
def build(folder):
    (folder / "started").write_text(str(os.getpid()))
    with open(sys.argv[2], "a") as log: log.write("built\\n")
    time.sleep(float(sys.argv[3]))
    return Built()
entry = build_once(pathlib.Path(sys.argv[1]), "key", build)
print(entry.cached, (entry.path / "started").read_text())
"""


def test_eight_processes_at_once_build_one_entry(tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [run(BUILD, tmp_path / "prepared", log, Path("0.5")) for _ in range(8)]
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert log.read_text() == "built\n"
    assert sorted(cached for cached, _ in answers) == ["False"] + ["True"] * 7
    assert len({builder for _, builder in answers}) == 1


def test_a_killed_builder_leaves_no_entry_and_no_lock(tmp_path: Path) -> None:
    root = tmp_path / "prepared"
    for _ in range(3):
        process = run(BUILD, root, tmp_path / "log", Path("60"))
        deadline = time.monotonic() + 30
        while not (root / ".building-key" / "started").exists():
            assert time.monotonic() < deadline, "the builder did not start"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (root / "key").exists()
        (root / ".building-key" / "started").unlink()
    assert not build_once(root, "key", write_files).cached
    assert names(root) == [".lock-key", "key"]


def test_a_build_that_is_stopped_is_found_as_it_was(tmp_path: Path) -> None:
    def stop_half_way(folder: Path) -> Built:
        (folder / "first").write_text("done")
        raise KeyboardInterrupt

    def go_on(folder: Path) -> Built:
        assert (folder / "first").read_text() == "done"
        return Built("went on")

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path, "key", stop_half_way, resumes=True)
    entry = build_once(tmp_path, "key", go_on, resumes=True)
    assert entry.notes == ("went on",)
    assert names(tmp_path) == [".lock-key", "key"]


@pytest.mark.parametrize("error", [DataError("a bad row"), CheckpointError("full"), OSError(28, "full")])
def test_what_would_fail_again_is_not_kept(tmp_path: Path, error: Exception) -> None:
    def fail(folder: Path) -> Built:
        (folder / "first").write_text("done")
        raise error

    with pytest.raises((DataError, CheckpointError)):
        build_once(tmp_path, "key", fail, resumes=True)
    assert names(tmp_path) == [".lock-key"]


def test_what_the_builder_keeps_for_itself_is_not_published(tmp_path: Path) -> None:
    def build(folder: Path) -> Built:
        (folder / ".own").mkdir()
        (folder / ".own" / "note").write_text("for me")
        return write_files(folder)

    entry = build_once(tmp_path, "key", build).path
    assert sorted(path.name for path in entry.iterdir()) == ["b.json", "data", MANIFEST]
    assert find_damage(entry) is None


def test_forgotten_unfinished_folders_are_removed(tmp_path: Path) -> None:
    old, young = tmp_path / ".building-old", tmp_path / ".building-young"
    for folder in (old, young):
        folder.mkdir()
    long_ago = time.time() - STALE_S - 60
    os.utime(old, (long_ago, long_ago))
    build_once(tmp_path, "key", write_files)
    assert (old.exists(), young.exists()) == (False, True)


def test_several_fill_a_folder_together_and_nobody_finishes_it_meanwhile(tmp_path: Path) -> None:
    with shared_staging(tmp_path, "key", "1-of-2") as first, shared_staging(tmp_path, "key", "2-of-2") as second:
        assert first == second == tmp_path / ".building-key"
        finisher = run(BUILD, tmp_path, tmp_path / "log", Path("0"))
        with pytest.raises(subprocess.TimeoutExpired):
            finisher.wait(1)
    assert finisher.communicate(timeout=60)[0].startswith("False")
    with shared_staging(tmp_path, "key", "1-of-2") as folder:
        assert folder is None, "there is nothing left to do"


def test_a_full_disk_is_named_with_what_to_do(tmp_path: Path) -> None:
    def build(folder: Path) -> Built:
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError) as caught:
        build_once(tmp_path, "key", build)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path} cannot take the prepared data (No space left on device): ")
    assert message.endswith(
        "GB are free there; free some space, or set dataset_prepared_path to a folder that has room"
    )
