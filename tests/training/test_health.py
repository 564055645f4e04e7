"""Numbers that are not finite, made by weights and rows that really give them, end a run before they spread."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.story import LORA, PACKED, metrics, train, write_run
from tests.tiny import save_tiny_llama, tiny_tokenizer
from tests.training.checkpoints.saves import make_store
from tests.training.sections import ALONE
from transformers import LlamaForCausalLM, TrainerControl, TrainerState, TrainingArguments

from finetune.data.collate import PaddedCollator, SupervisedCollator
from finetune.errors import HealthError
from finetune.model.precision import Precision
from finetune.training.health import MAX_SKIPPED, HealthCallback
from finetune.training.trainer import CausalTrainer

EVERY_STEP = ["--save_steps=1", "--save_total_limit=99"]


def change_weights(base: Path, name: str, place: Any, value: float) -> None:
    """Set a part of a tensor of a saved model."""
    weights = load_file(base / "model.safetensors")
    weights[name][place] = value
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    """A run whose base cannot read "@", which the row in line 12 has; every epoch is eight steps."""
    base = save_tiny_llama(tmp_path / "base")
    (token,) = tiny_tokenizer().encode("@", add_special_tokens=False)
    change_weights(base, "model.embed_tokens.weight", token, math.nan)
    config = write_run(tmp_path, base)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    lines[11] = json.dumps({"instruction": "Capital @ home?", "output": "Bergen."})
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return config


@pytest.mark.parametrize("layout", [(), tuple(PACKED)], ids=["padded", "packed"])
def test_the_row_is_named_with_its_place_and_its_text(poisoned: Path, layout: tuple[str, ...]) -> None:
    with pytest.raises(HealthError) as caught:
        train(
            poisoned,
            *LORA,
            *layout,
            *EVERY_STEP,
            "--learning_rate=0.0125",
            "--lr_scheduler=constant",
            "--warmup_steps=0",
        )

    first, named, row, others, advice = str(caught.value).splitlines()
    step = int(re.match(r"step (\d+): the loss is not finite; the step was not taken\. ", first)[1])
    assert step > 1, "the row comes first with this seed: take another, for a checkpoint to be there"
    assert first.endswith(f"The last checkpoint is {poisoned.parent / 'out' / f'checkpoint-{step - 1}'}.")
    assert named == "  rows of the step that give it by themselves:"
    assert row == f"    {poisoned.parent}/rows.jsonl:12: loss nan: '<s>Capital @ home? Bergen.</s>'"
    assert re.fullmatch(r"  the other \d+ have losses from \d\.\d+ to \d\.\d+", others)
    assert re.search(r"lower learning_rate \(0\.0125 in this step\), or add warmup_steps$", advice)
    checkpoints = sorted((poisoned.parent / "out").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    assert checkpoints[-1].name == f"checkpoint-{step - 1}"
    for checkpoint in checkpoints:
        weights = load_file(checkpoint / "adapter_model.safetensors")
        assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert not list((poisoned.parent / "out").glob("*.safetensors"))


def test_a_fault_that_every_row_shows_is_in_the_weights(tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base")
    change_weights(base, "model.norm.weight", 0, math.inf)

    with pytest.raises(HealthError) as caught:
        train(write_run(tmp_path, base), *LORA, "--save_steps=1")

    lines = str(caught.value).splitlines()
    assert lines[0] == "step 1: the loss is not finite; the step was not taken. There is no checkpoint yet."
    assert lines[1] == "  every row of the step gives it by itself, so it is in the weights and not in a row:"
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    """A head of huge numbers behind a norm of tiny ones: the loss is large, the gradient too large for a float."""
    base = save_tiny_llama(tmp_path / "base")
    change_weights(base, "model.embed_tokens.weight", slice(None), 1e-5)
    change_weights(base, "lm_head.weight", (slice(0, None, 2), 0), 1e36)
    change_weights(base, "lm_head.weight", (slice(1, None, 2), 0), -1e36)

    with pytest.raises(HealthError) as caught:
        train(write_run(tmp_path, base), *LORA, "--save_steps=1")

    lines = str(caught.value).splitlines()
    assert re.match(
        r"step 1: the gradient norm is (nan|inf), and every loss is finite; the step was not taken", lines[0]
    )
    assert re.search(r"rows\.jsonl:\d+: loss \d[\d.e+]*, gradient norm (nan|inf): '<s>Capital of ", lines[2])


def test_an_update_that_breaks_the_weights_is_not_saved(tmp_path: Path, tiny_llama: Path) -> None:
    with pytest.raises(HealthError) as caught:
        train(
            write_run(tmp_path, tiny_llama),
            *("--learning_rate=1", "--weight_decay=1e39", "--max_grad_norm=0", "--warmup_steps=0", "--save_steps=1"),
            "--lr_scheduler=constant",
            "--evals_per_epoch=null",
        )
    start = "step 1: the update has made weights that are not finite (model.embed_tokens.weight and 15 more); they are "
    assert str(caught.value).startswith(start + "not saved. There is no checkpoint yet. Lower learning_rate (")
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def trainer(model: LlamaForCausalLM, folder: Path) -> CausalTrainer:
    collator = SupervisedCollator(PaddedCollator(pad_token_id=2, sequence_len=64))
    return CausalTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), use_cpu=True, report_to=[]),
        train_dataset=[],
        data_collator=collator,
        validation_collator=collator,
        training_sampler=None,
        store=make_store(folder),
        processing_class=tiny_tokenizer(),
    )


@pytest.fixture
def callback(tmp_path: Path, tiny_llama: Path) -> HealthCallback:
    """A callback of a run that went on from a checkpoint, with a trainer that takes no step by itself."""
    made = trainer(LlamaForCausalLM.from_pretrained(tiny_llama), tmp_path)
    return HealthCallback(ALONE, made, Precision(torch.float32), tmp_path / "checkpoint-3")


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_reaches_every_gradient(callback: HealthCallback, value: float, fp16: bool) -> None:
    made = callback.trainer
    made.args.fp16 = fp16
    weight = made.model.model.norm.weight
    ids = np.arange(10, 30, dtype=np.int32)
    made.record.begin()
    made.record.take(made.data_collator([{"input_ids": ids, "labels": ids}]))
    made.record.spread((weight * torch.tensor([value, *[1.0] * 31])).sum()).backward()

    assert weight.grad.isnan().all()
    with pytest.raises(HealthError, match=r"step 1: the loss is not finite; .* The last checkpoint is .*-3\."):
        callback.on_pre_optimizer_step(made.args, TrainerState(), TrainerControl())


def test_a_finite_loss_keeps_every_bit_of_its_gradient(callback: HealthCallback) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1000, generator=generator)
    plain, watched = (torch.ones(1000, requires_grad=True) for _ in range(2))
    (plain * values).sum().backward()
    callback.trainer.record.spread((watched * values).sum()).backward()
    assert plain.grad is not None
    assert watched.grad is not None
    assert torch.equal(plain.grad, watched.grad)


def test_float16_may_skip_steps_but_not_for_ever(callback: HealthCallback) -> None:
    for step in range(MAX_SKIPPED - 1):
        callback.count_skipped(step, skipped=True)
    callback.count_skipped(MAX_SKIPPED, skipped=False)
    for step in range(MAX_SKIPPED - 1):
        callback.count_skipped(step, skipped=True)
    with pytest.raises(HealthError) as caught:
        callback.count_skipped(40, skipped=True)
    assert str(caught.value).startswith(
        "step 40: float16 overflowed in 15 steps in a row, and none of them was taken. The last checkpoint is "
    )
    assert str(caught.value).endswith("Use bf16: true in place of fp16, or lower learning_rate")


def test_float16_leaves_gradients_to_its_scaler(callback: HealthCallback) -> None:
    made = callback.trainer
    made.args.fp16 = True
    made.model.lm_head.weight.grad = torch.full_like(made.model.lm_head.weight, math.inf)
    callback.on_pre_optimizer_step(made.args, TrainerState(), TrainerControl())


def test_a_validation_loss_that_is_not_finite_is_said(callback: HealthCallback) -> None:
    with pytest.raises(HealthError, match="step 5: the validation loss is nan; the weights are damaged, or"):
        callback.on_evaluate(
            callback.trainer.args, TrainerState(global_step=5), TrainerControl(), metrics={"eval_loss": math.nan}
        )


def test_what_was_saved_last_is_named(callback: HealthCallback, tmp_path: Path) -> None:
    arguments: Any = callback.trainer.args
    callback.on_save(arguments, TrainerState(global_step=8), TrainerControl())
    with pytest.raises(HealthError, match=rf"The last checkpoint is {tmp_path}/checkpoint-8\."):
        callback.on_evaluate(arguments, TrainerState(), TrainerControl(), metrics={"eval_loss": math.inf})


def test_a_gradient_of_zero_is_refused_at_the_first_step_alone(callback: HealthCallback) -> None:
    made = callback.trainer
    weight = made.model.lm_head.weight
    weight.grad = torch.zeros_like(weight)
    with pytest.raises(HealthError, match="step 1: the gradient is zero everywhere, so nothing would be learned: no "):
        callback.on_pre_optimizer_step(made.args, TrainerState(), TrainerControl())
    weight.grad = torch.ones_like(weight)
    callback.on_pre_optimizer_step(made.args, TrainerState(), TrainerControl())
    weight.grad = torch.zeros_like(weight)
    callback.on_pre_optimizer_step(made.args, TrainerState(global_step=1), TrainerControl())


@pytest.mark.parametrize("num_rows", [1, 3])
def test_fewer_rows_than_a_batch_are_trained_as_they_are(tmp_path: Path, tiny_llama: Path, num_rows: int) -> None:
    config = write_run(tmp_path, tiny_llama)
    rows = (tmp_path / "rows.jsonl").read_text().splitlines(keepends=True)[:num_rows]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    steady = ["--val_set_size=0", "--evals_per_epoch=null", "--warmup_steps=0", "--num_epochs=2"]
    whole = train(config, *steady, "--gradient_accumulation_steps=8", f"--output_dir={tmp_path / 'whole'}")
    exact = train(config, *steady, f"--micro_batch_size={num_rows}", f"--output_dir={tmp_path / 'exact'}")

    assert len(metrics(whole, "loss")) == 2
    assert metrics(whole, "loss") == pytest.approx(metrics(exact, "loss"), rel=1e-6)
    assert metrics(whole, "loss")[1] < metrics(whole, "loss")[0]
