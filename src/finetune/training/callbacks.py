"""What happens around the steps: cadence, metrics, frozen rows, and stopping on request."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.errors import Stopped
from finetune.model.freeze import FrozenRows
from finetune.training.cadence import Cadence
from finetune.training.engine import Engine, check_engine


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
        if state.is_world_process_zero and self.path.is_file():
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


class EngineCallback(TrainerCallback):  # type: ignore[misc]
    """Makes sure that the engine that was asked for trains, and gives each process its own dropout."""

    def __init__(self, engine: Engine, trainer: Trainer) -> None:
        self.engine = engine
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        check_engine(self.engine, self.trainer.model_wrapped, args.world_size)
        torch.manual_seed(args.seed + self.engine.place.rank)  # a resumed run gets its own state back after this


class FrozenRowsCallback(TrainerCallback):  # type: ignore[misc]
    """Puts rows outside the unfrozen ranges back after each update."""

    def __init__(self, rows: FrozenRows) -> None:
        self.rows = rows

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """ZeRO keeps a copy of its own, in which the rows decay, and a resumed run begins with that copy."""
        self.rows.restore()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.rows.restore()


class StopCallback(TrainerCallback):  # type: ignore[misc]
    """Ctrl-C and SIGTERM save a checkpoint at the end of the step and stop; a second signal ends at once.

    A signal to one process stops all of them at the same step.
    """

    EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}  # noqa: RUF012 - read only
    ECHO_S = 5.0
    """A launcher passes on what the terminal has sent to its processes already; within this time it is one request."""

    def __init__(self, say: Callable[[str], None], engine: Engine) -> None:
        self.say = say
        self.engine = engine
        self.received: signal.Signals | None = None
        self._received_at = 0.0
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
        if self._all_stop(args):
            self._stop(control)
            control.should_evaluate = False

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A signal that came during an evaluation needs no further step."""
        if self._all_stop(args):
            self._stop(control)

    def _all_stop(self, args: TrainingArguments) -> bool:
        """Whether any process got a signal; each takes it as its own."""
        number = self.engine.largest(self.received or 0, args.device)
        if number and self.received is None:
            self.received = signal.Signals(number)
            self._received_at = time.monotonic()
        return bool(number)

    def _stop(self, control: TrainerControl) -> None:
        control.should_save = True
        control.should_training_stop = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if self.engine.place.launched and time.monotonic() - self._received_at < self.ECHO_S:
                return
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        self._received_at = time.monotonic()
        plan = "saving a checkpoint after this step (or evaluation), then stopping; once more ends at once"
        self.say(f"{self.received.name}: {plan}")
