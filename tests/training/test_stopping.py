"""A signal becomes a checkpoint and an end, and the run that goes on is the one that nobody stopped."""

import gc
import io
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tests.story import LORA, write_run
from tests.tiny import save_tiny_llama
from tests.training.sections import ALONE, training_section
from transformers import TrainerControl, TrainerState, TrainingArguments

from finetune.attempt.attempt import Attempt
from finetune.attempt.signals import Stage
from finetune.attempt.state import read_state
from finetune.config import load_config
from finetune.errors import Stopped
from finetune.narration import Narrator
from finetune.train import run
from finetune.training.cadence import Cadence
from finetune.training.stopping import StopCallback, is_owed
from finetune.training.trainer import EvaluationStopped

CHANGES = [*LORA, "--lora_dropout=0.1", "--logging_steps=1"]
"""Sixteen steps in two epochs, with evaluations after 1, 4, 8, 12 and 16."""


class Terminal(io.StringIO):
    """Stands where a person sits, who stops the run on seeing some text."""

    def __init__(self, attempt: Attempt, text: str) -> None:
        super().__init__()
        self.attempt = attempt
        self.text = text

    def write(self, text: str) -> int:
        if self.text in text and self.attempt.stop.received is None:
            self.attempt.stop.receive(signal.SIGTERM)
        return super().write(text)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("stopping")
    return write_run(folder, save_tiny_llama(folder / "llama"))


def train(config_file: Path, name: str, *words: str, stop_at: str = "never") -> Path:
    attempt = Attempt()
    console = Console(file=Terminal(attempt, stop_at), width=200)
    out = config_file.parent / name
    run(load_config(config_file, [*CHANGES, f"--output_dir={out}", *words]), Narrator(console), attempt=attempt)
    return out


def stopped(config_file: Path, name: str, *words: str, stop_at: str) -> Stopped:
    """Train until the signal; the error's frames hold the folder's lock, and go."""
    with pytest.raises(Stopped) as caught:
        train(config_file, name, *words, stop_at=stop_at)
    error = caught.value.with_traceback(None)
    del caught
    gc.collect()
    return error


@pytest.fixture(scope="module")
def whole(config_file: Path) -> Path:
    return train(config_file, "whole")


def record(out: Path) -> list[dict[str, Any]]:
    """Return the metrics without what a clock says, and without the summary of a whole run."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    clock = re.compile(r"time|time_left|data_wait|peak_memory_gb|.*_time|.*_runtime|.*_per_second")
    kept = [row for row in rows if "train_runtime" not in row]
    return [{name: value for name, value in row.items() if not clock.fullmatch(name)} for row in kept]


@pytest.mark.parametrize(
    ("stop_at", "step"),
    [("step 3/16", 4), ("step 6/16", 7), ("step 8/16", 8), ("step 11/16", 12), ("step 16/16", 16)],
    ids=["before a planned evaluation", "between", "in an evaluation", "before one again", "in the last evaluation"],
)
def test_a_run_that_was_stopped_and_gone_on_with_is_the_uninterrupted_one(
    config_file: Path, whole: Path, stop_at: str, step: int
) -> None:
    name = f"stopped-at-{step}"
    error = stopped(config_file, name, stop_at=stop_at)
    assert re.match(rf"stopped by SIGTERM after step {step} of 16: .*checkpoint-{step} saved in \d", str(error))
    assert error.exit_code == 75
    state = read_state(config_file.parent / name)
    assert state is not None
    assert (state.status, state.exit_code, state.step, state.last_checkpoint) == (
        "stopped",
        75,
        step,
        f"checkpoint-{step}",
    )

    out = train(config_file, name, "--auto_resume_from_checkpoints=true")
    assert record(out) == record(whole)
    weights, expected = load_file(out / "adapter_model.safetensors"), load_file(whole / "adapter_model.safetensors")
    assert all(torch.equal(weights[key], tensor) for key, tensor in expected.items())
    ended = read_state(out)
    assert ended is not None
    assert (ended.status, ended.step, ended.run_id) == ("finished", 16, state.run_id)


def test_where_the_best_weights_are_sought_an_evaluation_is_finished_first(config_file: Path) -> None:
    words = ["--load_best_model_at_end=true", "--saves_per_epoch=1"]
    assert "after step 8 of 16" in str(stopped(config_file, "best", *words, stop_at="step 8/16"))
    assert [row["step"] for row in record(config_file.parent / "best") if "eval_loss" in row] == [1, 4, 8]


def test_how_often_a_run_evaluates_does_not_change_what_it_learns(config_file: Path, whole: Path) -> None:
    out = train(config_file, "without", "--evals_per_epoch=null", "--eval_strategy=no")
    assert [row["loss"] for row in record(out) if "loss" in row] == [r["loss"] for r in record(whole) if "loss" in r]


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])


def callback_at(arguments: TrainingArguments, **changes: object) -> tuple[StopCallback, Attempt]:
    attempt = Attempt()
    callback = StopCallback(attempt, ALONE, training_section(**changes))
    callback.on_step_begin(arguments, TrainerState(), TrainerControl())
    assert attempt.stop.stage is Stage.STEPS
    return callback, attempt


def test_a_signal_during_a_save_needs_no_further_step(arguments: TrainingArguments, tmp_path: Path) -> None:
    callback, attempt = callback_at(arguments)
    control, state = TrainerControl(), TrainerState(global_step=3, max_steps=9)
    callback.on_step_end(arguments, state, control)
    assert not control.should_training_stop
    attempt.stop.receive(signal.SIGINT)
    callback.on_save(arguments, state, control)
    assert control.should_training_stop
    assert not control.should_save
    with pytest.raises(
        Stopped, match=r"stopped by SIGINT after step 3 of 9: .*/checkpoint-3 saved in \d+\.\d s\. "
    ) as e:
        callback.raise_if_stopped(3, 9)
    assert e.value.exit_code == 130


def test_a_signal_after_the_last_step_lets_the_run_end_well(arguments: TrainingArguments) -> None:
    callback, attempt = callback_at(arguments)
    control, state = TrainerControl(), TrainerState(global_step=9, max_steps=9)
    attempt.stop.receive(signal.SIGTERM)
    callback.on_step_end(arguments, state, control)
    callback.on_save(arguments, state, control)
    callback.on_train_end(arguments, state, control)
    assert not control.should_training_stop
    assert attempt.stop.stage is Stage.RESULT
    callback.raise_if_stopped(9, 9)


def test_an_evaluation_is_left_unless_something_waits_for_its_loss(arguments: TrainingArguments) -> None:
    state = TrainerState(global_step=3, max_steps=9)
    for changes, leaves in (({}, True), ({"early_stopping_patience": 2}, False), ({"save_strategy": "best"}, False)):
        callback, attempt = callback_at(arguments, **changes)
        attempt.stop.receive(signal.SIGTERM)
        if leaves:
            with pytest.raises(EvaluationStopped):
                callback.on_prediction_step(arguments, state, TrainerControl())
        else:
            callback.on_prediction_step(arguments, state, TrainerControl())


def test_an_evaluation_is_owed_where_the_log_lacks_it() -> None:
    cadence = Cadence(9, 9, 0, 1, eval_at=frozenset({3}), save_at=frozenset())
    assert is_owed(cadence, TrainerState(global_step=3, log_history=[{"step": 3, "loss": 1.0}]))
    assert not is_owed(cadence, TrainerState(global_step=3, log_history=[{"step": 3, "eval_loss": 1.0}]))
    assert not is_owed(cadence, TrainerState(global_step=4))
