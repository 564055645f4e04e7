"""The same name with other weights is another model."""

from pathlib import Path

from finetune.model.base import BaseModelSource
from finetune.model.identity import WHOLE, base_identity, sample_digest


def source(folder: Path) -> BaseModelSource:
    return BaseModelSource(str(folder), None, is_local=True)


def test_each_file_of_a_folder_has_a_digest_and_a_copy_has_the_same(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"1234")
        (tmp_path / name / "README.md").write_text(name)

    found = base_identity(source(tmp_path / "here"))
    assert list(found) == ["config.json", "model.safetensors"]
    assert base_identity(source(tmp_path / "there")) == found
    (tmp_path / "there" / "model.safetensors").write_bytes(b"1235")
    assert base_identity(source(tmp_path / "there")) != found


def test_a_large_file_is_read_at_both_ends_and_between(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    digests = []
    for place in (None, 0, WHOLE // 2 + 3_000, WHOLE + 4_999):
        with file.open("wb") as handle:
            handle.truncate(WHOLE + 5_000)
            if place is not None:
                handle.seek(place)
                handle.write(b"x" * min(1_000_000, WHOLE + 5_000 - place))
        digests.append(sample_digest(file))
    assert len(set(digests)) == 4
    file.write_bytes(b"")
    assert sample_digest(file) not in digests


def test_a_model_that_is_not_in_the_cache_has_no_identity_yet() -> None:
    assert base_identity(BaseModelSource("nobody/nothing", None, is_local=False)) == {}
