"""Which number format the arithmetic runs in."""

from dataclasses import dataclass

import torch

from finetune.config.training import TrainingSection
from finetune.errors import HardwareError
from finetune.model.fp8 import Recipe, require_fp8
from finetune.model.processor import cpu_has_bf16


@dataclass(frozen=True)
class Precision:
    """The format of matrix products.  Trained weights are float32 in all of them."""

    compute_dtype: torch.dtype
    note: str | None = None
    fp8: Recipe | None = None
    """How the linear layers round to 8 bits for their products; None: they do not."""

    @property
    def bf16(self) -> bool:
        return self.compute_dtype == torch.bfloat16

    @property
    def fp16(self) -> bool:
        return self.compute_dtype == torch.float16

    def autocast(self) -> torch.autocast:
        """Context in which a forward pass outside the Trainer uses the same format."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.autocast(device, dtype=self.compute_dtype, enabled=self.compute_dtype != torch.float32)


def choose_precision(training: TrainingSection, *, deepspeed: bool = False) -> Precision:
    """Resolve ``bf16``, ``fp16``, ``tf32`` and ``fp8`` for the device at hand.

    ``bf16: auto`` means bfloat16 where the device has the units for it, else float16 on CUDA (as Axolotl does) and
    float32 on a CPU, where float16 trains badly and slowly.  With DeepSpeed a CPU computes in float32: transformers
    takes bfloat16 on a CPU only where it may drop DeepSpeed.

    Raises:
        HardwareError: a format was asked for by name and the device lacks it.
    """
    if training.tf32 and not torch.cuda.is_available():
        raise HardwareError("tf32: true needs a CUDA device, and none is visible; set tf32: false")
    if training.fp8:
        require_fp8()
        return Precision(torch.bfloat16, fp8="rowwise" if training.fp8 is True else training.fp8)
    return _choose_format(training, deepspeed=deepspeed)


def _choose_format(training: TrainingSection, *, deepspeed: bool) -> Precision:
    cuda = torch.cuda.is_available()
    if training.fp16 and training.bf16 is not True:
        if not cuda:
            raise HardwareError("fp16: true needs a CUDA device, and none is visible; use bf16: auto")
        return Precision(torch.float16)
    if training.bf16 is False:
        return Precision(torch.float32)
    if deepspeed and not cuda:
        return Precision(torch.float32, "bf16: with DeepSpeed on a CPU this run computes in float32")
    supported = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else cpu_has_bf16()
    if training.bf16 is True:
        if cuda and not supported:
            raise HardwareError(f"bf16: true, but {torch.cuda.get_device_name()} has no bfloat16 units; use bf16: auto")
        slow = None if supported else "bf16: this CPU has no bfloat16 units, so it will be slower than bf16: false"
        return Precision(torch.bfloat16, slow)
    if supported:
        return Precision(torch.bfloat16)
    return Precision(torch.float16 if cuda else torch.float32)


def trained_dtype(training: TrainingSection) -> torch.dtype:
    """Return the format that a run with these keys computed in, asked after it and perhaps on another machine.

    ``bf16: auto`` is taken as this machine would take it.
    """
    if training.fp16 and training.bf16 is not True:
        return torch.float16
    if training.bf16 is True:
        return torch.bfloat16
    return choose_precision(measured(training)).compute_dtype


def measured(training: TrainingSection) -> TrainingSection:
    """Leave out what only training computes in, and only on some devices."""
    return training.model_copy(update={"tf32": False, "fp8": False})
