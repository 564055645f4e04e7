"""Whole runs on the checkpoint layer: what a person meets who starts the same command again."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.story import LORA, metrics, train, write_run
from tests.training.checkpoints.saves import OTHER, RUN, save

from finetune.errors import CheckpointError, ConfigError
from finetune.training.checkpoints.find import verify
from finetune.training.checkpoints.manifest import find_damage, read_manifest
from finetune.training.checkpoints.names import staging_of
from finetune.training.checkpoints.run import RUN_ID, read_run_id

SHORT = [*LORA, "--max_steps=6", "--save_steps=2", "--evals_per_epoch=null", "--eval_strategy=no"]
RESUME = "--auto_resume_from_checkpoints=true"


@pytest.fixture
def config_file(tmp_path: Path, tiny_llama: Path) -> Path:
    return write_run(tmp_path, tiny_llama)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def flip(file: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_run_leaves_sealed_checkpoints_and_a_sealed_result_of_one_id(config_file: Path) -> None:
    out = train(config_file, *SHORT)

    run = read_run_id(out)
    assert {verify(out / f"checkpoint-{step}").facts.run for step in (2, 4, 6)} == {run}
    result = read_manifest(out)
    assert (result.step, result.facts.run, find_damage(out, result)) == (6, run, None)
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= result.files.keys()
    assert "learning_rate: 0.01" in result.facts.config
    assert result.facts.data_digest == json.loads((out / "data_report.json").read_text())["digest"]
    assert {path.name for path in out.iterdir() if path.name.startswith(".")} == {".lock", RUN_ID}


def test_after_damage_the_run_goes_on_from_the_checkpoint_before_and_ends_the_same(config_file: Path) -> None:
    out = train(config_file, *SHORT)
    whole, losses = weights(out), metrics(out, "loss")
    flip(out / "checkpoint-6" / "optimizer.pt")

    train(config_file, *SHORT, RESUME)

    assert metrics(out, "loss") == losses
    assert all(torch.equal(tensor, whole[name]) for name, tensor in weights(out).items())
    assert verify(out / "checkpoint-6").step == 6
    assert (out / "checkpoint-6.set-aside-1").is_dir()


def test_a_checkpoint_is_compared_with_its_own_record_wherever_it_lies(config_file: Path) -> None:
    out = train(config_file, *SHORT)
    (out / "checkpoint-4").rename(config_file.parent / "kept")

    changed = [*SHORT, f"--resume_from_checkpoint={config_file.parent / 'kept'}", "--learning_rate=0.5"]
    with pytest.raises(ConfigError, match=r"kept belongs to a run with other values, .*\n  learning_rate: 0.01 -> 0.5"):
        train(config_file, *changed, f"--output_dir={config_file.parent / 'new'}")


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over_with_resume(config_file: Path) -> None:
    out = config_file.parent / "out"
    staged = staging_of(out, "2", RUN)
    staged.mkdir(parents=True)
    (staged / "model.safetensors").write_text("half")
    (out / RUN_ID).write_text(RUN)
    (out / "metrics.jsonl").write_text('{"step": 1, "loss": 9.0}\n')

    with pytest.raises(ConfigError, match="holds another run"):
        train(config_file, *SHORT)
    train(config_file, *SHORT, RESUME)

    assert len(metrics(out, "loss")) == 6
    assert read_run_id(out) == RUN
    assert not staged.exists()


def test_a_foreign_checkpoint_in_the_way_is_found_before_the_first_step(config_file: Path) -> None:
    out = train(config_file, *SHORT, "--max_steps=2", "--lr_scheduler=constant", "--warmup_steps=0")
    save(out, 4, run=OTHER)

    steady = [*SHORT, "--lr_scheduler=constant", "--warmup_steps=0"]
    with pytest.raises(CheckpointError, match=r"checkpoint-4 is there and was not written by this run"):
        train(config_file, *steady, RESUME)
    assert len(metrics(out, "loss")) == 2
    assert (out / "checkpoint-4" / "optimizer.pt").read_text() == "moments 4"


def test_best_weights_that_were_damaged_are_not_loaded(config_file: Path) -> None:
    evaluated = [*LORA, "--max_steps=4", "--evals_per_epoch=null", "--eval_steps=2", "--load_best_model_at_end=true"]
    out = train(config_file, *evaluated)
    assert (out / "best").resolve().name == "checkpoint-4"
    assert all(torch.equal(a, weights(out)[name]) for name, a in weights(out / "best").items())

    state = json.loads((out / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(out / "checkpoint-4")
    flip(out / "checkpoint-2" / "adapter_model.safetensors")
    worse = [*evaluated, "--learning_rate=0.9", "--warmup_steps=0", "--lr_scheduler=constant", "--eval_steps=1"]
    out = train(config_file, *worse, f"--output_dir={config_file.parent / 'worse'}")
    best = (out / "best").resolve()
    assert best.name != "checkpoint-4", "the last weights are the best, so this shows nothing"
    flip(best / "adapter_model.safetensors")
    with pytest.raises(
        CheckpointError, match=rf"load_best_model_at_end: .*{best.name} has the best weights and is not whole .*content"
    ):
        train(config_file, *worse, f"--output_dir={out}", RESUME)
