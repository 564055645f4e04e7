"""The record of metrics, without a training run around it (test_train.py has those)."""

import json
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from finetune.training.callbacks import MetricsCallback


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])


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
