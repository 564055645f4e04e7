"""What happens around the steps: cadence, metrics, health, frozen rows, and stopping on request."""

import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.errors import HealthError, Stopped
from finetune.model.freeze import FrozenRows
from finetune.training.cadence import Cadence
from finetune.training.trainer import not_finite


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
    """Stops a run whose gradient is not finite before it is applied, instead of logging zeros and going on.

    Under float16 the gradient scaler finds overflows and skips their steps by itself, as it must now and then.
    """

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: torch.nn.Module, **_: Any
    ) -> None:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        if args.fp16 or not gradients:
            return
        norm = torch.nn.utils.get_total_norm(gradients).item()
        if not math.isfinite(norm):
            raise HealthError(not_finite("the gradient norm", norm, state.global_step + 1))

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        loss = metrics.get("eval_loss", 0.0)
        if not math.isfinite(loss):
            raise HealthError(f"step {state.global_step}: the validation loss is {loss}; the weights are damaged")


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

    def __enter__(self) -> "StopCallback":
        for number in self.EXIT_CODES:
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.received is not None:
            control.should_evaluate = False
            self.on_evaluate(args, state, control)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A signal that came during an evaluation needs no further step."""
        if self.received is not None:
            control.should_save = True
            control.should_training_stop = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        plan = "saving a checkpoint after this step (or evaluation), then stopping; once more ends at once"
        self.say(f"{self.received.name}: {plan}")
