"""Proof, on the model at hand, that packed samples do not see each other."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.data.collate import PackedCollator
from finetune.errors import HardwareError
from finetune.model.build import Hardware

LENGTH = 8
"""Tokens of each sample of the probe."""


class IsolationCallback(TrainerCallback):  # type: ignore[misc]
    """Makes the proof before the first step, on every process, where the engine holds the weights ready."""

    def __init__(self, hardware: Hardware, vocab_size: int, say: Callable[[str], None]) -> None:
        self.hardware = hardware
        self.vocab_size = vocab_size
        self.say = say

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        check_isolation(kwargs["model"], self.hardware, self.vocab_size, self.say)


def check_isolation(model: torch.nn.Module, hardware: Hardware, vocab_size: int, say: Callable[[str], None]) -> None:
    """Compare the logits of one sample packed behind two different neighbours; two short forward passes.

    Shapes and positions are the same in both passes, so an isolated sample has the same logits to the last bits, and
    any other difference comes from the neighbour.  Attention backends, and layers with a running state (Mamba, linear
    attention) that ignore ``position_ids``, are found this way, whatever their names.

    Raises:
        HardwareError: the neighbour shows in the logits.
    """
    tokens = np.random.default_rng(0).integers(0, vocab_size, (3, LENGTH)).astype(np.int32)
    first, second = (_logits(model, hardware, tokens[neighbour], tokens[2]) for neighbour in (0, 1))
    scale = first.abs().max().item()
    difference = (first - second).abs().max().item()
    if difference > 1e-3 * scale:
        raise HardwareError(
            f"sample_packing: on this model packed samples see each other (a neighbour moves logits of up to "
            f"{scale:.3g} by {difference:.3g}). Set sample_packing: false, or try another attn_implementation"
        )
    say(f"packing: samples are isolated on this model (a neighbour moves logits by {difference:.1g} of {scale:.3g})")


def _logits(model: torch.nn.Module, hardware: Hardware, neighbour: Any, sample: Any) -> torch.Tensor:
    """Return the logits of ``sample`` packed behind ``neighbour``, ``[LENGTH, vocabulary]`` float32."""
    collator = PackedCollator(pad_token_id=0, sequence_len=2 * LENGTH, flatten=hardware.attention.flatten)
    batch = collator([[{"input_ids": ids, "labels": ids} for ids in (neighbour, sample)]])
    device = next(model.parameters()).device
    inputs = {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
        if name != "labels"
    }
    was_training = model.training
    model.eval()
    with torch.no_grad(), hardware.precision.autocast():
        logits: torch.Tensor = model(**inputs).logits[0, LENGTH:].float()
    model.train(was_training)
    return logits
