"""Tokens, time and utilization beside every logged loss."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, TrainerControl, TrainerState, TrainingArguments

from finetune.data.collate import PackedCollator, PaddedCollator, SupervisedCollator
from finetune.model.attention import Attention
from finetune.model.build import Hardware, TrainableModel
from finetune.model.precision import Precision
from finetune.model.stored import StoredFormat
from finetune.model.summary import summarize_parameters
from finetune.training.throughput import Meter, Tally, ThroughputCallback, Work, build_meter, count_work


def sample(length: int, trained: int) -> dict[str, np.ndarray]:
    ids = np.arange(1, length + 1, dtype=np.int32)
    return {"input_ids": ids, "labels": np.where(ids > length - trained, ids, -100)}


def trainable(model: torch.nn.Module) -> TrainableModel:
    hardware = Hardware(Precision(torch.float32), Attention("sdpa", flatten=False))
    return TrainableModel(model, hardware, summarize_parameters(model), (), None, StoredFormat(torch.float32, {}), None)


@pytest.mark.parametrize("packed", [False, True])
def test_tokens_are_counted_without_padding_and_trained_ones_as_the_loss_has_them(packed: bool) -> None:
    samples = [sample(7, 3), sample(4, 2)]
    collator = PackedCollator(0, 32) if packed else PaddedCollator(0, 32)
    batch = SupervisedCollator(collator)([samples] if packed else samples)
    meter = Meter()

    meter.ask()
    meter.take([batch, batch])
    meter.end_step()

    assert (meter.whole.steps, meter.whole.tokens, meter.whole.trained) == (1, 22, 10)
    assert meter.whole.squares == 2 * (49 + 16)
    assert 0 < meter.whole.data_seconds <= meter.whole.seconds


def test_the_rate_is_of_all_processes_and_leaves_out_what_is_between_the_steps() -> None:
    meter = Meter(num_processes=4)
    for _ in range(2):
        meter.ask()
        meter.take([SupervisedCollator(PaddedCollator(0, 32))([sample(10, 5)])])
        meter.end_step()
        time.sleep(0.05)  # an evaluation

    speed = meter.rate(meter.now)

    assert speed is not None
    assert speed.step_time < 0.05
    assert speed.tokens_per_second == pytest.approx(4 * 20 / (2 * speed.step_time))
    assert speed.trained_tokens_per_second == pytest.approx(speed.tokens_per_second / 2)
    assert "mfu" not in speed.row()
    assert meter.rate(Tally()) is None


def test_a_logged_loss_gets_the_speed_since_the_last_one_and_the_time_left(tmp_path: Path) -> None:
    meter = Meter()
    callback = ThroughputCallback(meter, lambda: 2_345_000_000)
    arguments, control = TrainingArguments(str(tmp_path), report_to=[]), TrainerControl()
    state = TrainerState(max_steps=4)
    callback.on_train_begin(arguments, state, control)
    meter.ask()
    meter.take([SupervisedCollator(PaddedCollator(0, 32))([sample(10, 5)])])
    time.sleep(0.02)
    state.global_step = 1
    callback.on_step_end(arguments, state, control)
    row, again, evaluation = {"loss": 1.0}, {"loss": 1.0}, {"eval_loss": 1.0}

    for logs in (row, again, evaluation):
        callback.on_log(arguments, state, control, logs)

    assert row["step_time"] >= 0.02
    assert row["peak_memory_gb"] == 2.35
    assert row["time_left"] == pytest.approx(3 * row["step_time"], abs=0.2)
    assert again == {"loss": 1.0}, "no step since"
    assert evaluation == {"eval_loss": 1.0}


def test_a_model_costs_six_operations_for_each_parameter_and_token_and_a_frozen_one_four(tiny_llama: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_llama)
    matrices = sum(
        value.numel() for name, value in model.named_parameters() if value.dim() == 2 and "embed" not in name
    )
    tally = Tally(steps=1, tokens=100, squares=0, seconds=2.0)

    whole = count_work(trainable(model), peak=1e9)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    num_adapter = sum(value.numel() for value in adapted.parameters() if value.requires_grad)
    frozen = count_work(trainable(adapted), peak=1e9)

    assert isinstance(whole, Work)
    assert isinstance(frozen, Work)
    assert whole.utilization(tally) == pytest.approx(6 * matrices * 100 / 2 / 1e9)
    assert frozen.utilization(tally) == pytest.approx((4 * matrices + 6 * num_adapter) * 100 / 2 / 1e9)


def test_a_utilization_is_known_on_known_devices_alone(tiny_llama: Path) -> None:
    model = trainable(LlamaForCausalLM.from_pretrained(tiny_llama))

    known = build_meter(model, "NVIDIA A100-SXM4-80GB", 1).work

    assert known is not None
    assert known.peak == 19.5e12
    assert build_meter(model, "AMD EPYC, 2 cores", 1).work is None
