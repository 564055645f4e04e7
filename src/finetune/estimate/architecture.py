"""The shape of a decoder as its ``config.json`` gives it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from finetune.errors import ModelError, nearest

_STORED_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


@dataclass(frozen=True)
class Traits:
    """What a ``model_type`` fixes and ``config.json`` may leave unsaid, as the classes of transformers have it."""

    tied: bool = False
    """``tie_word_embeddings`` where the file does not say."""
    head_dim: int | None = None
    """``head_dim`` where the file does not say; None is hidden_size / num_attention_heads."""
    qkv_bias: bool | None = None
    """Biases of q, k and v alone; None follows ``attention_bias``, which the output has too."""
    mlp_bias: bool = False
    """Whether the key ``mlp_bias`` is read."""
    qk_norm: Literal["", "head", "full"] = ""
    """Norms of queries and keys: one of head_dim for all heads, or one as wide as all heads together."""
    sandwich: bool = False
    """Norms before and after both blocks: four in a layer."""
    fused: bool = False
    """One matrix for q, k and v, and one for gate and up."""
    wide_norm: bool = False
    """Norms multiply in float32 and round once (Gemma); others round first."""


KNOWN: dict[str, Traits] = {
    "llama": Traits(mlp_bias=True),
    "mistral": Traits(qkv_bias=False),
    "qwen2": Traits(qkv_bias=True),
    "qwen3": Traits(qk_norm="head", head_dim=128),
    "smollm3": Traits(tied=True, mlp_bias=True),
    "granite": Traits(mlp_bias=True),
    "olmo2": Traits(qk_norm="full"),
    "phi3": Traits(fused=True, qkv_bias=False),
    "gemma": Traits(tied=True, head_dim=256, wide_norm=True),
    "gemma2": Traits(tied=True, head_dim=256, sandwich=True, wide_norm=True),
    "gemma3_text": Traits(tied=True, head_dim=256, sandwich=True, qk_norm="head", wide_norm=True),
}
"""Decoders whose tensors follow from ``config.json`` alone, and whose activations are counted as they are."""

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class Architecture:
    """Sizes of a decoder with gated feed-forward blocks."""

    model_type: str
    traits: Traits
    is_known: bool
    """Whether ``model_type`` is one of :data:`KNOWN`; others are counted like a Llama."""
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    is_tied: bool
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    sliding_window: int | None
    final_softcap: bool
    """Logits go through a tanh (Gemma 2)."""
    stored_bytes: int
    """Bytes of one stored parameter, where no header says more."""

    @property
    def query_width(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of the keys, and of the values."""
        return self.num_kv_heads * self.head_dim


def read_architecture(config: Mapping[str, Any], name: str) -> Architecture:
    """Read the contents of a ``config.json``; ``name`` is the model's, for messages.

    Raises:
        ModelError: a size is missing, or the model is of a kind whose memory is not known here.
    """
    text = config.get("text_config")
    values = {**config, **text} if isinstance(text, Mapping) else dict(config)
    model_type = str(values.get("model_type", ""))
    experts = next((key for key in _EXPERTS if (values.get(key) or 0) > 1), None)
    if experts:
        raise ModelError(
            f"{name}: {experts} is {values[experts]}; models with experts are not estimated. "
            f"Estimated are {', '.join(sorted(KNOWN))}, and decoders built like them"
        )
    traits = KNOWN.get(model_type, Traits())
    hidden, heads = _size(values, "hidden_size", name), _size(values, "num_attention_heads", name)
    attention_bias = bool(values.get("attention_bias"))
    return Architecture(
        model_type=model_type,
        traits=traits,
        is_known=model_type in KNOWN,
        num_layers=_size(values, "num_hidden_layers", name),
        hidden_size=hidden,
        intermediate_size=_size(values, "intermediate_size", name),
        num_heads=heads,
        num_kv_heads=values.get("num_key_value_heads") or heads,
        head_dim=values.get("head_dim") or traits.head_dim or hidden // heads,
        vocab_size=_size(values, "vocab_size", name),
        is_tied=bool(values.get("tie_word_embeddings", traits.tied)),
        qkv_bias=attention_bias if traits.qkv_bias is None else traits.qkv_bias,
        out_bias=attention_bias and traits.qkv_bias is None,
        mlp_bias=traits.mlp_bias and bool(values.get("mlp_bias")),
        sliding_window=_window(values),
        final_softcap=bool(values.get("final_logit_softcapping")),
        stored_bytes=_STORED_BYTES.get(str(values.get("dtype") or values.get("torch_dtype") or "float32"), 4),
    )


def _window(values: Mapping[str, Any]) -> int | None:
    """Tokens that every layer sees at most; None where some layer sees all."""
    kinds = values.get("layer_types")
    if kinds and set(kinds) != {"sliding_attention"}:
        return None
    if values.get("model_type", "").startswith(("qwen", "gemma")) and not kinds:
        return None
    return values.get("sliding_window") or None


def _size(values: Mapping[str, Any], key: str, name: str) -> int:
    value = values.get(key)
    if not isinstance(value, int) or value < 1:
        hint = nearest(key, [word for word in values if isinstance(values[word], int)])
        raise ModelError(f"{name}: config.json has no {key}, which the estimate needs.{hint}")
    return value
