"""What the memory of a run depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune.config.adapter import AdapterSection
from finetune.config.data import DataSection
from finetune.config.model import ModelSection
from finetune.config.training import TrainingSection
from finetune.estimate.devices import Device
from finetune.estimate.holding import adapter_settings
from finetune.estimate.tensors import Base
from finetune.model.processor import cpu_has_bf16


@dataclass(frozen=True)
class Setup:
    """All that the memory of a run depends on."""

    model: ModelSection
    adapter: AdapterSection
    data: DataSection
    training: TrainingSection
    deepspeed: Mapping[str, Any] | None
    """Contents of the DeepSpeed file."""
    base: Base
    num_added: int
    """Tokens that the base's tokenizer does not have."""
    device: Device
    num_processes: int

    @property
    def checkpoints(self) -> bool:
        """Whether the layers are computed again in the backward pass."""
        return self.training.gradient_checkpointing is True

    @property
    def uses_dora(self) -> bool:
        return bool(adapter_settings(self.adapter).get("use_dora", self.adapter.peft_use_dora))

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number in matrix products: see ``finetune.model.precision``."""
        training = self.training
        if training.fp16 and training.bf16 is not True:
            return 2
        if training.bf16 is False:
            return 4
        if self.device.kind == "cuda":
            return 2
        if self.deepspeed is not None:
            return 4
        return 2 if training.bf16 is True or cpu_has_bf16() else 4
