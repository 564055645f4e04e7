"""The one place where the attention backend is chosen.

Packed samples share a sequence and must not see each other.  The fast backends get the batch flattened to one row, with
the boundaries beside it, and so compute no padding: flash-attn on CUDA where it is installed, else PyTorch's own
variable-length attention, and on a CPU one call per sample (:mod:`finetune.model.segments`).  Models that these do not
fit (scores that are capped, attention sinks) use ``flex_attention`` on CUDA, else ``sdpa`` or ``eager``.  All three
keep samples apart when they get ``position_ids`` that restart, no ``attention_mask`` and no cache; transformers makes
the mask once per batch.
"""

import importlib.util
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available, is_flash_attn_4_available

from finetune.config.model import ModelSection
from finetune.errors import HardwareError, ModelError
from finetune.model.precision import Precision
from finetune.model.segments import SEGMENTS, VARLEN, knows_segments, register

FLEX = "flex_attention"


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
        best = VARLEN if _has_varlen(precision) else "sdpa" if torch.cuda.is_available() else SEGMENTS
        note = f"flash_attention: {obstacle}; {best} is used, which keeps packed samples apart too" if wanted else None
        return Attention(best, flatten=best != "sdpa", note=note)
    if wanted.startswith("flash") and wanted != flash:
        raise HardwareError(
            f"attn_implementation: {wanted} is not available here ({obstacle or f'{flash} is'}); "
            "install flash-attn on a CUDA machine, or use sdpa"
        )
    if wanted == "flex_attention" and not torch.cuda.is_available():
        raise HardwareError("flex attention has no backward pass on a CPU; use sdp_attention: true")
    if wanted == VARLEN and not _has_varlen(precision):
        raise HardwareError(
            "attn_implementation: varlen needs a CUDA device of compute capability 8.0, PyTorch 2.10, and bf16 or "
            "fp16; use sdpa"
        )
    if wanted == SEGMENTS and torch.cuda.is_available():
        raise HardwareError("attn_implementation: segments is for CPUs; use varlen or sdpa")
    return Attention(wanted, flatten=wanted.startswith("flash") or wanted in (SEGMENTS, VARLEN), exact=True)


def settle_attention(network: PreTrainedModel, attention: Attention, precision: Precision) -> Attention:
    """Switch a model that was loaded with ``sdpa`` to ``segments`` or ``varlen`` where it fits, else to flex attention.

    It fits where :func:`knows_segments` says so, and two short samples have the logits that each has alone; weights
    that ZeRO-3 has spread over processes cannot be asked yet.

    Raises:
        ModelError: the backend was asked for by name, and does not fit.
    """
    register()
    reason = "its layers are not all plain causal attention"
    if knows_segments(network):
        if is_deepspeed_zero3_enabled() or _side_by_side_is_alike(network, attention.implementation, precision):
            network.set_attn_implementation(attention.implementation)
            return attention
        reason = "samples side by side change its numbers"
    if attention.exact:
        raise ModelError(
            f"attn_implementation: {attention.implementation} does not fit this model: {reason}; leave the key out"
        )
    return prefer_flex(network, f"as {attention.implementation} does not fit: {reason}", precision)


def prefer_flex(
    network: PreTrainedModel, reason: str, precision: Precision, *, on_gpu: bool | None = None
) -> Attention:
    """Switch a model that knows no flat batches to flex attention, where that runs and gives the model's own numbers.

    Else it keeps what it was loaded with.  ``reason`` says why it is not the first choice.  ``on_gpu`` is whether there
    is a GPU and Triton, which compiles for it (None asks): flex attention has no backward pass on a CPU.
    """
    loaded = str(network.config._attn_implementation)
    config = network.config.get_text_config().to_dict()
    if on_gpu is None:
        on_gpu = torch.cuda.is_available() and importlib.util.find_spec("triton") is not None
    takes_it = (
        on_gpu
        and network._supports_flex_attn
        and not config.get("attention_dropout")
        and not is_deepspeed_zero3_enabled()
    )
    if takes_it and _side_by_side_is_alike(network, FLEX, precision):
        network.set_attn_implementation(FLEX)
        loaded = FLEX
    return Attention(loaded, flatten=False, note=f"attention: {loaded}, {reason}")


def _side_by_side_is_alike(network: PreTrainedModel, implementation: str, precision: Precision) -> bool:
    """Compare the logits of two samples in one row with those in rows of their own; two short forward passes.

    They may be 1e-3 apart, 0.1 in fewer than 32 bits.  The shorter sample is filled up behind its end, where nothing
    causal looks.
    """
    device = network.device
    lengths = [7, 5]
    input_ids = (
        torch.arange(sum(lengths), device=device)
        .mul(7919)
        .remainder(network.get_input_embeddings().num_embeddings)
        .unsqueeze(0)
    )
    position_ids = torch.cat([torch.arange(length, device=device) for length in lengths]).unsqueeze(0)
    ends = torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32, device=device)
    flat = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": max(lengths), "max_length_k": max(lengths)}
    if implementation == FLEX:
        flat = {}  # it goes by position_ids
    loaded = str(network.config._attn_implementation)
    was_training = network.training
    network.eval()
    with torch.no_grad(), precision.autocast():
        network.set_attn_implementation(implementation)
        together = network(input_ids=input_ids, position_ids=position_ids, use_cache=False, **flat).logits.float()
        network.set_attn_implementation(loaded)
        rows = pad_sequence(list(torch.split_with_sizes(input_ids[0], lengths)), batch_first=True)
        alone = network(input_ids=rows, use_cache=False).logits.float()
    network.train(was_training)
    apart = torch.cat([row[:length] for row, length in zip(alone, lengths, strict=True)]).unsqueeze(0)
    exact = precision.compute_dtype == torch.float32 and network.config.to_dict().get("quantization_config") is None
    return bool((together - apart).norm() <= (1e-3 if exact else 0.1) * apart.norm())


def _has_varlen(precision: Precision) -> bool:
    return (
        torch.cuda.is_available()
        and precision.compute_dtype != torch.float32
        and torch.cuda.get_device_capability() >= (8, 0)
        and importlib.util.find_spec("torch.nn.attention.varlen") is not None
    )


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
    newest_first = (
        (is_flash_attn_4_available, "flash_attention_4", (9, 0)),
        (is_flash_attn_3_available, "flash_attention_3", (8, 0)),
        (is_flash_attn_2_available, "flash_attention_2", (8, 0)),
    )
    for is_available, implementation, capability in newest_first:
        if torch.cuda.get_device_capability() >= capability and is_available():
            return implementation, ""
    return None, "flash-attn is not installed"
