"""What happens around the steps: cadence, metrics, health and frozen rows."""

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.errors import HealthError
from finetune.model.freeze import FrozenRows
from finetune.training.cadence import Cadence
from finetune.training.engine import Engine, check_engine
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


class EngineCallback(TrainerCallback):  # type: ignore[misc]
    """Makes sure that the engine that was asked for trains, and gives each process its own dropout.

    DeepSpeed keeps gradients to itself and applies them in its backward pass, so that a norm that is not finite shows
    only afterwards: nothing more is saved then.
    """

    def __init__(self, engine: Engine, trainer: Trainer) -> None:
        self.engine = engine
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        check_engine(self.engine, self.trainer.model_wrapped, args.world_size)
        torch.manual_seed(args.seed + self.engine.place.rank)  # a resumed run gets its own state back after this

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.engine.deepspeed is None or args.fp16:
            return
        norm = float(self.trainer.model_wrapped.get_global_grad_norm() or 0.0)
        if not math.isfinite(norm):
            raise HealthError(
                f"step {state.global_step}: the gradient norm is {norm}, and DeepSpeed has taken the step; the last "
                "checkpoint is whole. Lower learning_rate, add warmup_steps, or use bf16 in place of fp16"
            )


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
