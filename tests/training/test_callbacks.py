"""Metrics and stopping, without a training run around them (test_train.py has those)."""

import json
import signal
from pathlib import Path

import pytest
from tests.training.sections import ALONE
from transformers import TrainerControl, TrainerState, TrainingArguments

from finetune.errors import Stopped
from finetune.training.callbacks import MetricsCallback, StopCallback


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


def test_a_second_signal_ends_at_once_and_handlers_are_put_back(arguments: TrainingArguments, tmp_path: Path) -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    control = TrainerControl()
    with StopCallback(said.append, ALONE) as callback:
        signal.raise_signal(signal.SIGTERM)
        callback.on_step_end(arguments, TrainerState(global_step=3), control)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)

    assert control.should_save
    assert control.should_training_stop
    assert said == [
        "SIGTERM: saving a checkpoint after this step (or evaluation), then stopping; once more ends at once"
    ]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_was_stopped_says_how_to_go_on(arguments: TrainingArguments, tmp_path: Path) -> None:
    callback = StopCallback(lambda _: None, ALONE)
    callback.received = signal.SIGTERM

    with pytest.raises(Stopped, match=r"stopped by SIGTERM after step 3 of 9; .*checkpoint-3 is saved\. .* --resume"):
        callback.raise_if_stopped(3, 9, tmp_path)
    callback.raise_if_stopped(9, 9, tmp_path)
