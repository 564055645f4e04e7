"""The tensors of a base model: from the headers of its weights' files, or from ``config.json`` alone."""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import ModelError
from finetune.estimate.architecture import KNOWN, Architecture, read_architecture
from finetune.model.base import BaseModelSource

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a parameter by the name of its format in a safetensors header."""

_MAX_HEADER = 100 * 2**20
INPUT_EMBEDDINGS = ("embed_tokens", "embed_in", "wte", "word_embeddings")
OUTPUT_EMBEDDINGS = ("lm_head", "embed_out")


@dataclass(frozen=True)
class Tensor:
    """One parameter of the base as transformers names it."""

    name: str
    shape: tuple[int, ...]
    stored_bytes: int
    """Bytes of one element in the base's files."""

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def module(self) -> str:
        """Name of the module that holds it."""
        return self.name.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        """Last part of the module's name, such as q_proj."""
        return self.module.rpartition(".")[2]

    @property
    def is_embedding(self) -> bool:
        """Whether it belongs to the input embedding."""
        return self.leaf in INPUT_EMBEDDINGS

    @property
    def is_output(self) -> bool:
        return self.leaf in OUTPUT_EMBEDDINGS

    @property
    def is_linear(self) -> bool:
        """Whether it is the matrix of a linear module, the output embedding left out."""
        is_matrix = len(self.shape) == 2 and self.name.endswith(".weight")
        return is_matrix and not self.is_embedding and not self.is_output

    @property
    def layer(self) -> int | None:
        """Number of the decoder layer, or None outside of them."""
        return next((int(part) for part in self.name.split(".") if part.isdigit()), None)


@dataclass(frozen=True)
class Base:
    """What is known of a base model without its weights."""

    name: str
    architecture: Architecture
    tensors: tuple[Tensor, ...]
    has_headers: bool
    """Whether shapes and formats are read from the files of the weights, not derived from config.json."""


def read_base(source: BaseModelSource) -> Base:
    """Read the shapes of a base model; of one on the hub, from its config.json alone.

    Raises:
        ModelError: config.json cannot be used, a header is damaged, or shapes do not follow from config.json.
    """
    folder = Path(source.name) if source.is_local else _fetch_config(source)
    architecture = read_architecture(_read_config(folder), source.name)
    tensors = [tensor for file in sorted(folder.glob("*.safetensors")) for tensor in read_header(file)]
    if architecture.is_tied:
        tensors = [tensor for tensor in tensors if not tensor.is_output]
    if tensors:
        return Base(source.name, architecture, tuple(tensors), has_headers=True)
    if not architecture.is_known:
        raise ModelError(
            f"{source.name}: the shapes of a '{architecture.model_type}' do not follow from config.json alone; name a "
            f"folder with its weights. Known without weights are {', '.join(sorted(KNOWN))}"
        )
    return Base(source.name, architecture, tuple(derive_tensors(architecture)), has_headers=False)


def read_header(file: Path) -> list[Tensor]:
    """Read the names, shapes and formats of a safetensors file, of which only the first bytes are read.

    Raises:
        ModelError: the header is damaged.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _MAX_HEADER:
                raise ValueError(f"a header of {length:,} bytes")
            entries = json.loads(stream.read(length))
        return [
            Tensor(name, tuple(entry["shape"]), BYTES[entry["dtype"]])
            for name, entry in entries.items()
            if name != "__metadata__" and entry["dtype"] in BYTES
        ]
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ModelError(f"{file}: its header is damaged ({error}); copy or download the model again") from None


def derive_tensors(architecture: Architecture) -> Iterator[Tensor]:
    """Yield the tensors of a known decoder, named as transformers names them."""
    a = architecture
    yield _tensor(a, "model.embed_tokens.weight", a.vocab_size, a.hidden_size)
    for layer in range(a.num_layers):
        prefix = f"model.layers.{layer}"
        for leaf, (out, width, bias) in linear_shapes(a).items():
            block = "mlp" if leaf in ("gate_proj", "up_proj", "down_proj", "gate_up_proj") else "self_attn"
            yield _tensor(a, f"{prefix}.{block}.{leaf}.weight", out, width)
            if bias:
                yield _tensor(a, f"{prefix}.{block}.{leaf}.bias", out)
        for norm in _norms(a):
            yield _tensor(a, f"{prefix}.{norm}.weight", a.hidden_size)
        if a.traits.qk_norm:
            whole = a.traits.qk_norm == "full"
            yield _tensor(a, f"{prefix}.self_attn.q_norm.weight", a.query_width if whole else a.head_dim)
            yield _tensor(a, f"{prefix}.self_attn.k_norm.weight", a.kv_width if whole else a.head_dim)
    yield _tensor(a, "model.norm.weight", a.hidden_size)
    if not a.is_tied:
        yield _tensor(a, "lm_head.weight", a.vocab_size, a.hidden_size)


def linear_shapes(architecture: Architecture) -> dict[str, tuple[int, int, bool]]:
    """Return the linear modules of one layer: output width, input width, and whether there is a bias."""
    a = architecture
    hidden, query, kv, inner = a.hidden_size, a.query_width, a.kv_width, a.intermediate_size
    output = {"o_proj": (hidden, query, a.out_bias), "down_proj": (hidden, inner, a.mlp_bias)}
    if a.traits.fused:
        return {
            "qkv_proj": (query + 2 * kv, hidden, a.qkv_bias),
            "gate_up_proj": (2 * inner, hidden, a.mlp_bias),
            **output,
        }
    return {
        "q_proj": (query, hidden, a.qkv_bias),
        "k_proj": (kv, hidden, a.qkv_bias),
        "v_proj": (kv, hidden, a.qkv_bias),
        "gate_proj": (inner, hidden, a.mlp_bias),
        "up_proj": (inner, hidden, a.mlp_bias),
        **output,
    }


def _norms(architecture: Architecture) -> tuple[str, ...]:
    if architecture.traits.sandwich:
        return (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        )
    if architecture.traits.qk_norm == "full":
        return ("post_attention_layernorm", "post_feedforward_layernorm")
    return ("input_layernorm", "post_attention_layernorm")


def _tensor(architecture: Architecture, name: str, *shape: int) -> Tensor:
    return Tensor(name, shape, architecture.stored_bytes)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object")
    return config


def _fetch_config(source: BaseModelSource) -> Path:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - takes half a second, which a folder does not need
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(hf_hub_download(source.name, "config.json", revision=source.revision)).parent
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{source.name}: its config.json cannot be fetched from the hub: {reason}") from error
