"""What the terminal shows while a run trains."""

import io
from collections import deque
from pathlib import Path

from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from finetune.training.progress import ProgressCallback, describe_speed, draw_curve

SPEED = {
    "tokens_per_second": 12345.6,
    "trained_tokens_per_second": 4567.8,
    "step_time": 1.2345,
    "data_wait": 0.0123,
    "mfu": 0.4567,
    "peak_memory_gb": 61.25,
    "time_left": 3725.4,
}


def show(folder: Path, *, terminal: bool) -> str:
    output = io.StringIO()
    arguments, control = TrainingArguments(str(folder), report_to=[]), TrainerControl()
    state = TrainerState(max_steps=2, epoch=0.5)
    with ProgressCallback(Console(file=output, force_terminal=terminal, width=100, soft_wrap=True)) as progress:
        progress.on_train_begin(arguments, state, control)
        for step, loss in enumerate((3.0, 2.0), 1):
            state.global_step = step
            progress.on_step_end(arguments, state, control)
            progress.on_log(arguments, state, control, {"loss": loss, "learning_rate": 1e-4, **SPEED})
        progress.on_log(arguments, state, control, {"eval_loss": 2.5})
        progress.on_log(arguments, state, control, {"train_runtime": 1.0})
    return output.getvalue()


def test_without_a_terminal_each_logged_loss_is_one_plain_line(tmp_path: Path) -> None:
    speed = "12,346 tok/s (4,568 trained)  1.23 s/step  data 0.012 s  MFU 45.7%  61.2 GB  1:02:05 left"

    assert show(tmp_path, terminal=False).splitlines() == [
        f"step 1/2  epoch 0.50  loss 3.0000  lr 1.00e-04  {speed}",
        f"step 2/2  epoch 0.50  loss 2.0000  lr 1.00e-04  {speed}",
        "step 2/2  epoch 0.50  validation loss 2.5000",
    ]


def test_a_terminal_gets_a_panel_under_the_same_lines_and_none_is_left_behind(tmp_path: Path) -> None:
    shown = show(tmp_path, terminal=True)

    assert "step 2/2  epoch 0.50  validation loss 2.5000" in shown
    assert "╭" in shown
    assert shown.rstrip().endswith("\x1b[2K"), "the panel is wiped at the end"


def test_the_panel_has_the_losses_their_curve_and_the_speed(tmp_path: Path) -> None:
    output = io.StringIO()
    progress = ProgressCallback(Console(file=output, width=100))
    arguments, control, state = TrainingArguments(str(tmp_path), report_to=[]), TrainerControl(), TrainerState()
    for loss in (3.0, 1.0):
        progress.on_log(arguments, state, control, {"loss": loss, **SPEED})
    output.truncate(0)

    progress.console.print(progress.panel())

    assert "loss 1.0000  █▁" in output.getvalue()
    assert "12,346 tok/s" in output.getvalue()


def test_a_row_without_speed_says_nothing_of_it() -> None:
    assert describe_speed({"loss": 1.0}) == ""


def test_the_curve_spans_its_values_and_leaves_gaps() -> None:
    assert draw_curve(deque([1.0, 2.0, float("nan"), 1.5])) == "▁█ ▅"
    assert draw_curve(deque([2.0, 2.0])) == "▁▁"
    assert draw_curve(deque()) == ""
