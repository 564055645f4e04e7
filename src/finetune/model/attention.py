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
from finetune.model.precision import Precision


@dataclass(frozen=True)
class Attention:
    """A backend by its transformers name."""

    implementation: str
    flatten: bool
    """Packed batches go in as one row with sequence lengths (flash attention)."""
    exact: bool = False
    """It was asked for by name, so that no other may take its place."""
    note: str | None = None


def choose_attention(model: ModelSection, precision: Precision) -> Attention:
    """Pick the backend that the configuration asks for, or the best one at hand.

    Raises:
        HardwareError: a backend was asked for by its exact name and is not here.
    """
    flash, obstacle = _flash_attention(precision)
    wanted = _wanted(model)
    if wanted in (None, "flash"):
        if flash:
            return Attention(flash, flatten=True)
        note = f"flash_attention: {obstacle}; sdpa is used, which keeps packed samples apart too" if wanted else None
        return Attention("sdpa", flatten=False, note=note)
    if wanted.startswith("flash") and wanted != flash:
        raise HardwareError(
            f"attn_implementation: {wanted} is not available here ({obstacle or f'{flash} is'}); "
            "install flash-attn on a CUDA machine, or use sdpa"
        )
    if wanted == "flex_attention" and not torch.cuda.is_available():
        raise HardwareError("flex attention has no backward pass on a CPU; use sdp_attention: true")
    return Attention(wanted, flatten=wanted.startswith("flash"), exact=True)


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


def _flash_attention(precision: Precision) -> tuple[str | None, str]:
    """Return the name of a usable flash attention, newest first, or None and the reason."""
    if not torch.cuda.is_available():
        return None, "there is no CUDA device"
    if precision.compute_dtype == torch.float32:
        return None, "it needs bf16 or fp16"
    for package, implementation in (("flash_attn_interface", "flash_attention_3"), ("flash_attn", "flash_attention_2")):
        if importlib.util.find_spec(package):
            return implementation, ""
    return None, "flash-attn is not installed"
