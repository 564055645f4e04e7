"""What the terminal shows during training: a bar on a terminal, plain lines elsewhere."""

from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Shows steps, the last losses and the time left."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.losses: dict[str, float] = {}
        self.task: TaskID | None = None
        """None where nothing is trained: a run is evaluated that was stopped in its last evaluation."""

    def __enter__(self) -> "ProgressCallback":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was, whatever ended the run."""
        self.progress.stop()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.progress.start()
        self.task = self.progress.add_task("train", total=state.max_steps, completed=state.global_step, losses="")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert self.task is not None, "on_train_begin comes first"
        self.progress.update(self.task, completed=state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        shown = {"loss": "loss", "eval_loss": "validation loss"}
        fresh = {label: logs[name] for name, label in shown.items() if name in logs}
        if not fresh:
            return
        self.losses.update(fresh)
        if self.task is not None:
            losses = "  ".join(f"{label} {value:.4f}" for label, value in self.losses.items())
            self.progress.update(self.task, losses=losses)
        rate = f"  lr {logs['learning_rate']:.2e}" if "learning_rate" in logs else ""
        text = "  ".join(f"{label} {value:.4f}" for label, value in fresh.items())
        self.console.print(
            f"step {state.global_step}/{state.max_steps}  epoch {state.epoch or 0:.2f}  {text}{rate}", highlight=False
        )
