"""Folders that are built once, published whole, and checked when they are used again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.data.cache import MANIFEST, build_once, find_damage
from finetune.errors import CheckpointError


def write_files(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "a.bin").write_bytes(b"0123456789")
    (folder / "b.json").write_text("{}")


def fail_to_build(folder: Path) -> None:
    raise AssertionError("built again")


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "prepared"
    built = build_once(root, "key", write_files)
    found = build_once(root, "key", fail_to_build)
    assert (built.path, built.cached, built.note) == (root / "key", False, None)
    assert (found.path, found.cached, found.note) == (root / "key", True, None)
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
    assert again.note is not None
    assert again.note.startswith(f"{entry}: was damaged ({reason}")
    assert again.note.endswith(") and has been built anew")
    assert find_damage(entry) is None


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail_half_way(folder: Path) -> None:
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
from finetune.data.cache import build_once
from finetune.errors import CheckpointError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try: build_once(pathlib.Path(sys.argv[1]), "key", lambda folder: (folder / "a").write_bytes(bytes(2000)))
except CheckpointError as error: print(error)
"""


def test_a_disk_that_takes_no_more_is_named_and_left_clean(tmp_path: Path) -> None:
    message, _ = run(FULL_DISK, tmp_path).communicate(timeout=60)
    assert message.startswith(f"dataset_prepared_path: {tmp_path} cannot take the prepared data (File too large); ")
    assert "GB are free there; set dataset_prepared_path" in message
    assert names(tmp_path) == [".lock-key"]


BUILD = """
import os, sys, pathlib, time
from finetune.data.cache import build_once
def build(folder):
    (folder / "started").write_text(str(os.getpid()))
    with open(sys.argv[2], "a") as log: log.write("built\\n")
    time.sleep(float(sys.argv[3]))
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
