"""What a forward pass keeps for the backward pass, tensor by tensor, as torch saves it for the layers of transformers.

Each line of the counts below stands for tensors that autograd holds; scripts/bench/estimate.py compares their sum
with what it really holds and publishes the difference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from finetune.estimate.architecture import Architecture
from finetune.estimate.tensors import linear_shapes

AttentionKind = Literal["flash", "segments", "masked", "eager"]
"""Fused: one call for all samples (CUDA), one for each (CPU), or one under a mask; or plain products."""

FED_BY_NORM = (("q_proj", "k_proj", "v_proj", "qkv_proj"), ("gate_proj", "up_proj", "gate_up_proj"))


@dataclass(frozen=True)
class Numerics:
    """Bytes of a number in each part of a layer, and what a layer is asked to do."""

    compute: int
    """In matrix products."""
    residual: int
    """Between the layers: the format of the embeddings."""
    gated: int
    """In the feed-forward block, whose inputs come from modules that may widen them (4 bits)."""
    attention: AttentionKind
    adapter: bool
    dropout_mask: int = 0
    """Bytes of a mark of lora_dropout: one on CUDA, a float on a CPU, 0 without dropout."""


@dataclass(frozen=True)
class LayerPlan:
    """What of one layer is trained."""

    inputs: frozenset[str]
    """Linear modules that need their input again: trained themselves, or with an adapter."""
    norms: bool
    """Whether the norms train."""
    reached: bool = True
    """Whether the backward pass comes this far down."""
    ranks: tuple[tuple[str, int], ...] = ()
    """Module and rank of each adapter."""
    dora: bool = False
    copied: int = 0
    """Trained float32 parameters that are multiplied with in 16 bits, by way of a copy."""


@dataclass(frozen=True)
class Batch:
    """One forward pass."""

    num_tokens: int
    row_length: int
    """Tokens of a row, which each token may see under a mask."""
    short: int = 0
    """Tokens of the samples of a flat batch that are attended by plain products, whose probabilities are kept."""


@dataclass(frozen=True)
class Activations:
    """Bytes that are held at the end of the forward pass through the layers."""

    saved: int
    """For the backward pass."""
    layer: int
    """Of the largest layer, which gradient checkpointing computes again, and which is the last to be let go."""
    copies: int
    """16-bit copies of trained weights, which autocast makes."""
    working: int
    """What the backward pass of a layer needs for a moment."""


def count_activations(
    architecture: Architecture, layers: Sequence[LayerPlan], numerics: Numerics, batch: Batch, *, checkpointing: bool
) -> Activations:
    """Add up what all layers keep; with ``checkpointing`` only their inputs, and one layer at a time."""
    whole = [layer_bytes(architecture, layer, numerics, batch) for layer in layers]
    copies = sum(2 * layer.copied for layer in layers) if numerics.compute == 2 else 0
    inputs = sum(numerics.residual * architecture.hidden_size * batch.num_tokens for layer in layers if layer.reached)
    around = _around_layers(architecture, layers, numerics, batch)
    working = max((_working_bytes(architecture, layer, numerics, batch) for layer in layers), default=0)
    return Activations((inputs if checkpointing else sum(whole)) + around, max(whole, default=0), copies, working)


def layer_bytes(architecture: Architecture, layer: LayerPlan, numerics: Numerics, batch: Batch) -> int:
    """Return the bytes that one layer keeps for its backward pass, copies of weights left out."""
    if not layer.reached:
        return 0
    per_token = (
        _norm_bytes(architecture, layer, numerics)
        + _input_bytes(architecture, layer, numerics)
        + _attention_bytes(architecture, layer, numerics, batch)
        + _gated_bytes(architecture, layer, numerics)
        + _adapter_bytes(architecture, layer, numerics)
    )
    shapes = linear_shapes(architecture)
    units = sum(numerics.compute * shapes[leaf][1] ** 2 for leaf, _ in layer.ranks) if layer.dora else 0
    return per_token * batch.num_tokens + units


def _norm_bytes(a: Architecture, layer: LayerPlan, n: Numerics) -> int:
    """Each norm keeps its input in float32 and the inverse deviation, and if it trains the normed values."""
    num_norms = 4 if a.traits.sandwich else 2
    normed = (4 if a.traits.wide_norm else n.residual) if layer.norms else 0
    total = num_norms * (4 * a.hidden_size + 4 + normed * a.hidden_size)
    if a.traits.qk_norm:
        width = a.query_width + a.kv_width
        normed = (4 if a.traits.wide_norm else n.compute) if layer.norms else 0
        total += 4 * width + normed * width + 4 * (a.num_heads + a.num_kv_heads)
    return total


def _input_bytes(a: Architecture, layer: LayerPlan, n: Numerics) -> int:
    """The outputs of norms: one for all modules that read it, or a 16-bit copy for each of them."""
    copied_each = n.compute == 2 and (n.residual == 4 or n.adapter or layer.norms)
    apart = copied_each or (n.adapter and n.dropout_mask > 0)
    users = (len(layer.inputs.intersection(group)) for group in FED_BY_NORM)
    return sum(n.compute * a.hidden_size * (count if apart else min(count, 1)) for count in users)


def _attention_bytes(a: Architecture, layer: LayerPlan, n: Numerics, batch: Batch) -> int:
    query, kv = a.query_width, a.kv_width
    reads_output = "o_proj" in layer.inputs
    if n.attention == "eager":
        capped = n.compute if a.model_type == "gemma2" else 0  # the scores go through a tanh
        scores = a.num_heads * batch.row_length * (4 + (n.compute if n.compute == 2 else 0) + capped)
        return 3 * n.compute * query + scores + n.compute * query * reads_output
    # of a fused product the values are a view, and all of it is kept
    values = query + 2 * kv if a.traits.fused else kv
    if batch.short:
        return n.compute * (query + kv + values + a.num_heads * batch.short + query * reads_output)
    # the pieces of a flat batch on a CPU are put together in a new tensor
    copies_output = reads_output and ((n.adapter and n.compute == 2) or a.traits.fused or n.attention == "segments")
    repeated = n.attention == "masked" and a.num_kv_heads < a.num_heads
    keys_values = 2 * query if repeated else kv + values
    mask = n.compute * batch.row_length if n.attention == "masked" else 0
    return n.compute * (2 * query + keys_values + query * copies_output) + 4 * a.num_heads + mask


def _gated_bytes(a: Architecture, layer: LayerPlan, n: Numerics) -> int:
    """Gate, its activation and the other branch; the product where the module after it reads it again."""
    return 3 * n.gated * a.intermediate_size + n.compute * a.intermediate_size * ("down_proj" in layer.inputs)


def _adapter_bytes(a: Architecture, layer: LayerPlan, n: Numerics) -> int:
    shapes = linear_shapes(a)
    total = 0
    for leaf, rank in layer.ranks:
        out, width, _ = shapes[leaf]
        total += n.compute * rank + n.dropout_mask * width + (2 * n.compute * out if layer.dora else 0)
    return total


def _working_bytes(a: Architecture, layer: LayerPlan, n: Numerics, batch: Batch) -> int:
    """Gradients of the widest tensors; of plain attention, after the feed-forward block's tensors are let go."""
    if not layer.reached:
        return 0
    # an adapter's input is widened to float32 and narrowed again, and so is its gradient
    widened = 4 if layer.ranks and n.compute == 2 else 0
    gated = (2 * n.compute + widened) * a.intermediate_size
    scores = a.num_heads * batch.row_length * (4 + n.compute) if n.attention == "eager" else 0
    widest = max(gated, scores - _gated_bytes(a, layer, n))
    return batch.num_tokens * (widest + 2 * n.residual * a.hidden_size)


def _around_layers(a: Architecture, layers: Sequence[LayerPlan], n: Numerics, batch: Batch) -> int:
    """The last norm, the rotary table and the ids; the inputs of the head are counted with the logits."""
    norm = 4 * a.hidden_size + 4 + (4 * a.hidden_size if any(layer.norms for layer in layers) else 0)
    table = 2 * a.head_dim * n.residual * math.ceil(batch.num_tokens / max(batch.row_length, 1)) * batch.row_length
    return batch.num_tokens * (norm + 8) + table


def loss_bytes(architecture: Architecture, numerics: Numerics, num_kept: int, *, chunk_bytes: int | None) -> int:
    """Return what the loss of ``num_kept`` positions holds at its peak, the head's matrix and its gradient left out.

    Whole logits exist in the compute format and in float32, with log-probabilities and their gradient beside them.
    With ``chunk_bytes`` only so many bytes of float32 logits exist at one time, with their log-probabilities, and for
    all positions the hidden states that the layers gave, those that are kept, and their gradient.
    """
    narrow = numerics.compute if numerics.compute == 2 else 0
    hidden = num_kept * architecture.hidden_size
    whole = num_kept * architecture.vocab_size
    if chunk_bytes is None:
        return hidden * numerics.compute + whole * (narrow + (16 if architecture.final_softcap else 12))
    in_chunk = min(whole, chunk_bytes // 4)
    cast = numerics.compute * in_chunk // architecture.vocab_size if numerics.residual != numerics.compute else 0
    slope = 4 if architecture.final_softcap else 0
    return 3 * hidden * numerics.residual + in_chunk * (8 + slope) + cast * architecture.hidden_size
