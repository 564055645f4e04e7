"""Numbers that are not finite end a run before they reach the weights, and are traced to the rows they come from."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.errors import HealthError
from finetune.model.precision import Precision
from finetune.model.sharded import local_part
from finetune.training.culprits import MAX_ROWS, TriedRow, describe_rows, render_rows, try_rows
from finetune.training.engine import Engine
from finetune.training.step import trained_samples
from finetune.training.trainer import CausalTrainer

MAX_SKIPPED = 15
"""Steps that float16 may skip in a row: its scale starts at 65,536 and is halved each time, so 2 is left of it."""


class HealthCallback(TrainerCallback):  # type: ignore[misc]
    """Stops every process at the step whose loss or gradient is not finite, before the update.

    A loss that is not finite has a gradient that is not (:meth:`finetune.training.step.StepRecord.spread`), and the
    gradient norm is the same on every process, so all of them stop here together.  DeepSpeed takes its step at the end
    of the backward pass.  ZeRO leaves it out where the norm is not finite, and says so in the norm; without ZeRO a hook
    on the optimizer comes before it.  Under float16 the gradient scaler finds overflows and skips their steps by
    itself, as it must now and then: there the losses count, and the number of steps skipped in a row.
    """

    def __init__(self, engine: Engine, trainer: CausalTrainer, precision: Precision, resume: Path | None) -> None:
        self.engine = engine
        self.trainer = trainer
        self.precision = precision
        self.checkpoint = resume
        self.num_skipped = 0
        self.steps_taken = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        bf16 = (self.engine.deepspeed or {}).get("bf16", {})
        if self.engine.deepspeed is None or args.fp16:
            return
        if self.engine.zero_stage == 0 or not bf16.get("check_grad_overflow", True):
            wrapped: Any = self.trainer.model_wrapped
            wrapped.basic_optimizer.register_step_pre_hook(self._before_deepspeed_steps)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trainer.record.begin()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if args.fp16:
            fault = math.nan if self.engine.largest(int(bool(self.trainer.record.faulty())), args.device) else 0.0
        else:
            fault = self._norm()
            if fault == 0.0 and self.steps_taken == 0 and self.engine.deepspeed is None:
                raise HealthError(
                    f"step {state.global_step + 1}: the gradient is zero everywhere, so nothing would be learned: no "
                    "trained token reaches a weight that trains. Look at the trained tokens (finetune preprocess) and "
                    "at what trains (unfrozen_parameters, lora_target_modules)"
                )
        if not math.isfinite(fault):
            raise self._error(fault)
        self.steps_taken += 1

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if args.fp16:
            self.count_skipped(state.global_step + 1, skipped=self.trainer.accelerator.optimizer_step_was_skipped)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look at the weights themselves where they are about to be saved: an update can be too large for them."""
        if not control.should_save:
            return
        weights = [(name, weight) for name, weight in self.trainer.model.named_parameters() if weight.requires_grad]
        faulty = [name for name, weight in weights if not torch.isfinite(local_part(weight)[0]).all()]
        if self.engine.largest(int(bool(faulty)), args.device):
            more = f" and {len(faulty) - 1} more" if len(faulty) > 1 else ""
            where = f" ({faulty[0]}{more})" if faulty else ""
            raise HealthError(
                f"step {state.global_step}: the update has made weights that are not finite{where}; they are not "
                f"saved. {self._last_checkpoint()} Lower learning_rate{self._rate()}, or add warmup_steps"
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        loss = metrics.get("eval_loss", 0.0)
        if not math.isfinite(loss):
            raise HealthError(
                f"step {state.global_step}: the validation loss is {loss}; the weights are damaged, or there is a row "
                f"that this model cannot read (finetune evaluate names it). {self._last_checkpoint()}"
            )

    def count_skipped(self, step: int, *, skipped: bool) -> None:
        """Count a step of float16; raises HealthError where its scaler finds no scale that works."""
        self.num_skipped = self.num_skipped + 1 if skipped else 0
        if self.num_skipped >= MAX_SKIPPED:
            raise HealthError(
                f"step {step}: float16 overflowed in {self.num_skipped} steps in a row, and none of them was taken. "
                f"{self._last_checkpoint()} Use bf16: true in place of fp16, or lower learning_rate{self._rate()}"
            )

    def _norm(self) -> float:
        """Return the norm of the gradient of the step, the same on every process; 0 where nobody knows it."""
        wrapped: Any = self.trainer.model_wrapped
        if self.engine.deepspeed is not None:
            return float(wrapped.get_global_grad_norm() or 0.0)
        gradients = [weight.grad for weight in self.trainer.model.parameters() if weight.grad is not None]
        return torch.nn.utils.get_total_norm(gradients).item() if gradients else 0.0

    def _before_deepspeed_steps(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Look at what DeepSpeed is about to apply: without ZeRO all of it, the same on every process."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None]).item()
        if self.engine.largest(int(not math.isfinite(norm)), self.trainer.args.device):
            raise self._error(norm)

    def _error(self, norm: float) -> HealthError:
        """Trace the fault to its rows, together with the other processes, and word it; the same text on all of them."""
        record = self.trainer.record
        faulty = self.engine.gather(record.faulty())
        in_loss = any(faulty)
        batches = [record.batches[number] for number in faulty[self.engine.place.rank]] if in_loss else record.batches
        samples = [sample for batch in batches for sample in trained_samples(batch)][:MAX_ROWS]
        tried: list[tuple[float | None, float | None]] = [(None, None)] * len(samples)
        if self.engine.zero_stage != 3:  # there the processes would have to try as many rows as each other
            tried = try_rows(self.trainer.model, self.precision, samples, gradients=not in_loss)
        own = describe_rows(samples, tried, self.trainer.train_dataset, self.trainer.processing_class)
        rows = [row for rows in self.engine.gather(own) for row in rows]
        return HealthError(self._wording(norm, faulty, rows))

    def _wording(self, norm: float, faulty: list[list[int]], rows: list[TriedRow]) -> str:
        ranks = [str(rank) for rank, numbers in enumerate(faulty) if numbers]
        what = "the loss is not finite" if ranks else f"the gradient norm is {norm}, and every loss is finite"
        where = f" on process {', '.join(ranks)} of {len(faulty)}" if ranks and len(faulty) > 1 else ""
        step = self.trainer.state.global_step + 1
        advice = f"lower learning_rate{self._rate()}, or add warmup_steps"
        return "\n  ".join(
            [
                f"step {step}: {what}{where}; the step was not taken. {self._last_checkpoint()}",
                *render_rows(rows),
                f"Look at such rows; for weights that have run away {advice}{', or use bf16' if self._fp16 else ''}",
            ]
        )

    @property
    def _fp16(self) -> bool:
        return bool(self.trainer.args.fp16)

    def _rate(self) -> str:
        optimizer: Any = self.trainer.optimizer
        return f" ({optimizer.param_groups[0]['lr']:.3g} in this step)" if optimizer is not None else ""

    def _last_checkpoint(self) -> str:
        return f"The last checkpoint is {self.checkpoint}." if self.checkpoint else "There is no checkpoint yet."
