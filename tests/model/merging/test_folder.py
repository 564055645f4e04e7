"""The folder appears whole or not at all, and never over somebody's work."""

import sys
from pathlib import Path

import pytest
from tests.small_disk import on_small_disk

from finetune.errors import CheckpointError
from finetune.model.merging.folder import REPORT, published, refuse_existing


def test_a_folder_appears_when_it_is_finished(tmp_path: Path) -> None:
    with published(tmp_path / "a" / "merged", overwrite=False) as staging:
        (staging / "file").write_text("x")
        assert not (tmp_path / "a" / "merged").exists()

    assert [path.name for path in (tmp_path / "a").iterdir()] == ["merged"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), published(tmp_path / "merged", overwrite=False) as staging:
        (staging / "file").write_text(str(1 // 0))

    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()

    with published(tmp_path / "merged", overwrite=False) as staging:
        (staging / "file").write_text("x")

    assert (tmp_path / "merged" / "file").is_file()


def test_an_earlier_merge_is_replaced_on_request_only(tmp_path: Path) -> None:
    folder = tmp_path / "merged"
    folder.mkdir()
    (folder / REPORT).write_text("{}")
    (folder / "old").write_text("x")

    with pytest.raises(CheckpointError, match="exists already; give --overwrite to replace it"):
        refuse_existing(folder, overwrite=False)
    with pytest.raises(ZeroDivisionError), published(folder, overwrite=True) as staging:
        (staging / "file").write_text(str(1 // 0))
    assert (folder / "old").is_file()
    with published(folder, overwrite=True) as staging:
        (staging / REPORT).write_text("{}")

    assert [path.name for path in folder.iterdir()] == [REPORT]
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_a_folder_that_no_merge_made_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")

    with pytest.raises(CheckpointError, match="exists already and was not made by merge-lora; move it away or"):
        refuse_existing(tmp_path, overwrite=True)
    with pytest.raises(CheckpointError, match=r"thesis\.tex is a file; give another --output"):
        refuse_existing(tmp_path / "thesis.tex", overwrite=True)


FULL = """
import sys
from pathlib import Path
from finetune.errors import CheckpointError
from finetune.model.merging.folder import published
folder = Path(sys.argv[1], "merged")
try:
    with published(folder, overwrite=False) as staging:
        (staging / "weights").write_bytes(bytes(3_000_000))
except CheckpointError as error:
    print(error)
print(list(folder.parent.iterdir()))
"""


def test_a_disk_that_fills_leaves_no_folder_and_is_named(tmp_path: Path) -> None:
    told = on_small_disk(tmp_path, 2, [sys.executable, "-c", FULL, str(tmp_path / "disk")])
    assert told.splitlines() == [
        f"{tmp_path}/disk/merged cannot take the merged model (No space left on device): 0 MB are free there; "
        "free some space, or give another --output",
        "[]",
    ]
