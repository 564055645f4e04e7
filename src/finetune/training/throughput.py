"""How fast a run goes: tokens, utilization, time and memory, beside every logged loss."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.errors import ModelError
from finetune.estimate.architecture import read_architecture
from finetune.estimate.flops import MatmulShape, Trained, flops_per_token, matmul_shape
from finetune.estimate.peaks import Format, peak_flops
from finetune.model.build import TrainableModel


@dataclass
class Tally:
    """What some optimizer steps took in, of one process, and the time they needed."""

    steps: int = 0
    tokens: int = 0
    """Without padding."""
    trained: int = 0
    squares: int = 0
    """Sum over samples of length^2: attention's work."""
    seconds: float = 0.0
    """From the request for the first batch to the end of the step; no evaluation, no checkpoint."""
    data_seconds: float = 0.0
    """Of these, until the batches were there."""

    def add(self, other: "Tally") -> None:
        """Add what other steps took."""
        for name in (entry.name for entry in fields(self)):
            vars(self)[name] += vars(other)[name]


@dataclass(frozen=True)
class Work:
    """What a token costs, and what the device could do."""

    shape: MatmulShape
    trained: Trained
    peak: float
    """Floating point operations a second, of one device."""

    def utilization(self, tally: Tally) -> float:
        """Return the share of the peak that the model's own operations took (MFU; Chowdhery 2022, Appendix B)."""
        attended = tally.squares / tally.tokens
        return flops_per_token(self.shape, attended, self.trained) * tally.tokens / tally.seconds / self.peak


@dataclass(frozen=True)
class Throughput:
    """The speed of some steps; tokens are those of all devices."""

    tokens_per_second: float
    trained_tokens_per_second: float
    step_time: float
    """Seconds of an optimizer step."""
    data_wait: float
    """Of these, seconds until its batches were there."""
    mfu: float | None = None
    """Share of the device's peak; None where that is unknown, as on every CPU."""

    def row(self) -> dict[str, float]:
        """Return what is known by its name, rounded for people."""
        values = {
            "tokens_per_second": round(self.tokens_per_second, 1),
            "trained_tokens_per_second": round(self.trained_tokens_per_second, 1),
            "step_time": round(self.step_time, 4),
            "data_wait": round(self.data_wait, 4),
        }
        return values if self.mfu is None else {**values, "mfu": round(self.mfu, 4)}


@dataclass
class Meter:
    """Counts what goes into the model of this process, and when."""

    num_processes: int = 1
    work: Work | None = None
    now: Tally = field(default_factory=Tally)
    """Since the last line of the log."""
    whole: Tally = field(default_factory=Tally)
    _asked: float = 0.0
    _pending: Tally = field(default_factory=Tally)

    def ask(self) -> None:
        """Note that a step asks for its batches."""
        self._asked = time.perf_counter()

    def take(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Note that its batches are there; they are counted when the step has ended."""
        lengths = [length for batch in batches for length in batch.get("trained_lengths", ())]
        trained = sum(len(batch.get("trained_targets", ())) for batch in batches)
        squares = sum(length * length for length in lengths)
        waited = time.perf_counter() - self._asked
        self._pending = Tally(1, sum(lengths), trained, squares, data_seconds=waited)

    def end_step(self) -> None:
        """Note that the step has ended."""
        self._pending.seconds = time.perf_counter() - self._asked
        self.now.add(self._pending)
        self.whole.add(self._pending)
        self._pending = Tally()

    def rate(self, tally: Tally) -> Throughput | None:
        """Return the speed of ``tally``; None if no step is in it."""
        if not tally.steps or not tally.tokens:
            return None
        scale = self.num_processes / tally.seconds
        return Throughput(
            tokens_per_second=tally.tokens * scale,
            trained_tokens_per_second=tally.trained * scale,
            step_time=tally.seconds / tally.steps,
            data_wait=tally.data_seconds / tally.steps,
            mfu=self.work.utilization(tally) if self.work else None,
        )


class ThroughputCallback(TrainerCallback):  # type: ignore[misc]
    """Adds the speed since the last line to each logged loss.

    It comes before the callbacks that show and keep the rows.  transformers' own log history, which checkpoints
    hold, stays as it is: it is the same for the same run.
    """

    def __init__(self, meter: Meter, peak_memory: Callable[[], int]) -> None:
        self.meter = meter
        self.peak_memory = peak_memory
        self._began = (0.0, 0)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._began = time.monotonic(), state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.meter.end_step()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        rate = self.meter.rate(self.meter.now) if "loss" in logs else None
        if rate is None:
            return
        self.meter.now = Tally()
        began, first_step = self._began
        done, left = state.global_step - first_step, state.max_steps - state.global_step
        logs.update(
            rate.row(),
            peak_memory_gb=round(self.peak_memory() / 1e9, 2),
            time_left=round((time.monotonic() - began) / done * left, 1),
        )


def build_meter(trainable: TrainableModel, device: str, num_processes: int) -> Meter:
    """Return the meter of a run on ``device``, which names the hardware; it knows a utilization where that can be.

    Products in 8 bits (``fp8``) are measured by the peak of 16 bits, as torchtitan does: so the two can be compared.
    """
    compute = trainable.hardware.precision.compute_dtype
    is_tf32 = torch.backends.cuda.matmul.allow_tf32
    number_format: Format = "16-bit" if compute != torch.float32 else "tf32" if is_tf32 else "fp32"
    peak = peak_flops(device, number_format)
    return Meter(num_processes, None if peak is None else count_work(trainable, peak))


def count_work(trainable: TrainableModel, peak: float) -> Work | None:
    """Return what a token costs on this model; None for one whose matrices are not those of an ordinary decoder."""
    config = trainable.model.config.to_dict()
    try:
        architecture = read_architecture(config, "the model")
    except ModelError:
        return None
    if not architecture.is_known:
        return None
    shape = matmul_shape(architecture)
    trained = [(name, value) for name, value in trainable.model.named_parameters() if value.requires_grad]
    adapter = sum(value.numel() for name, value in trained if "lora_" in name)
    matrices = [
        (name, value) for name, value in trained if "lora_" not in name and value.dim() == 2 and "embed" not in name
    ]
    tied = architecture.is_tied and any("embed" in name for name, _ in trained)
    count = sum(value.numel() for _, value in matrices) + (shape.head_parameters if tied else 0)
    return Work(shape, Trained(count, adapter, _first_layer(name for name, _ in trained)), peak)


def _first_layer(names: Iterable[str]) -> int:
    """Return the lowest layer with trained parameters; 0 where something below the layers is trained."""
    layers = [next((int(part) for part in name.split(".") if part.isdigit()), None) for name in names]
    numbers = [layer for layer in layers if layer is not None]
    return min(numbers) if numbers and len(numbers) == len(layers) else 0
