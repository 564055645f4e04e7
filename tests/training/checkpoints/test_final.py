"""The result in the output folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.training.checkpoints.saves import make_store, names, write_part

from finetune.errors import CheckpointError
from finetune.training.checkpoints.final import publish_final
from finetune.training.checkpoints.manifest import MANIFEST, find_damage, read_manifest


def pieces(*files: str, text: str) -> Callable[[Path], None]:
    """Return a writer of several files."""

    def write(folder: Path) -> None:
        for name in files:
            write_part(name, text)(folder)

    return write


def test_a_result_comes_with_its_manifest_beside_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("mine")
    publish_final(make_store(tmp_path), 7, pieces("config.json", "model.safetensors", text="a"))

    manifest = read_manifest(tmp_path)
    assert (manifest.step, set(manifest.files)) == (7, {"config.json", "model.safetensors"})
    assert find_damage(tmp_path, manifest) is None
    assert {path.name for path in tmp_path.iterdir()} == {*manifest.files, MANIFEST, "metrics.jsonl"}


def test_weights_in_other_pieces_take_the_place_of_the_old_ones(tmp_path: Path) -> None:
    """A loader prefers model.safetensors to the pieces: the old weights would pass for the new."""
    (tmp_path / "other.safetensors").write_text("not of this run")
    publish_final(make_store(tmp_path), 7, pieces("model.safetensors", "config.json", text="old"))
    publish_final(make_store(tmp_path), 9, pieces("model-1.safetensors", "config.json", text="new"))

    assert names(tmp_path) == {"model-1.safetensors", "config.json", MANIFEST, "other.safetensors"}
    assert (tmp_path / "config.json").read_text() == "new"


def test_a_result_that_cannot_be_written_leaves_the_old_one_whole(tmp_path: Path) -> None:
    publish_final(make_store(tmp_path), 7, pieces("model.safetensors", text="old"))

    def fail(folder: Path) -> None:
        write_part("model.safetensors", "half")(folder)
        raise OSError(5, "Input/output error")

    with pytest.raises(CheckpointError, match=r"could not be saved \(Input/output error\)\. What was saved before is"):
        publish_final(make_store(tmp_path), 9, fail)
    assert find_damage(tmp_path, read_manifest(tmp_path)) is None
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", MANIFEST}
