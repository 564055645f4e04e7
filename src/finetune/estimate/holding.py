"""In which form each tensor is held, and which of them train: the counterpart of ``finetune.model.build``."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.config.adapter import AdapterSection
from finetune.config.model import ROW_RANGE, ModelSection
from finetune.errors import ConfigError, HealthError, ModelError, nearest
from finetune.estimate.tensors import Base, Tensor, read_header

NF4_BLOCK = 64
"""Parameters that share one scale in 4 bits."""
NESTED_BLOCK = 256
"""Scales that share one scale of their own, with double quantization."""


@dataclass(frozen=True)
class Held:
    """One tensor in memory."""

    name: str
    shape: tuple[int, ...]
    """Of the parameter, whatever it is stored as."""
    num_bytes: int
    constants: int = 0
    """Bytes of what turns quantized values back into numbers."""
    trained: bool = False
    of_adapter: bool = False
    is_embedding: bool = False

    @property
    def num_parameters(self) -> int:
        return math.prod(self.shape)


def hold(model: ModelSection, adapter: AdapterSection, base: Base, compute_bytes: int, num_added: int) -> list[Held]:
    """Return every tensor of the model that would train.

    Args:
        model: formats of the base, and what is unfrozen.
        adapter: the adapter, if any.
        base: tensors of the base; grown already where tokens are added, see :func:`grow`.
        compute_bytes: of one number in matrix products.
        num_added: tokens that the base's tokenizer does not have.

    Raises:
        ConfigError: a target or a pattern does not fit the model.
        HealthError: nothing would be trained.
        ModelError: ``lora_model_dir`` cannot be read.
    """
    if adapter.adapter:
        return [
            *(_frozen(model, base, tensor, compute_bytes) for tensor in base.tensors),
            *_adapter(adapter, base, num_added),
        ]
    if not model.unfrozen_parameters:
        return [_float(tensor, 4, trained=True) for tensor in base.tensors]
    names = _unfrozen(model.unfrozen_parameters, base.tensors)
    return [
        _float(tensor, 4, trained=True)
        if tensor.name in names
        else _float(tensor, 4 if compute_bytes == 4 else tensor.stored_bytes)
        for tensor in base.tensors
    ]


def grow(base: Base, num_rows: int) -> Base:
    """Return ``base`` with embeddings of at least ``num_rows`` rows, as added tokens need them."""
    tensors = tuple(
        Tensor(t.name, (max(t.shape[0], num_rows), *t.shape[1:]), t.stored_bytes)
        if t.is_embedding or t.is_output
        else t
        for t in base.tensors
    )
    return Base(base.name, base.architecture, tensors, base.has_headers)


def targets(adapter: AdapterSection, base: Base) -> list[Tensor]:
    """Return the matrices that get an adapter, as PEFT finds their modules.

    Raises:
        ConfigError: a target matches no module.
    """
    matrices = {tensor.module: tensor for tensor in _modules(base)}
    if isinstance(adapter.lora_target_modules, str):
        found = [t for name, t in matrices.items() if re.fullmatch(adapter.lora_target_modules, name)]
        if not found:
            raise ConfigError(f"lora_target_modules: {adapter.lora_target_modules!r} matches the name of no matrix")
        return found
    wanted = set(adapter.lora_target_modules or [])
    leaves = {name.rpartition(".")[2] for name in matrices}
    for target in wanted:
        if not any(name == target or name.endswith(f".{target}") for name in matrices):
            raise ConfigError(f"lora_target_modules: no matrix is called '{target}'.{nearest(target, leaves)}")
    if adapter.lora_target_linear:
        wanted |= {tensor.leaf for tensor in base.tensors if tensor.is_linear}
    return [t for name, t in matrices.items() if any(name == w or name.endswith(f".{w}") for w in wanted)]


def quantized_bytes(num_parameters: int, num_rows: int, *, bits: int, double: bool) -> tuple[int, int]:
    """Return the bytes of a quantized matrix and of its constants, as bitsandbytes holds them.

    Four bits: two parameters in a byte; one scale for 64 parameters, which is a byte with double quantization (and
    one float for 256 of them, their mean, and two tables) or else a float (and one table).  Eight bits: one float
    for each row.
    """
    if bits == 8:
        return num_parameters, 4 * num_rows
    scales = math.ceil(num_parameters / NF4_BLOCK)
    nested = scales + 4 * math.ceil(scales / NESTED_BLOCK) + 4 + 4 * 256
    return math.ceil(num_parameters / 2), 4 * 16 + (nested if double else 4 * scales)


def _frozen(model: ModelSection, base: Base, tensor: Tensor, compute_bytes: int) -> Held:
    if not model.quantized:
        return _float(tensor, compute_bytes)
    is_candidate = tensor.is_linear or (tensor.is_output and bool(_skipped(model)))
    if not is_candidate or _is_skipped(model, tensor):
        return _float(tensor, 4)  # PEFT holds in float32 what is not quantized
    double = bool(model.bnb_config_kwargs.get("bnb_4bit_use_double_quant", True))
    num_bytes, constants = quantized_bytes(
        tensor.num_elements, tensor.shape[0], bits=4 if model.load_in_4bit else 8, double=double
    )
    return Held(tensor.name, tensor.shape, num_bytes, constants)


def _is_skipped(model: ModelSection, tensor: Tensor) -> bool:
    return any(tensor.module == name or name in tensor.module.split(".") for name in _skipped(model))


def _skipped(model: ModelSection) -> list[str]:
    """Modules that are named to stay as they are; they take the place of transformers' own choice, the output."""
    return model.bnb_config_kwargs.get("llm_int8_skip_modules") or []


def _float(tensor: Tensor, num_bytes: int, *, trained: bool = False) -> Held:
    return Held(
        tensor.name,
        tensor.shape,
        num_bytes * tensor.num_elements,
        trained=trained,
        is_embedding=tensor.is_embedding,
    )


def _adapter(adapter: AdapterSection, base: Base, num_added: int) -> Iterator[Held]:
    if adapter.lora_model_dir:
        yield from _saved_adapter(Path(adapter.lora_model_dir))
        return
    for tensor in targets(adapter, base):
        out, width = tensor.shape
        yield _trained(f"{tensor.module}.lora_A", adapter.lora_r, width)
        yield _trained(f"{tensor.module}.lora_B", out, adapter.lora_r)
        if adapter.peft_use_dora:
            yield _trained(f"{tensor.module}.lora_magnitude_vector", tensor.shape[1 if tensor.is_embedding else 0])
    whole = set(adapter.lora_modules_to_save)
    for tensor in (*base.tensors, *_tied_output(base)):
        if any(tensor.module == name or tensor.module.endswith(f".{name}") for name in whole):
            copy = _trained(f"{tensor.module}.modules_to_save", *tensor.shape)
            yield Held(**{**vars(copy), "is_embedding": tensor.is_embedding})
    embeddings = [tensor for tensor in base.tensors if tensor.is_embedding or tensor.is_output]
    if num_added and not whole & {tensor.leaf for tensor in embeddings}:
        for tensor in embeddings:
            yield _trained(f"{tensor.module}.token_adapter", num_added, tensor.shape[1])


def _saved_adapter(folder: Path) -> Iterator[Held]:
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelError(f"lora_model_dir: {folder} has no adapter_model.safetensors")
    for tensor in read_header(file):
        yield _trained(tensor.name.removesuffix(".weight"), *tensor.shape)


def adapter_settings(adapter: AdapterSection) -> dict[str, Any]:
    """Return ``adapter_config.json`` of ``lora_model_dir``; an empty mapping without one."""
    path = Path(adapter.lora_model_dir or "") / "adapter_config.json"
    if not adapter.lora_model_dir or not path.is_file():
        return {}
    settings = json.loads(path.read_text(encoding="utf-8"))
    return settings if isinstance(settings, dict) else {}


def _trained(name: str, *shape: int) -> Held:
    return Held(name, shape, 4 * math.prod(shape), trained=True, of_adapter=True)


def _modules(base: Base) -> list[Tensor]:
    """Matrices of modules: those of the files, and the output embedding that is tied to the input's."""
    matrices = [tensor for tensor in base.tensors if len(tensor.shape) == 2 and tensor.name.endswith(".weight")]
    return matrices + _tied_output(base)


def _tied_output(base: Base) -> list[Tensor]:
    if not base.architecture.is_tied:
        return []
    return [Tensor("lm_head.weight", t.shape, t.stored_bytes) for t in base.tensors if t.is_embedding]


def _unfrozen(patterns: Sequence[str], tensors: Sequence[Tensor]) -> set[str]:
    """Return the names that the patterns match; a row range trains the whole tensor as far as memory goes."""
    expressions = [ROW_RANGE.sub("", pattern) for pattern in patterns]
    names = {t.name for t in tensors if any(re.search(expression, t.name) for expression in expressions)}
    if not names:
        raise HealthError("unfrozen_parameters: no pattern matches a parameter, so nothing would be trained")
    return names
