"""What prepared data will take, and the refusal before it is tried; the whole way is in test_build.py."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune.config.data import DatasetEntry
from finetune.data.hub import HubTable
from finetune.data.prepare import prepare
from finetune.data.sources import FileSource
from finetune.data.space import estimate_bytes, refuse_full_disk
from finetune.errors import CheckpointError


def test_the_estimate_is_near_what_is_written(tokenizer: Any, make_data: Any, write_rows: Any) -> None:
    path = write_rows({"text": f"A spider has {n} legs and " * (1 + n % 3)} for n in range(5000))
    prepared = prepare(make_data(path, type="completion"), tokenizer, seed=1)
    written = sum(file.stat().st_size for file in prepared.path.glob("*.arrow"))
    source = FileSource("rows", (path,))
    rows = [row for row, _ in zip(source.rows(), range(1000), strict=False)]
    num_tokens = sum(len(sample["input_ids"]) for sample, _ in zip(prepared.train, rows, strict=False))
    assert 0.8 < estimate_bytes(source, rows, num_tokens) / written < 1.1


def test_a_source_of_unknown_size_is_not_estimated() -> None:
    entry = DatasetEntry(path="someone/rows", type="alpaca")
    assert estimate_bytes(HubTable("someone/rows", entry), [({"text": "a"}, "row 1")], 100) == 0


def test_a_folder_without_room_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    refuse_full_disk(tmp_path, 1000)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(CheckpointError) as caught:
        refuse_full_disk(tmp_path, 7_500_000_000_000_000)
    assert str(caught.value).startswith(f"{tmp_path} has {str(free)[:1]}")
    assert str(caught.value).endswith(
        "B free, and the prepared data needs about 7,500,000.0 GB; free some space, or set dataset_prepared_path to "
        "a folder that has room"
    )


def test_a_little_more_than_nothing_is_tried(tmp_path: Path) -> None:
    refuse_full_disk(tmp_path, 10**6)
