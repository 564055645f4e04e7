"""What is in a sealed folder, and whether it still is."""

import hashlib
from pathlib import Path

import pytest
from tests.training.checkpoints.saves import FACTS, save

import finetune
from finetune.training.checkpoints.manifest import (
    MANIFEST,
    DamagedError,
    Manifest,
    SealedFile,
    content,
    dealt,
    find_added,
    find_damage,
    installed_versions,
    read_manifest,
    seal,
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "out", 3).path(3)


def test_a_manifest_says_what_the_checkpoint_is_and_what_wrote_it(checkpoint: Path) -> None:
    manifest = read_manifest(checkpoint)

    assert (manifest.step, manifest.facts) == (3, FACTS)
    assert manifest.files["model.safetensors"] == SealedFile(9, hashlib.sha256(b"weights 3").hexdigest())
    assert set(manifest.files) == {path.relative_to(checkpoint).as_posix() for path in content(checkpoint)}
    assert {"finetune", "torch", "transformers", "peft"} <= manifest.versions.keys()
    assert installed_versions()["finetune"] == finetune.__version__
    assert find_damage(checkpoint, manifest) is None


def test_every_damage_to_every_file_is_found_and_named(checkpoint: Path) -> None:
    manifest = read_manifest(checkpoint)
    for name in manifest.files:
        file = checkpoint / name
        whole = file.read_bytes()
        for damaged, fault in (
            (whole[:-1], f"{name} has {len(whole) - 1} bytes instead of {len(whole)}"),
            (bytes([whole[0] ^ 1]) + whole[1:], f"the content of {name} changed"),
            (b"", f"{name} has 0 bytes instead of {len(whole)}"),
        ):
            file.write_bytes(damaged)
            assert find_damage(checkpoint, manifest) == fault
        file.unlink()
        assert find_damage(checkpoint, manifest) == f"{name} is missing"
        file.write_bytes(whole)
    assert find_damage(checkpoint, manifest) is None


def test_any_other_byte_in_the_manifest_is_damage_to_it(checkpoint: Path) -> None:
    whole = (checkpoint / MANIFEST).read_text()
    for place in range(len(whole)):
        changed = whole[:place] + chr(ord(whole[place]) ^ 1) + whole[place + 1 :]
        with pytest.raises(DamagedError, match=r"manifest.json"):
            Manifest.from_json(changed)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "no manifest.json"),
        ("", r"manifest.json is damaged \(JSONDecodeError\)"),
        ("[]", r"manifest.json is damaged \(TypeError\)"),
        ('{"format": 9}', "manifest.json has the format 9, which this version does not know"),
    ],
)
def test_what_is_no_manifest_is_said_to_be_none(checkpoint: Path, text: str | None, fault: str) -> None:
    (checkpoint / MANIFEST).unlink()
    if text is not None:
        (checkpoint / MANIFEST).write_text(text)
    with pytest.raises(DamagedError, match=fault):
        read_manifest(checkpoint)


def test_a_file_that_a_library_would_load_may_not_be_added_and_notes_may(checkpoint: Path) -> None:
    manifest = read_manifest(checkpoint)
    (checkpoint / "notes.txt").write_text("mine")
    assert find_added(checkpoint, manifest) is None

    (checkpoint / "deep" / "pytorch_model.bin").write_text("theirs")
    assert find_added(checkpoint, manifest) == "deep/pytorch_model.bin was added"


def test_several_processes_seal_each_file_once(checkpoint: Path) -> None:
    files = content(checkpoint)
    sealed = [seal(dealt(files, rank, 3), checkpoint) for rank in range(3)]

    assert {name: file for part in sealed for name, file in part.items()} == read_manifest(checkpoint).files
    assert sum(len(part) for part in sealed) == len(files)


def test_a_manifest_comes_back_as_it_was() -> None:
    manifest = Manifest(7, FACTS, {"ä.txt": SealedFile(1, "a")}, {"torch": "2"})
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.num_bytes == 1
