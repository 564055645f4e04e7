"""Training itself: layouts of a batch, resuming, the best weights, and what is saved."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tests.story import LORA, PACKED, UNFROZEN, metrics, train, write_run
from tests.tiny import save_tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from finetune.errors import HealthError, ModelError


@pytest.fixture
def config_file(tmp_path: Path, tiny_llama: Path) -> Path:
    return write_run(tmp_path, tiny_llama)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


STOPPING = ["--evals_per_epoch=null", "--eval_steps=2", "--early_stopping_patience=3", "--learning_rate=0.05"]


@pytest.mark.parametrize("step", [3, 11], ids=["first epoch", "second epoch"])
@pytest.mark.parametrize(
    "changes",
    [
        [*LORA, "--lora_dropout=0.1"],
        [*LORA, "--load_in_4bit=true"],
        [*UNFROZEN, *PACKED, "--weight_decay=0.1"],
        ["--group_by_length=true", "--gradient_accumulation_steps=2", "--num_epochs=4"],
        [*LORA, *STOPPING, "--num_epochs=6"],
        [*LORA, "--tokens=[<a>,<b>]"],
    ],
    ids=["lora", "4-bit", "unfrozen packed", "by length", "early stopping", "added tokens"],
)
def test_a_resumed_run_ends_with_the_same_weights(config_file: Path, changes: list[str], step: int) -> None:
    every = ["--save_steps=1", "--save_total_limit=99"]
    whole = train(config_file, *changes, *every, f"--output_dir={config_file.parent / 'whole'}")
    resumed = train(
        config_file,
        *changes,
        *every,
        f"--resume_from_checkpoint={whole / f'checkpoint-{step}'}",
        f"--output_dir={config_file.parent / 'resumed'}",
    )

    assert metrics(resumed, "loss") == metrics(whole, "loss")[step:]
    assert same(weights(resumed), weights(whole))


STREAM = ["--streaming=true", "--val_set_size=0", "--evals_per_epoch=null", "--max_steps=14", "--num_epochs=1"]


@pytest.mark.parametrize("step", [3, 11], ids=["first pass", "second pass"])
@pytest.mark.parametrize("packing", ["true", "false"], ids=["packed", "padded"])
def test_a_resumed_stream_ends_with_the_same_weights(config_file: Path, packing: str, step: int) -> None:
    stream = [*STREAM, f"--sample_packing={packing}", "--streaming_multipack_buffer_size=16", "--sequence_len=64"]
    every = ["--save_steps=1", "--save_total_limit=99", "--gradient_accumulation_steps=2"]
    whole = train(config_file, *stream, *every, f"--output_dir={config_file.parent / 'whole'}")
    resumed = train(
        config_file,
        *stream,
        *every,
        f"--resume_from_checkpoint={whole / f'checkpoint-{step}'}",
        f"--output_dir={config_file.parent / 'resumed'}",
    )

    assert len(metrics(whole, "loss")) == 14
    assert metrics(resumed, "loss") == metrics(whole, "loss")[step:]
    assert same(weights(resumed), weights(whole))


def test_a_stream_that_goes_on_for_longer_goes_on_with_its_next_sequence(config_file: Path) -> None:
    steady = [*STREAM, "--lr_scheduler=constant", "--warmup_steps=0"]
    whole = train(config_file, *steady, f"--output_dir={config_file.parent / 'whole'}")
    train(config_file, *steady, "--max_steps=6")
    train(config_file, *steady, "--auto_resume_from_checkpoints=true")

    assert metrics(config_file.parent / "out", "loss") == metrics(whole, "loss")
    assert same(weights(config_file.parent / "out"), weights(whole))


def test_a_stream_is_validated_on_its_own_rows_and_reported_as_read(config_file: Path) -> None:
    rows = (config_file.parent / "rows.jsonl").read_text().splitlines(keepends=True)
    (config_file.parent / "held.jsonl").write_text("".join(rows[:8]))
    entry = yaml.safe_load(config_file.read_text())["datasets"][0]
    tests = json.dumps([{**entry, "path": str(config_file.parent / "held.jsonl")}])
    out = train(config_file, *STREAM, f"--test_datasets={tests}", "--eval_steps=7", "--eval_table_size=1")

    assert len(metrics(out, "eval_loss")) == 2
    report = json.loads((out / "data_report.json").read_text())
    assert report["streamed"] is True
    assert report["sources"][0]["rows_read"] == 80  # 56 samples were trained: the forty rows, and again
    card = (out / "README.md").read_text()
    assert "- training_steps: 14" in card
    assert not list((config_file.parent / "prepared").glob("*/rows*"))
    assert len([path for path in (config_file.parent / "prepared").iterdir() if path.is_dir()]) == 1


def test_a_finished_run_is_finished_when_it_is_resumed(config_file: Path) -> None:
    out = train(config_file, *LORA, "--max_steps=5", "--lr_scheduler=constant", "--warmup_steps=0")
    before = weights(out)

    train(
        config_file,
        *LORA,
        "--max_steps=5",
        "--lr_scheduler=constant",
        "--warmup_steps=0",
        "--auto_resume_from_checkpoints=true",
    )

    assert same(weights(out), before)
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-5"]


def test_the_best_weights_come_back_and_patience_ends_the_run(config_file: Path) -> None:
    out = train(
        config_file,
        *LORA,
        "--learning_rate=0.5",
        "--num_epochs=6",
        "--evals_per_epoch=null",
        "--eval_steps=2",
        "--save_steps=3",
        "--early_stopping_patience=2",
        "--load_best_model_at_end=true",
        "--lr_scheduler=constant",
        "--warmup_steps=0",
    )

    *losses, final = metrics(out, "eval_loss")
    best = losses.index(min(losses))
    assert len(losses) < 24
    assert best < len(losses) - 1, "the last weights are the best, so this shows nothing"
    assert final == pytest.approx(min(losses), rel=1e-6)
    assert same(weights(out), weights(out / f"checkpoint-{2 * (best + 1)}"))
    assert f"- Loss: {final:.4f}" in (out / "README.md").read_text()


@pytest.mark.parametrize("method", [[], LORA, ["--sample_packing=true"]], ids=["full", "lora", "packed"])
def test_the_layout_of_a_batch_changes_nothing(config_file: Path, method: list[str]) -> None:
    """One global batch of 8 as 8x1, 4x2, 2x4 and 1x8: the same losses and gradient norms, ragged lengths included."""
    runs = []
    for micro, accumulation in ((8, 1), (4, 2), (2, 4), (1, 8)):
        out = train(
            config_file,
            *method,
            f"--micro_batch_size={micro}",
            f"--gradient_accumulation_steps={accumulation}",
            "--max_steps=3",
            "--sequence_len=64",
            "--optimizer=sgd",
            f"--output_dir={config_file.parent / f'{micro}x{accumulation}'}",
        )
        runs.append(metrics(out, "loss") + metrics(out, "grad_norm"))

    for other in runs[1:]:
        assert other == pytest.approx(runs[0], rel=1e-5)


def test_a_model_with_a_new_end_token_stops_at_it(config_file: Path) -> None:
    out = train(config_file, "--special_tokens.eos_token=<|im_end|>", "--max_steps=1")

    end = AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("<|im_end|>")
    assert AutoModelForCausalLM.from_pretrained(out).config.eos_token_id == end
    assert GenerationConfig.from_pretrained(out).eos_token_id == [end, 1]


def test_an_adapter_comes_with_its_end_token_too(config_file: Path) -> None:
    out = train(config_file, *LORA, "--special_tokens.eos_token=<|im_end|>", "--max_steps=1")

    assert GenerationConfig.from_pretrained(out).eos_token_id == [4, 1]


@pytest.mark.parametrize("compute", ["true", "false"], ids=["bf16", "fp32"])
def test_frozen_weights_are_saved_as_they_were(tmp_path: Path, compute: str) -> None:
    base = save_tiny_llama(tmp_path / "base", dtype=torch.bfloat16)
    config_file = write_run(tmp_path, base)

    out = train(config_file, "--unfrozen_parameters=[mlp]", f"--bf16={compute}", "--max_steps=2")

    before, after = weights(base), weights(out)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {n for n in before if "mlp" in n}
    assert {name: tensor.dtype for name, tensor in after.items()} == {n: t.dtype for n, t in before.items()}


def test_frozen_weights_of_a_float32_base_are_not_rounded_by_bf16(config_file: Path, tiny_llama: Path) -> None:
    out = train(config_file, "--unfrozen_parameters=[mlp]", "--bf16=true", "--max_steps=2")

    before, after = weights(tiny_llama), weights(out)
    assert all(torch.equal(before[name], after[name]) for name in before if "mlp" not in name)


def test_tied_embeddings_are_written_once(tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", tie=True)

    out = train(write_run(tmp_path, base), "--max_steps=1")

    assert weights(out).keys() == weights(base).keys()


def test_all_that_trains_is_held_in_float32(tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", dtype=torch.bfloat16)
    changes = [*LORA, "--lora_modules_to_save=[lm_head]", "--bf16=true", "--max_steps=1"]

    out = train(write_run(tmp_path, base), *changes)

    assert {tensor.dtype for tensor in weights(out).values()} == {torch.float32}


def test_a_base_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base")
    kept = {name: tensor for name, tensor in weights(base).items() if "layers.1.mlp.up_proj" not in name}
    save_file(kept, base / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(
        ModelError, match=r"no tensor model\.layers\.1\.mlp\.up_proj\.weight, which would start at random"
    ):
        train(write_run(tmp_path, base))


def test_a_loss_that_is_not_finite_stops_before_anything_is_saved(tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base")
    damaged = weights(base)
    damaged["model.norm.weight"][0] = float("nan")
    save_file(damaged, base / "model.safetensors", metadata={"format": "pt"})
    config_file = write_run(tmp_path, base)

    with pytest.raises(HealthError, match="step 1: the loss is nan; the step was not taken"):
        train(config_file, *LORA, "--logging_steps=500", "--save_steps=1")
    assert not list((tmp_path / "out").glob("*.safetensors"))
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_a_checkpoint_has_all_that_a_base_model_needs(config_file: Path) -> None:
    out = train(config_file, "--max_steps=1")

    names = {path.name for path in (out / "checkpoint-1").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert json.loads((out / "checkpoint-1" / "trainer_state.json").read_text())["global_step"] == 1
