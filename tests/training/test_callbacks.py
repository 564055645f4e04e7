"""Health and the record, without a training run around them (test_train.py has those)."""

import json
from pathlib import Path

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from finetune.errors import HealthError
from finetune.training.callbacks import HealthCallback, MetricsCallback


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_the_run_before_the_update(
    arguments: TrainingArguments, value: float
) -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.grad = torch.tensor([[1.0, value], [0.0, 0.0]])

    with pytest.raises(HealthError, match=r"step 8: the gradient norm is (nan|inf); the step was not taken"):
        HealthCallback().on_pre_optimizer_step(arguments, TrainerState(global_step=7), TrainerControl(), model=model)


def test_a_finite_gradient_passes_and_float16_leaves_overflows_to_its_scaler(arguments: TrainingArguments) -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.grad = torch.ones(2, 2)
    HealthCallback().on_pre_optimizer_step(arguments, TrainerState(), TrainerControl(), model=model)
    model.weight.grad = torch.full((2, 2), float("inf"))
    arguments.fp16 = True
    HealthCallback().on_pre_optimizer_step(arguments, TrainerState(), TrainerControl(), model=model)


def test_a_validation_loss_that_is_not_finite_is_said(arguments: TrainingArguments) -> None:
    with pytest.raises(HealthError, match="step 5: the validation loss is nan; the weights are damaged"):
        HealthCallback().on_evaluate(
            arguments, TrainerState(global_step=5), TrainerControl(), metrics={"eval_loss": float("nan")}
        )


def test_each_logged_row_is_a_line(arguments: TrainingArguments, tmp_path: Path) -> None:
    callback = MetricsCallback(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        state = TrainerState(global_step=step, is_world_process_zero=True)
        callback.on_log(arguments, state, TrainerControl(), logs={"loss": step / 2})

    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 0.5), (2, 1.0)]


def test_a_resumed_run_writes_no_step_twice(arguments: TrainingArguments, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3, 4)))

    MetricsCallback(path).on_train_begin(arguments, TrainerState(global_step=2), TrainerControl())

    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
