"""Parts that are finished one by one: a stop loses one at most, and nodes that share them make the same folder."""

import itertools
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from finetune.config.data import DataSection
from finetune.data.parts import FOLDER, Shard
from finetune.data.prepare import PreparedData, open_builders, prepare, prepare_shard

PART_ROWS = 1000
SEED = 42

FORMAT = """
import os, signal
from finetune.data.segments import Piece, Segment
def rows(row):
    with open(os.environ["ROW_LOG"], "a") as log:
        log.write(row["text"] + "\\n")
    fuse = os.environ["ROW_FUSE"]
    if os.path.exists(fuse) and row["text"] == "2500":
        number = int(open(fuse).read())
        os.unlink(fuse)
        signal.raise_signal(number)
    return [Piece((Segment(row["text"], True),))]
"""

Files = Callable[..., list[Path]]


@pytest.fixture
def row_files(tmp_path: Path) -> Files:
    """Write files of numbered rows; unless told otherwise some are dropped as empty."""

    def write(*sizes: int, empty: bool = True) -> list[Path]:
        paths = [tmp_path / f"rows-{index}.jsonl" for index in range(len(sizes))]
        for index, (path, size) in enumerate(zip(paths, sizes, strict=True)):
            texts = ("" if n % 700 == 3 and empty else f"{'ab' * index}{n}" for n in range(size))
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return paths

    return write


def run(data: DataSection, tokenizer: Any, folder: Path) -> PreparedData:
    moved = data.model_copy(update={"dataset_prepared_path": str(folder)})
    return prepare(moved, tokenizer, seed=SEED, part_rows=PART_ROWS)


def share(data: DataSection, tokenizer: Any, folder: Path, number: int, count: int) -> list[tuple[int, int]]:
    moved = data.model_copy(update={"dataset_prepared_path": str(folder)})
    builders = open_builders(moved, tokenizer, seed=SEED, part_rows=PART_ROWS)
    return [(work.num_parts, work.num_missing) for work in prepare_shard(builders, Shard(number, count))]


def files_of(entry: Path) -> dict[str, bytes]:
    return {path.relative_to(entry).as_posix(): path.read_bytes() for path in entry.rglob("*") if path.is_file()}


def rows_in(log: Path) -> list[str]:
    """Return the rows that were tokenized, in the order of the data; some are looked at twice to choose an encoder."""
    rows = {row for row in log.read_text().splitlines() if row}
    return sorted(rows, key=int)


def rows_of(data: DataSection) -> list[str]:
    """Return the rows of the data's one file."""
    return [json.loads(line)["text"] for line in Path(data.datasets[0].path).read_text().splitlines()]


def in_child(work: Callable[[], Any]) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.fixture
def logged(
    tmp_path: Path, make_data: Any, row_files: Files, monkeypatch: pytest.MonkeyPatch
) -> tuple[DataSection, Path, Path]:
    """Return data whose format writes each row it reads to a log, the log, and the file that makes it stop itself."""
    (tmp_path / "logging_format.py").write_text(FORMAT)
    monkeypatch.syspath_prepend(str(tmp_path))
    log, fuse = tmp_path / "log", tmp_path / "fuse"
    monkeypatch.setenv("ROW_LOG", str(log))
    monkeypatch.setenv("ROW_FUSE", str(fuse))
    return make_data(*row_files(3600, empty=False), type="logging_format:rows"), log, fuse


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_build_that_is_stopped_redoes_one_part_at_most(
    tokenizer: PreTrainedTokenizerFast, logged: tuple[DataSection, Path, Path], tmp_path: Path, number: int
) -> None:
    data, log, fuse = logged
    whole = run(data, tokenizer, tmp_path / "whole")
    log.unlink()
    fuse.write_text(str(int(number)))
    root = tmp_path / "stopped"
    assert in_child(lambda: run(data, tokenizer, root)) not in (0, None)
    assert [path.name for path in root.iterdir() if path.is_dir()] == [f".building-{whole.path.name}"]
    log.unlink()

    again = run(data, tokenizer, root)
    assert rows_in(log) == rows_of(data)[2000:], "the first two parts were there"
    assert again.notes == ("datasets: 2 of 4 parts were there from before and were used",)
    assert files_of(again.path) == files_of(whole.path)


def test_a_part_that_was_damaged_meanwhile_is_made_again(
    tokenizer: PreTrainedTokenizerFast, logged: tuple[DataSection, Path, Path], tmp_path: Path
) -> None:
    data, log, fuse = logged
    whole = run(data, tokenizer, tmp_path / "whole")
    fuse.write_text(str(int(signal.SIGKILL)))
    root = tmp_path / "stopped"
    in_child(lambda: run(data, tokenizer, root))
    staging = root / f".building-{whole.path.name}"
    part = staging / "data-000-00001.arrow"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    receipt = staging / FOLDER / "000-00000.json"
    receipt.write_bytes(receipt.read_bytes()[:-1])
    log.unlink()

    again = run(data, tokenizer, root)
    assert rows_in(log) == rows_of(data)
    assert again.notes == ()
    assert files_of(again.path) == files_of(whole.path)


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
@pytest.mark.parametrize("merged", [False, True], ids=["one source", "merged and shuffled"])
def test_shards_in_any_order_make_the_folder_that_one_process_makes(
    tokenizer: PreTrainedTokenizerFast,
    make_data: Any,
    row_files: Files,
    tmp_path: Path,
    order: tuple[int, ...],
    merged: bool,
) -> None:
    sizes = (1000, 1400) if merged else (3100,)
    data = make_data(*row_files(*sizes), type="completion", val_set_size=0.1)
    whole = run(data, tokenizer, tmp_path / "whole")
    root = tmp_path / "shared"
    missing = [share(data, tokenizer, root, number, 3)[0][1] for number in order]
    assert missing[0] > missing[1] > missing[2] == 0
    assert not (root / whole.path.name).exists()
    joined = run(data, tokenizer, root)
    assert joined.path.name == whole.path.name
    assert files_of(joined.path) == files_of(whole.path)
    assert joined.report == whole.report
    assert share(data, tokenizer, root, 1, 3) == [(0, 0)], "there is nothing left to do"


def test_shards_at_the_same_time_share_the_work(
    tokenizer: PreTrainedTokenizerFast, logged: tuple[DataSection, Path, Path], tmp_path: Path
) -> None:
    data, log, _ = logged
    context = multiprocessing.get_context("fork")
    root = tmp_path / "shared"
    nodes = [context.Process(target=share, args=(data, tokenizer, root, number, 3)) for number in (1, 2, 3)]
    for node in nodes:
        node.start()
    for node in nodes:
        node.join(60)
    assert rows_in(log) == rows_of(data)
    log.unlink()
    joined = run(data, tokenizer, root)
    assert not log.exists(), "joining tokenizes nothing"
    assert files_of(joined.path) == files_of(run(data, tokenizer, tmp_path / "whole").path)


def test_a_run_without_shards_makes_what_a_missing_node_left(
    tokenizer: PreTrainedTokenizerFast, logged: tuple[DataSection, Path, Path], tmp_path: Path
) -> None:
    data, log, _ = logged
    assert share(data, tokenizer, tmp_path / "shared", 1, 2) == [(4, 2)]
    log.unlink()
    joined = run(data, tokenizer, tmp_path / "shared")
    assert rows_in(log) == [*rows_of(data)[1000:2000], *rows_of(data)[3000:]]
    assert joined.notes == ("datasets: 2 of 4 parts were there from before and were used",)


IN_A_SMALL_DISK = """
import sys
from transformers import PreTrainedTokenizerFast
from finetune.config.data import DataSection
from finetune.data.prepare import prepare
from finetune.errors import CheckpointError
rows, folder, tokenizer = sys.argv[1:]
data = DataSection(
    datasets=[{"path": rows, "type": "completion"}],
    dataset_prepared_path=folder, eval_sample_packing=False, pad_to_sequence_len=False,
)
try: prepare(data, PreTrainedTokenizerFast.from_pretrained(tokenizer), seed=1)
except CheckpointError as error: print(error)
"""


def test_a_disk_without_room_is_refused_before_the_work(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    rows, disk = tmp_path / "rows.jsonl", tmp_path / "disk"
    rows.write_text(json.dumps({"text": "a row of some words " * 5}) + "\n" + '{"text": "another"}\n' * 250_000)
    disk.mkdir()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    mount = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o size=1m none "$0" && "$@"',
    ]
    if subprocess.run([*mount, disk, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    words = [sys.executable, "-c", IN_A_SMALL_DISK, rows, disk / "prepared", tmp_path / "tokenizer"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*mount, disk, *words], env=environment, capture_output=True, text=True, check=False)
    said = f"{re.escape(str(disk / 'prepared'))} has 1 MB free, and the prepared data needs about "
    assert re.search(said + r"[2-9]\d MB", done.stdout), done.stderr  # the places of the rows are part of it
