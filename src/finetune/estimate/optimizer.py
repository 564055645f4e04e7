"""Bytes that each optimizer keeps for a trained tensor, as torch, transformers and bitsandbytes allocate them."""

import math
from dataclasses import dataclass

from finetune.config.training import Optimizer

BLOCK = 256
"""Elements that share one scale in an 8-bit state of bitsandbytes."""
MIN_8BIT = 4096
"""Elements below which bitsandbytes keeps a state in 32 bits."""


@dataclass(frozen=True)
class StateKind:
    """What is kept for each element."""

    num_states: int
    bits: int = 32
    paged: bool = False
    step_bytes: int = 0
    """A number on the device for each tensor: its steps (torch's own optimizers), or its size (Adafactor)."""
    factored: bool = False
    """One row and one column in the place of a matrix (Adafactor)."""


KINDS: dict[Optimizer, StateKind] = {
    "adamw_torch": StateKind(2, step_bytes=4),
    "adamw_torch_fused": StateKind(2, step_bytes=4),
    "adamw_bnb_8bit": StateKind(2, bits=8),
    "adamw_8bit": StateKind(2, bits=8),
    "paged_adamw_32bit": StateKind(2, paged=True),
    "paged_adamw_8bit": StateKind(2, bits=8, paged=True),
    "ademamix": StateKind(3),
    "ademamix_8bit": StateKind(3, bits=8),
    "lion_32bit": StateKind(1),
    "lion_8bit": StateKind(1, bits=8),
    "paged_lion_32bit": StateKind(1, paged=True),
    "paged_lion_8bit": StateKind(1, bits=8, paged=True),
    "adafactor": StateKind(1, factored=True, step_bytes=4),
    "sgd": StateKind(0),
    "adagrad": StateKind(1, step_bytes=4),
    "rmsprop": StateKind(1, step_bytes=4),
}
"""By the name of transformers."""


def state_bytes(kind: StateKind, shape: tuple[int, ...], *, is_embedding: bool = False) -> int:
    """Return the bytes of the states of one float32 tensor.

    transformers keeps the states of input embeddings in 32 bits whatever the optimizer, as the authors of the 8-bit
    ones advise (Dettmers 2021, section 2.3).
    """
    count = math.prod(shape)
    if kind.factored and len(shape) >= 2:
        return 4 * (count // shape[-1] + count // shape[-2]) + kind.step_bytes
    if kind.bits == 8 and count >= MIN_8BIT and not is_embedding:
        return kind.num_states * (count + 4 * math.ceil(count / BLOCK))
    return kind.num_states * 4 * count + (kind.step_bytes if kind.num_states else 0)


def step_bytes(optimizer: Optimizer, trained_bytes: int) -> int:
    """Return what an optimizer step needs for a moment: torch's unfused ones make one copy of what is trained."""
    return trained_bytes if optimizer in ("adamw_torch", "adagrad", "rmsprop", "sgd") else 0
