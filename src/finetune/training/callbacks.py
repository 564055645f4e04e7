"""What happens around the steps: cadence, metrics, health, frozen rows, and stopping on request."""

import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.errors import HealthError, Stopped
from finetune.model.freeze import FrozenRows
from finetune.training.cadence import Cadence


class CadenceCallback(TrainerCallback):  # type: ignore[misc]
    """Evaluates and saves at the planned steps."""

    def __init__(self, cadence: Cadence) -> None:
        self.cadence = cadence

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert state.max_steps == self.cadence.total_steps, (state.max_steps, self.cadence.total_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step in self.cadence.eval_at:
            control.should_evaluate = True
        if state.global_step in self.cadence.save_at:
            control.should_save = True


class MetricsCallback(TrainerCallback):  # type: ignore[misc]
    """Appends every logged row to ``metrics.jsonl``, the record that outlives terminals and trackers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Drop the rows of steps that a resumed run takes again."""
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= state.global_step]
            self.path.write_text("".join(kept), encoding="utf-8")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        row = {"step": state.global_step, "time": round(time.time(), 3), **logs}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class HealthCallback(TrainerCallback):  # type: ignore[misc]
    """Stops a run whose numbers are no longer finite, instead of logging zeros and going on."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        for name in ("loss", "grad_norm"):
            value = logs.get(name)
            if value is not None and not math.isfinite(value):
                raise HealthError(
                    f"step {state.global_step}: {name} is {value}. Nothing was saved after the last checkpoint. "
                    "Lower learning_rate, add warmup_steps, or use bf16 in place of fp16"
                )


class FrozenRowsCallback(TrainerCallback):  # type: ignore[misc]
    """Puts rows outside the unfrozen ranges back after each update."""

    def __init__(self, rows: FrozenRows) -> None:
        self.rows = rows

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.rows.restore()


class StopCallback(TrainerCallback):  # type: ignore[misc]
    """Ctrl-C and SIGTERM save a checkpoint at the end of the step and stop; a second signal ends at once."""

    EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}  # noqa: RUF012 - read only

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def raise_if_stopped(self, last_step: int, total_steps: int, output_dir: Path) -> None:
        """Raise :class:`Stopped` (130 after Ctrl-C, 75 after SIGTERM) if a signal ended the run early."""
        if self.received is not None and last_step < total_steps:
            raise Stopped(
                f"stopped by {self.received.name} after step {last_step} of {total_steps}; "
                f"{output_dir / f'checkpoint-{last_step}'} is saved. Go on with the same command and --resume",
                self.EXIT_CODES[self.received],
            )

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for number in self.EXIT_CODES:
            self._previous[number] = signal.signal(number, self._receive)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.received is not None:
            control.should_save = True
            control.should_training_stop = True
            control.should_evaluate = False

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        self.say(
            f"{self.received.name}: saving a checkpoint at the end of this step, then stopping (once more ends at once)"
        )
