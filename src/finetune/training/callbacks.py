"""What happens around the steps: cadence, metrics and frozen rows."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

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
