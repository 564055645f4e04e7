"""Hashes that see damage, and writes that last."""

from pathlib import Path

import pytest

from finetune.data.files import file_digest, sync, write_synced


def test_each_byte_of_a_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = bytes(3 * (1 << 20) + 17)
    write_synced(path, content)
    assert path.read_bytes() == content
    digests = {file_digest(path)}
    for place in (0, 1 << 20, len(content) - 1):
        path.write_bytes(content[:place] + b"\1" + content[place + 1 :])
        digests.add(file_digest(path))
    path.write_bytes(content[:-1])
    assert len({*digests, file_digest(path)}) == 5


def test_a_folder_can_be_forced_to_disk_too(tmp_path: Path) -> None:
    sync(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "absent")
