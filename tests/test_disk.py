"""Disks that are really full: a small tmpfs in a namespace of its own."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.small_disk import on_small_disk

from finetune.disk import no_room, refuse_small_disk, size_text, storage_fault, writing
from finetune.errors import CheckpointError


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 MB"), (3400, "3 kB"), (12_300_000, "12 MB"), (4.12e9, "4.1 GB"), (2e12, "2,000.0 GB")],
)
def test_sizes_are_short(num_bytes: float, text: str) -> None:
    assert size_text(num_bytes) == text


WRITERS = """
import sys, numpy, pyarrow, tokenizers, torch
from pathlib import Path
from safetensors.torch import save_file
from finetune.disk import writing
from finetune.errors import CheckpointError
folder = Path(sys.argv[1])
values = torch.zeros(1_000_000)
letters = {chr(0x4E00 + n) * 200: n for n in range(8000)}
tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(letters, unk_token="?"))
def arrow():
    table = pyarrow.table({"a": values.numpy()})
    with pyarrow.OSFile(str(folder / "a"), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
writers = {
    "python": lambda: (folder / "a").write_bytes(bytes(4_000_000)),
    "torch": lambda: torch.save(values, folder / "a"),
    "safetensors": lambda: save_file({"a": values}, folder / "a"),
    "numpy": lambda: numpy.save(folder / "a.npy", values.numpy()),
    "arrow": arrow,
    "tokenizers": lambda: tokenizer.save(str(folder / "a")),
}
for name, write in writers.items():
    try:
        with writing(folder, "the weights", "free some space", needed=4_000_000):
            write()
    except CheckpointError as error:
        print(name + str(error).removeprefix(str(folder)))
    for file in folder.iterdir():
        file.unlink()
"""


def test_a_full_disk_is_said_in_one_way_whichever_library_meets_it(tmp_path: Path) -> None:
    told = on_small_disk(tmp_path, 2, [sys.executable, "-c", WRITERS, str(tmp_path / "disk")])

    full = "No space left on device"
    short = "the disk took only a part of a file"
    lines = [
        f"{name} cannot take the weights ({fault}): it needs 4 MB, and {free} MB are free there; free some space"
        for name, fault, free in (
            ("python", full, 0),
            ("torch", short, 0),
            ("safetensors", full, 2),  # it has removed its file by then
            ("numpy", short, 0),
            ("arrow", full, 0),
            ("tokenizers", full, 0),
        )
    ]
    assert told.splitlines() == lines


def test_what_is_no_fault_of_the_disk_goes_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing(tmp_path, "the weights", "free some space"):
        (tmp_path / "absent" / "file").write_text("x")
    with pytest.raises(CheckpointError, match=r"^its own$"), writing(tmp_path, "the weights", "free some space"):
        raise CheckpointError("its own") from OSError(errno.ENOSPC, "full")
    assert storage_fault(RuntimeError("shapes do not fit")) is None


def test_a_fault_is_found_behind_the_exception_that_a_library_made_of_it() -> None:
    error = ValueError("could not save")
    error.__cause__ = OSError(errno.EDQUOT, "quota")
    assert storage_fault(error) == os.strerror(errno.EDQUOT)


def test_a_file_that_may_not_grow_is_a_fault_of_the_disk_too(tmp_path: Path) -> None:
    program = (
        "import resource, sys, pathlib\nfrom finetune.disk import writing\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with writing(pathlib.Path(sys.argv[1]), 'the log', 'set another folder'):\n"
        "    pathlib.Path(sys.argv[1], 'a').write_bytes(bytes(2000))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False, env=os.environ
    )
    assert f"CheckpointError: {tmp_path} cannot take the log (File too large): " in finished.stderr


def test_a_disk_that_is_too_small_is_refused_before_the_work(tmp_path: Path) -> None:
    refuse_small_disk(tmp_path / "new" / "folder", "the result", "set another folder", needed=1)
    with pytest.raises(CheckpointError) as caught:
        refuse_small_disk(tmp_path / "new", "the result", "set another folder", needed=10**18)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'new'} has ")
    assert message.endswith(" free, and the result needs about 1,000,000,000.0 GB; set another folder")


def test_what_is_needed_is_left_out_where_nobody_knows_it(tmp_path: Path) -> None:
    assert "(full): " in str(no_room(tmp_path, "it", "do", "full"))
    assert "needs" not in str(no_room(tmp_path, "it", "do", "full"))
