"""What the training drivers share: the job they are given, and a clock that writes down each optimizer step."""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

UNTRAINED = -100


@dataclass(frozen=True)
class Job:
    """One training, as ``job.json`` tells it."""

    model: str
    data: str
    """Folder of prepared rows (``load_from_disk``) in their order; of packed rows with ``position_ids``."""
    chats: str
    """File of raw chats instead; then ``data`` is empty and preparing them is part of the work."""
    adapter: bool
    packed: bool
    bf16: bool
    num_steps: int
    batch: int
    learning_rate: float
    sequence_len: int
    seed: int
    steps: str
    """File that gets a line of JSON for each optimizer step."""
    device: str = "cpu"
    """``cpu`` or ``cuda``."""

    @property
    def base_dtype(self) -> str:
        """A frozen base is held in the compute format, trained weights in float32."""
        return "bfloat16" if self.bf16 and self.adapter else "float32"


def read_job() -> Job:
    """Read the job that the command line names."""
    return Job(**json.loads(Path(sys.argv[1]).read_text()))


def write_step(job: Job, loss: float, total: int, trained: int, **more: float) -> None:
    """Write what one optimizer step took in, and when it ended."""
    row = {"time": time.time(), "loss": loss, "total": total, "trained": trained, **more}
    with Path(job.steps).open("a") as file:
        file.write(json.dumps(row) + "\n")


class StepClock(TrainerCallback):
    """Counts the tokens that go into the model, and writes a line when a step has ended and been logged."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.total = self.trained = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" in logs:
            more = {"grad_norm": float(logs["grad_norm"])} if "grad_norm" in logs else {}
            if self.job.device == "cuda":
                more["peak_bytes"] = torch.cuda.max_memory_allocated()
            write_step(self.job, logs["loss"], self.total, self.trained, **more)
            self.total = self.trained = 0

    def _count(self, module: Any, inputs: Any, arguments: dict[str, Any]) -> None:
        mask = arguments.get("attention_mask")
        input_ids = arguments["input_ids"]
        real = input_ids.numel() if mask is None or mask.shape != input_ids.shape else int((mask > 0).sum())
        self.total += real
        labels = arguments.get("labels")
        self.trained += 0 if labels is None else int((labels[:, 1:] != UNTRAINED).sum())
