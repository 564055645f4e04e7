"""Files that would run code when they are read."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from tests.story import LORA, train, write_run
from tests.training.checkpoints.saves import Bomb

from finetune.errors import CheckpointError
from finetune.training.checkpoints.find import resume_step
from finetune.training.checkpoints.manifest import MANIFEST, content, read_manifest, seal
from finetune.training.checkpoints.unpickled import weights_only


def forge(checkpoint: Path) -> None:
    """Write a manifest that fits the files as they are now."""
    manifest = dataclasses.replace(read_manifest(checkpoint), files=seal(content(checkpoint), checkpoint))
    (checkpoint / MANIFEST).write_text(manifest.to_json())


def test_the_bomb_works(tmp_path: Path) -> None:
    torch.save({"state": Bomb(tmp_path / "marker")}, tmp_path / "bomb.pt")
    torch.load(tmp_path / "bomb.pt", weights_only=False)
    assert (tmp_path / "marker").is_dir()


@pytest.mark.parametrize("deepspeed", [False, True])
def test_no_caller_can_unpickle_code(tmp_path: Path, deepspeed: bool) -> None:
    torch.save({"state": Bomb(tmp_path / "marker")}, tmp_path / "bomb.pt")
    with (
        pytest.raises(CheckpointError, match=r"holds more than tensors and plain values.*mkdir"),
        weights_only(deepspeed=deepspeed),
    ):
        torch.load(tmp_path / "bomb.pt", weights_only=False)
    assert not (tmp_path / "marker").exists()


def test_what_the_user_set_for_torch_comes_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"state": torch.ones(2)}, tmp_path / "fine.pt")
    with weights_only():
        assert torch.load(tmp_path / "fine.pt")["state"].sum() == 2
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_a_bomb_in_any_file_that_a_resume_reads_is_found_and_even_forged_does_not_go_off(
    tmp_path: Path, tiny_llama: Path
) -> None:
    """The manifest tells first; an attacker who writes another one meets a reader that runs nothing."""
    config_file = write_run(tmp_path, tiny_llama)
    run = [*LORA, "--max_steps=4", "--save_steps=2", "--evals_per_epoch=null", "--eval_strategy=no"]
    checkpoint = train(config_file, *run) / "checkpoint-2"
    read = ["optimizer.pt", "scheduler.pt", "rng_state.pth"]
    assert {path.name for path in checkpoint.iterdir() if path.suffix in (".pt", ".pth", ".bin", ".pkl")} == set(read)
    resume = [*run, f"--resume_from_checkpoint={checkpoint}", f"--output_dir={tmp_path / 'other'}"]
    manifest = (checkpoint / MANIFEST).read_text()
    for name in read:
        whole = (checkpoint / name).read_bytes()
        torch.save(Bomb(tmp_path / "marker"), checkpoint / name)
        with pytest.raises(CheckpointError, match=f"checkpoint-2 is not a whole checkpoint .*{name}"):
            train(config_file, *resume, replace=True)
        forge(checkpoint)
        with pytest.raises(CheckpointError, match="holds more than tensors and plain values"):
            train(config_file, *resume, replace=True)
        assert not (tmp_path / "marker").exists(), name
        (checkpoint / name).write_bytes(whole)
        (checkpoint / MANIFEST).write_text(manifest)

    train(config_file, *resume, replace=True)
    assert resume_step(tmp_path / "other" / "checkpoint-4") == 4
    assert json.loads((checkpoint / MANIFEST).read_text())["step"] == 2
