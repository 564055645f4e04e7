"""The one place where the attention backend is chosen.

Packed samples share a sequence and must not see each other.  transformers keeps them apart on eager, sdpa and flex
attention when it gets ``position_ids`` that restart, no ``attention_mask`` and no cache; flash attention needs the
batch flattened to one row with the lengths beside it.
"""

import importlib.util
from dataclasses import dataclass

import torch

from finetune.config.model import ModelSection
from finetune.errors import HardwareError


@dataclass(frozen=True)
class Attention:
    """A backend by its transformers name."""

    implementation: str
    flatten: bool
    """Packed batches go in as one row with sequence lengths (flash attention)."""
    note: str | None = None


def choose_attention(model: ModelSection) -> Attention:
    """Pick the backend that the configuration asks for, or the best one at hand.

    Raises:
        HardwareError: a backend was asked for by its exact name and is not here.
    """
    cuda = torch.cuda.is_available()
    flash = _flash_attention(cuda)
    wanted = _wanted(model)
    if wanted == "flash":
        if flash:
            return Attention(flash, flatten=True)
        why = "flash-attn is not installed" if cuda else "there is no CUDA device"
        return Attention(
            "sdpa", flatten=False, note=f"flash_attention: {why}; sdpa is used, which keeps packed samples apart too"
        )
    if wanted is None:
        return Attention(flash, flatten=True) if flash else Attention("sdpa", flatten=False)
    if wanted.startswith("flash") and wanted != flash:
        raise HardwareError(
            f"attn_implementation: {wanted} is not available here; install flash-attn on a CUDA machine, or use sdpa"
        )
    if wanted == "flex_attention" and not cuda:
        raise HardwareError("flex attention has no backward pass on a CPU; use sdp_attention: true")
    return Attention(wanted, flatten=wanted.startswith("flash"))


def _wanted(model: ModelSection) -> str | None:
    if model.attn_implementation:
        return model.attn_implementation
    if model.flash_attention:
        return "flash"
    if model.sdp_attention:
        return "sdpa"
    if model.eager_attention:
        return "eager"
    return "flex_attention" if model.flex_attention else None


def _flash_attention(cuda: bool) -> str | None:
    """The name of an importable flash attention, newest first."""
    if not cuda:
        return None
    for package, implementation in (("flash_attn_interface", "flash_attention_3"), ("flash_attn", "flash_attention_2")):
        if importlib.util.find_spec(package):
            return implementation
    return None
