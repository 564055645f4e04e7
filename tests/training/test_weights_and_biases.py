"""The client of Weights & Biases, offline: what it says, and what becomes of its failures."""

from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from finetune.config.tracking import TrackingSection
from finetune.training.weights_and_biases import WandbCallback


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(str(tmp_path), report_to=[])


def test_a_run_is_kept_offline_and_the_folder_is_said(tmp_path: Path, arguments: TrainingArguments) -> None:
    said: list[str] = []
    tracker = WandbCallback(TrackingSection(wandb_project="p", wandb_mode="offline"), tmp_path, {}, said.append)
    state, control = TrainerState(), TrainerControl()

    tracker.on_train_begin(arguments, state, control)
    tracker.on_log(arguments, state, control, {"loss": 1.0, "eval_loss": 2.0})
    tracker.finish(0)

    assert said == [f"W&B: offline, the run is kept in {tmp_path / 'wandb'} (wandb sync uploads it)"]
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_a_failure_is_said_once_and_ends_tracking_alone(tmp_path: Path, arguments: TrainingArguments) -> None:
    said: list[str] = []
    section = TrackingSection(wandb_project="p/with/slashes", wandb_mode="offline")
    tracker = WandbCallback(section, tmp_path, {}, said.append)

    tracker.on_train_begin(arguments, TrainerState(), TrainerControl())
    tracker.finish(1)

    assert tracker.run is None
    assert "W&B: tracking stopped (" in said[-1]
    assert said[-1].endswith("; training goes on")
