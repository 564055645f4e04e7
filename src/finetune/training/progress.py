"""What the terminal shows during training: a small live panel on a terminal, plain lines everywhere."""

from collections import deque
from datetime import timedelta
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_LEVELS = "▁▂▃▄▅▆▇█"
_SHOWN = {"loss": "loss", "eval_loss": "validation loss"}
_CURVE_POINTS = 60


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Shows steps, losses, speed and the time left."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            expand=True,
        )
        self.losses: dict[str, float] = {}
        self.task: TaskID | None = None
        """None where nothing is trained: a run is evaluated that was stopped in its last evaluation."""
        self.curve: deque[float] = deque(maxlen=_CURVE_POINTS)
        self.speed = ""
        self.live = Live(console=console, transient=True, get_renderable=self.panel, refresh_per_second=4)

    def __enter__(self) -> "ProgressCallback":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was, whatever ended the run."""
        self.live.stop()

    def panel(self) -> Panel:
        """Return the panel as it is now: bar, losses with their curve, speed."""
        losses = "  ".join(f"{label} {value:.4f}" for label, value in self.losses.items())
        return Panel(Group(self.progress, Text(f"{losses}  {draw_curve(self.curve)}"), Text(self.speed)))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.task = self.progress.add_task("train", total=state.max_steps, completed=state.global_step)
        if self.console.is_terminal:
            self.live.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert self.task is not None, "on_train_begin comes first"
        self.progress.update(self.task, completed=state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        fresh = {label: logs[name] for name, label in _SHOWN.items() if name in logs}
        if not fresh:
            return
        self.losses.update(fresh)
        if "loss" in logs:
            self.curve.append(logs["loss"])
        speed = describe_speed(logs)
        self.speed = speed or self.speed
        words = [f"step {state.global_step}/{state.max_steps}", f"epoch {state.epoch or 0:.2f}"]
        words += [f"{label} {value:.4f}" for label, value in fresh.items()]
        words += [f"lr {logs['learning_rate']:.2e}"] if "learning_rate" in logs else []
        self.console.print("  ".join([*words, *([speed] if speed else [])]), highlight=False)


def describe_speed(logs: dict[str, Any]) -> str:
    """Say what :class:`finetune.training.throughput.ThroughputCallback` has put into a row; empty without it."""
    if "tokens_per_second" not in logs:
        return ""
    words = [
        f"{logs['tokens_per_second']:,.0f} tok/s ({logs['trained_tokens_per_second']:,.0f} trained)",
        f"{logs['step_time']:.3g} s/step",
        f"data {logs['data_wait']:.2g} s",
        *([f"MFU {logs['mfu']:.1%}"] if "mfu" in logs else []),
        f"{logs['peak_memory_gb']:.1f} GB",
        f"{timedelta(seconds=round(logs['time_left']))} left",
    ]
    return "  ".join(words)


def draw_curve(values: deque[float]) -> str:
    """Draw numbers as a line of blocks, the lowest as the lowest; numbers that are not finite leave a gap."""
    finite = [value for value in values if abs(value) < float("inf")]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    step = (high - low) / (len(_LEVELS) - 1) or 1.0
    return "".join(_LEVELS[round((value - low) / step)] if abs(value) < float("inf") else " " for value in values)
