"""What to say when memory runs out: what was being done, how large it was, and which changes cost least."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.config import RunConfig
from finetune.exhausted import describe_exhausted, explained_memory
from finetune.fitting import estimate_line
from finetune.training.trainer import CausalTrainer

LOADING, SAVING = "loading the weights", "saving the result"


class Work:
    """What a run is doing just now."""

    def __init__(self, config: RunConfig, num_processes: int) -> None:
        self.config = config
        self.num_processes = num_processes
        self.doing = LOADING
        self.trainer: CausalTrainer | None = None

    def explained(self) -> AbstractContextManager[None]:
        """Say what could be changed where memory runs out; see :func:`explained_memory`."""
        return explained_memory(self.describe)

    def watch(self, trainer: CausalTrainer) -> TrainerCallback:
        """Return the callback that follows a training."""
        self.trainer = trainer
        return WorkCallback(self)

    def describe(self) -> str:
        """Word the failure, with the changes that help, the cheapest first."""
        helping = changes(self.config, self.doing, self.num_processes)
        return describe_exhausted(f"{self.doing}{self._batch()}", helping, estimate_line(self.config))

    def _batch(self) -> str:
        """The shape of the micro-batch under way, where there is one."""
        batches = self.trainer.record.batches if self.trainer else []
        if not batches or "step" not in self.doing:
            return ""
        rows, width = batches[-1]["input_ids"].shape
        shape = f"{rows} x {width} = " if rows > 1 else ""  # samples without padding lie in one row
        return f", on a micro-batch of {shape}{rows * width:,} tokens"


class WorkCallback(TrainerCallback):  # type: ignore[misc]
    """Notes what the Trainer goes on to."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.work.doing = "the checks before the first step"

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.work.doing = f"step {state.global_step + 1}"

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.work.doing = f"the update of step {state.global_step + 1}"

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.work.doing = f"the checkpoint after step {state.global_step}"

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.work.doing = f"the evaluation after step {state.global_step}"

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.work.doing = f"the checkpoint after step {state.global_step}"

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.work.doing = SAVING


def changes(config: RunConfig, doing: str, num_processes: int) -> list[str]:
    """Return the keys to change and their values, the cheapest first.

    Cheap is what leaves the training the same, then what takes time, then what rounds, then what trains otherwise.
    """
    training = config.training
    found = []
    if doing.startswith("the evaluation") and training.eval_batch_size > 1:
        found.append(f"eval_batch_size: {training.eval_batch_size // 2}  (the same losses)")
    if doing != LOADING and training.micro_batch_size > 1:
        micro = next(n for n in range(training.micro_batch_size // 2, 0, -1) if training.micro_batch_size % n == 0)
        accumulation = training.gradient_accumulation_steps * training.micro_batch_size // micro
        found.append(f"micro_batch_size: {micro} with gradient_accumulation_steps: {accumulation}  (the same steps)")
    if doing != LOADING and not training.gradient_checkpointing:
        found.append("gradient_checkpointing: true  (the same steps, each about a third slower)")
    found += _sharding(config, num_processes)
    if not config.adapter.adapter and training.optimizer.startswith("adamw") and "8bit" not in training.optimizer:
        found.append("optimizer: adamw_bnb_8bit  (2 bytes of state for each weight instead of 8)")
    if config.adapter.adapter and not config.model.quantized:
        found.append("load_in_4bit: true  (a quarter of the base's memory, and its weights rounded)")
    if not config.adapter.adapter:
        found.append("adapter: lora with lora_target_linear: true  (gradients and states of few weights)")
    if doing != LOADING:
        found.append(f"sequence_len: {config.data.sequence_len // 2}  (longer rows are dropped or cut)")
    return found


def _sharding(config: RunConfig, num_processes: int) -> list[str]:
    """Return the DeepSpeed file that spreads more than the present one."""
    if config.distributed.deepspeed or config.model.quantized:
        return []
    if num_processes > 1:
        return ["deepspeed: zero2.json, or zero3.json  (states, gradients and weights shared by the processes)"]
    return ["deepspeed: zero2_cpu_offload.json  (states in the machine's memory)"] if torch.cuda.is_available() else []
