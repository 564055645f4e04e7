"""Attention over a flat batch: samples in one row, each attending to itself alone, and no mask made.

A flat batch comes with ``cu_seq_lens_q`` and ``max_length_q`` from the collator, named as transformers'
``FlashAttentionKwargs``.  Two backends here read them: ``segments`` calls PyTorch's scaled dot product attention once
per sample, which on a CPU is faster than one call with a dense mask, and in 16 bits takes short samples by plain matrix
products, which are faster still; ``varlen`` is PyTorch's own variable-length flash
attention for CUDA (``torch.nn.attention.varlen``).  Both are known to transformers by these names after
:func:`register`.  Without boundaries (in generation) they are transformers' ``sdpa``.
"""

from functools import lru_cache
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from finetune.errors import ModelError

SEGMENTS = "segments"
VARLEN = "varlen"

SHORT = 512
"""Tokens of a segment up to which plain products in bfloat16 are faster on a CPU than PyTorch's fused attention.

Forward and backward of 9 heads of 64, CPU time: 4.5 times as fast at 130 tokens, twice at 512, alike at 1,024.
"""

Output = tuple[torch.Tensor, None]


def register() -> None:
    """Tell transformers the backends; calling it again changes nothing."""
    for name, function in ((SEGMENTS, segment_attention), (VARLEN, varlen_attention)):
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, flat_mask)


def keep_from_compilation() -> None:
    """Let the backends run as they are inside compiled layers: the boundaries are other ones in each batch."""
    for name, function in ((SEGMENTS, segment_attention), (VARLEN, varlen_attention)):
        AttentionInterface.register(name, torch.compiler.disable(function))  # type: ignore[no-untyped-call]


def flat_mask(*arguments: Any, attention_mask: torch.Tensor | None = None, **options: Any) -> torch.Tensor | None:
    """Make the mask of ``sdpa`` where there is padding to hide, none for a flat batch."""
    if attention_mask is None:
        return None
    mask: torch.Tensor | None = sdpa_mask(*arguments, attention_mask=attention_mask, **options)
    return mask


def segment_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    **options: Any,
) -> Output:
    """Attend within each segment, one call of scaled dot product attention per segment, or products where it is short.

    Args:
        module: the attention layer of the model.
        query: ``[1, num_heads, length, head_dim]``.
        key: ``[1, num_key_value_heads, length, head_dim]``.
        value: as ``key``.
        attention_mask: None; with a mask, or while tokens are generated, this is transformers' ``sdpa``.
        dropout: share of the attention weights that are dropped.
        options: ``scaling``, ``sliding_window`` (tokens, the own one included), ``cu_seq_lens_q``.

    Returns:
        ``[1, length, num_heads, head_dim]``, and None for the weights.

    Raises:
        ModelError: the layer asks for something else than plain causal attention.
    """
    boundaries = options.get("cu_seq_lens_q")
    if boundaries is None:
        return _as_sdpa(module, query, key, value, attention_mask, dropout, options)
    _refuse_other_kinds(module, options, SEGMENTS)
    lengths = torch.diff(boundaries).tolist()
    window = options.get("sliding_window")
    # one split, and not a slice for each segment: the gradient of a slice is as large as the whole
    parts = [torch.split_with_sizes(tensor, lengths, dim=2) for tensor in (query, key, value)]
    attended = []
    for length, queries, keys, values in zip(lengths, *parts, strict=True):
        if length <= SHORT and not dropout and _is_16_bit_on_cpu(query):
            attended.append(_attend_short(queries, keys, values, options.get("scaling"), window))
            continue
        mask = _band(length, window, query.device)
        attended.append(
            torch.nn.functional.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None,
                scale=options.get("scaling"),
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    return torch.cat([piece.transpose(1, 2) for piece in attended], dim=1), None


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    **options: Any,
) -> Output:
    """Attend within each segment in one call of PyTorch's variable-length flash attention; see above."""
    boundaries = options.get("cu_seq_lens_q")
    if boundaries is None:
        return _as_sdpa(module, query, key, value, attention_mask, dropout, options)
    _refuse_other_kinds(module, options, VARLEN)
    if dropout:
        raise ModelError("attn_implementation: varlen has no dropout, and this model has attention_dropout; use sdpa")
    longest, window = options["max_length_q"], options.get("sliding_window")
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else value.dtype
    queries, keys, values = (tensor[0].transpose(0, 1).to(dtype) for tensor in (query, key, value))
    attended = varlen_attn(
        queries,
        keys,
        values,
        boundaries,
        boundaries,
        longest,
        longest,
        scale=options.get("scaling"),
        window_size=(window - 1 if window else -1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(attended, torch.Tensor)
    return attended.unsqueeze(0), None


def _as_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float,
    options: dict[str, Any],
) -> Output:
    window = options.get("sliding_window")
    if attention_mask is None and query.shape[2] == key.shape[2]:
        attention_mask = _band(query.shape[2], window, query.device)
    output: Output = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, **options)
    return output


def _refuse_other_kinds(module: torch.nn.Module, options: dict[str, Any], name: str) -> None:
    """Attention sinks, capped scores, position biases: each would be left out without a word."""
    asked = [kind for kind in ("softcap", "s_aux", "position_bias") if options.get(kind) is not None]
    if options.get("is_causal") is False or vars(module).get("is_causal") is False:
        asked.append("attention to later tokens")
    if asked:
        raise ModelError(f"attn_implementation: {name} does not know this model's {', '.join(asked)}; use eager")


def _is_16_bit_on_cpu(query: torch.Tensor) -> bool:
    """Whether products of ``query`` are taken in bfloat16 on a CPU: it is so itself, or autocast makes it so."""
    if query.device.type != "cpu":
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    return dtype == torch.bfloat16


def _attend_short(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, window: int | None
) -> torch.Tensor:
    """Attend by two batched products in bfloat16; heads that share a key go in one product.  Shapes as above."""
    _, num_heads, length, width = query.shape
    num_keys = key.shape[1]
    rows = (num_keys, num_heads // num_keys * length, width)
    query, key, value = (tensor.to(torch.bfloat16) for tensor in (query, key, value))
    scores = torch.bmm(query.mul(scaling or width**-0.5).reshape(rows), key[0].transpose(1, 2))
    scores.view(num_heads, length, length).add_(_short_penalty(window)[:length, :length])
    # autocast would make a softmax of 32 bits, and keep both; inside, the sum has 32 bits anyway
    with torch.autocast("cpu", enabled=False):
        return torch.bmm(scores.softmax(dim=-1), value[0]).view(1, num_heads, length, value.shape[-1])


@lru_cache(maxsize=8)
def _short_penalty(window: int | None) -> torch.Tensor:
    """Return what is added to the scores, minus infinity where a token is not seen, ``[SHORT, SHORT]``."""
    distance = torch.arange(SHORT)[:, None] - torch.arange(SHORT)
    seen = (distance >= 0) & (distance < (window or SHORT))
    return torch.zeros(SHORT, SHORT, dtype=torch.bfloat16).masked_fill_(~seen, -torch.inf)


@lru_cache(maxsize=8)
def _band(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """Return the causal mask of a sliding window, ``[length, length]``; None where the window holds the segment."""
    if window is None or length <= window:
        return None
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < window)


def knows_segments(network: PreTrainedModel) -> bool:
    """Whether each layer of a model is causal attention that goes through transformers' interface, boundaries and all.

    That is so where the class says that it takes other backends and flash attention, where no layer has a running
    state or attends in blocks, and where the scores are not capped.
    """
    config = network.config.get_text_config()
    values = config.to_dict()
    layers = set(values.get("layer_types") or ["full_attention"])
    return (
        network._supports_attention_backend
        and network._supports_flash_attn
        and network._supports_sdpa
        and layers <= {"full_attention", "sliding_attention"}
        and not values.get("attn_logit_softcapping")
    )
