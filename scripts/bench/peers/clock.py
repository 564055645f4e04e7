"""A callback for the Trainer of transformers and what stands on it: it writes down each optimizer step."""

from typing import Any

import torch
from steps import UNTRAINED, Job, write_step
from transformers import TrainerCallback


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
