"""The memory of a run on one device, part by part, and its peak."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune.config.adapter import AdapterSection
from finetune.config.data import DataSection
from finetune.config.model import ModelSection
from finetune.config.training import TrainingSection
from finetune.estimate.activations import (
    Activations,
    AttentionKind,
    Batch,
    Numerics,
    count_activations,
    logit_bytes,
)
from finetune.estimate.devices import PROCESS, Device
from finetune.estimate.holding import Held, adapter_settings, hold
from finetune.estimate.layers import plan_layers
from finetune.estimate.optimizer import KINDS, state_bytes, step_bytes
from finetune.estimate.sharding import Sharding, read_sharding
from finetune.estimate.tensors import Base
from finetune.model.processor import cpu_has_bf16

CHUNK_BYTES = {"cpu": 32 * 2**20, "cuda": 512 * 2**20}
"""Bytes of float32 logits that the chunked loss makes at one time."""
PAD_TO_MULTIPLE_OF = 64


@dataclass(frozen=True)
class Setup:
    """All that the memory of a run depends on."""

    model: ModelSection
    adapter: AdapterSection
    data: DataSection
    training: TrainingSection
    deepspeed: Mapping[str, Any] | None
    """Contents of the DeepSpeed file."""
    base: Base
    num_added: int
    """Tokens that the base's tokenizer does not have."""
    device: Device
    num_processes: int

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number in matrix products: see ``finetune.model.precision``."""
        training = self.training
        if training.fp16 and training.bf16 is not True:
            return 2
        if training.bf16 is False:
            return 4
        if self.device.kind == "cuda":
            return 2
        if self.deepspeed is not None:
            return 4
        return 2 if training.bf16 is True or cpu_has_bf16() else 4


@dataclass(frozen=True)
class Part:
    """One line of the table."""

    name: str
    device: int
    """Bytes on each device."""
    host: int = 0
    """Bytes in the memory of the machine, for each process."""
    note: str = ""


@dataclass(frozen=True)
class Estimate:
    """The memory of one process."""

    parts: tuple[Part, ...]
    peak: int
    """Bytes on the device at the worst moment."""
    peak_at: str
    """Which moment that is."""
    host: int
    """Bytes in the machine's memory; 0 where that is the device."""
    num_parameters: int
    num_trained: int
    notes: tuple[str, ...] = ()

    def part(self, name: str) -> Part:
        """Return one line by its name."""
        return next(part for part in self.parts if part.name == name)


def estimate(setup: Setup) -> Estimate:
    """Estimate the memory of a run.

    Raises:
        ConfigError: a target or pattern does not fit the model.
        HealthError: nothing would be trained.
        ModelError: ``lora_model_dir`` cannot be read.
    """
    held = hold(setup.model, setup.adapter, setup.base, setup.compute_bytes, setup.num_added)
    trained = [tensor for tensor in held if tensor.trained]
    sharding = (
        None
        if setup.deepspeed is None
        else read_sharding(setup.deepspeed, setup.num_processes, setup.base.architecture.hidden_size)
    )
    resident = [*_weights(setup, held, sharding), *_states(setup, trained, sharding)]
    gradients = _gradients(setup, trained, sharding)
    activations, logits = _activations(setup, held)
    passing = [
        Part("activations", activations.saved, note=_batch_note(setup)),
        Part("one layer, computed again", activations.layer if _checkpoints(setup) else 0),
        Part("16-bit copies of trained weights", activations.copies, note="made by autocast"),
        Part("logits and loss", logits),
    ]
    buffers = [*_buffers(setup, held, trained, sharding), _own(setup)]
    moments = _moments(setup, gradients.device, activations, logits, sum(tensor.num_bytes for tensor in trained))
    peak_at = max(moments, key=lambda moment: moments[moment])
    peak = sum(part.device for part in (*resident, *buffers)) + moments[peak_at]
    parts = tuple(part for part in (*resident, gradients, *passing, *buffers) if part.device or part.host)
    on_cuda = setup.device.kind == "cuda"
    return Estimate(
        parts,
        peak,
        peak_at,
        sum(part.host for part in parts) + PROCESS if on_cuda else 0,
        num_parameters=sum(tensor.num_parameters for tensor in held),
        num_trained=sum(tensor.num_parameters for tensor in trained),
        notes=tuple(_notes(setup)),
    )


def _weights(setup: Setup, held: list[Held], sharding: Sharding | None) -> list[Part]:
    """Weights as they lie in memory; DeepSpeed brings all to the compute format and ZeRO-3 spreads them."""
    base = [tensor for tensor in held if not tensor.of_adapter]
    constants = Part("quantization constants", sum(tensor.constants for tensor in base))
    if sharding is None:
        sizes = [sum(t.num_bytes for t in tensors) for tensors in (base, [t for t in held if t.of_adapter])]
        return [Part("weights", sizes[0], note=_format_note(setup)), constants, Part("adapter", sizes[1])]
    parts = []
    for name, tensors in (("weights", base), ("adapter", [t for t in held if t.of_adapter])):
        size = sum(t.num_bytes if t.constants else setup.compute_bytes * t.num_parameters for t in tensors)
        share = -(-size // sharding.weight_parts)
        on_host = sharding.offloads_weights and sharding.stage >= 3
        parts.append(Part(name, 0 if on_host else share, share if on_host else 0, _format_note(setup)))
    return [parts[0], constants, parts[1]]


def _states(setup: Setup, trained: list[Held], sharding: Sharding | None) -> list[Part]:
    """Optimizer states; under DeepSpeed one flat part for each process, and the float32 weights beside it."""
    kind = KINDS[setup.training.optimizer]
    if sharding is None:
        size = sum(state_bytes(kind, t.shape, is_embedding=t.is_embedding) for t in trained)
        note = f"{setup.training.optimizer}{', may move to the host' if kind.paged else ''}"
        return [Part("optimizer states", size, note=note)]
    count = -(-sum(t.num_parameters for t in trained) // sharding.optimizer_parts)
    needs_master = sharding.stage > 0 or setup.compute_bytes == 2
    sizes = {
        "float32 copy of trained weights": 4 * count if needs_master else 0,
        "optimizer states": state_bytes(kind, (count,)),
    }
    away = sharding.offloads_optimizer
    return [Part(name, 0 if away else size, size if away else 0, _zero_note(sharding)) for name, size in sizes.items()]


def _gradients(setup: Setup, trained: list[Held], sharding: Sharding | None) -> Part:
    count = sum(tensor.num_parameters for tensor in trained)
    if sharding is None:
        return Part("gradients", 4 * count)
    own = -(-count // sharding.gradient_parts)
    widened = 4 * -(-count // sharding.optimizer_parts) if setup.compute_bytes == 2 else 0
    if sharding.offloads_optimizer:
        return Part("gradients", setup.compute_bytes * own, widened, _zero_note(sharding))
    return Part("gradients", setup.compute_bytes * own + widened, note=_zero_note(sharding))


def _activations(setup: Setup, held: list[Held]) -> tuple[Activations, int]:
    architecture = setup.base.architecture
    numerics = _numerics(setup, held)
    # DeepSpeed holds the weights in the compute format already; products in 8 bits round them anew each time
    has_copies = setup.deepspeed is None and (not setup.training.fp8 or bool(setup.adapter.adapter))
    layers = plan_layers(
        architecture, held, adapter=bool(setup.adapter.adapter), dora=_dora(setup), has_copies=has_copies
    )
    batch = _batch(setup)
    activations = count_activations(architecture, layers, numerics, batch, checkpointing=_checkpoints(setup))
    logits = logit_bytes(architecture, numerics, batch.num_tokens, chunk_bytes=_chunk_bytes(setup))
    if numerics.compute == 2 and setup.deepspeed is None:
        head = next((t for t in reversed(held) if t.name.startswith(("lm_head", "model.embed_tokens"))), None)
        logits += 2 * head.num_parameters if head and head.num_bytes == 4 * head.num_parameters else 0
    return activations, logits


def _chunk_bytes(setup: Setup) -> int | None:
    return None if setup.model.chunked_cross_entropy is False else CHUNK_BYTES[setup.device.kind]


def _dora(setup: Setup) -> bool:
    return bool(adapter_settings(setup.adapter).get("use_dora", setup.adapter.peft_use_dora))


def _batch(setup: Setup) -> Batch:
    """The largest pass: every row as long as ``sequence_len`` lets it be."""
    width = setup.data.sequence_len
    if not setup.data.sample_packing:
        width = -(-width // PAD_TO_MULTIPLE_OF) * PAD_TO_MULTIPLE_OF
    return Batch(setup.training.micro_batch_size * width, width)


def _numerics(setup: Setup, held: list[Held]) -> Numerics:
    compute = setup.compute_bytes
    embedding = next(tensor for tensor in held if tensor.is_embedding and not tensor.of_adapter)
    residual = compute if setup.deepspeed else embedding.num_bytes // max(embedding.num_parameters, 1)
    dropout = adapter_settings(setup.adapter).get("lora_dropout", setup.adapter.lora_dropout)
    mark = 1 if setup.device.kind == "cuda" else 4
    return Numerics(
        compute=compute,
        residual=residual,
        gated=residual if setup.model.load_in_4bit else compute,
        attention=_attention(setup),
        adapter=bool(setup.adapter.adapter),
        dropout_mask=mark if dropout else 0,
    )


def _attention(setup: Setup) -> AttentionKind:
    model = setup.model
    eager_only = setup.base.architecture.model_type == "gemma2"  # it caps attention scores, which sdpa cannot
    if model.eager_attention or model.attn_implementation == "eager" or eager_only:
        return "eager"
    return "masked" if model.sdp_attention or model.attn_implementation == "sdpa" else "segments"


def _buffers(setup: Setup, held: list[Held], trained: list[Held], sharding: Sharding | None) -> list[Part]:
    count = sum(tensor.num_parameters for tensor in trained)
    if sharding is not None:
        whole = sum(tensor.num_parameters for tensor in held)
        return [Part("DeepSpeed's buckets", sharding.buffer_bytes(count, whole, setup.compute_bytes))]
    return [Part("buckets of gradients", 4 * count if setup.num_processes > 1 else 0, note="summed over processes")]


def _own(setup: Setup) -> Part:
    name = "CUDA context" if setup.device.kind == "cuda" else "process and libraries"
    return Part(name, setup.device.own_bytes)


def _moments(setup: Setup, gradients: int, activations: Activations, logits: int, trained_bytes: int) -> dict[str, int]:
    """Return what passes at three moments: what does not exist at the same time is not added."""
    kept = gradients if setup.training.gradient_accumulation_steps > 1 or setup.deepspeed is not None else 0
    start = activations.saved + (activations.layer if _checkpoints(setup) else 0)
    step = step_bytes(setup.training.optimizer, trained_bytes)
    return {
        "the loss": activations.saved + activations.copies + logits + kept,
        "the backward pass": max(start + kept, gradients + activations.layer),
        "the optimizer's step": gradients + step,
    }


def _checkpoints(setup: Setup) -> bool:
    return setup.training.gradient_checkpointing is True


def _batch_note(setup: Setup) -> str:
    batch = _batch(setup)
    return f"{batch.num_tokens:,} tokens, {_attention(setup)} attention"


def _format_note(setup: Setup) -> str:
    if setup.model.load_in_4bit:
        return "4 bits, the rest float32"
    if setup.model.load_in_8bit:
        return "8 bits, the rest float32"
    if setup.deepspeed is not None or setup.adapter.adapter:
        return "16 bits" if setup.compute_bytes == 2 else "float32"
    return "float32" if not setup.model.unfrozen_parameters else "trained float32, frozen as stored"


def _zero_note(sharding: Sharding) -> str:
    away = ", on the host" if sharding.offloads_optimizer else ""
    return f"ZeRO-{sharding.stage}, {sharding.num_processes} processes{away}"


def _notes(setup: Setup) -> list[str]:
    notes = []
    architecture = setup.base.architecture
    if not architecture.is_known:
        notes.append(f"activations: a '{architecture.model_type}' is counted like a Llama of its size")
    if not setup.base.has_headers:
        notes.append("weights: shapes follow from config.json, since there are no weights here to read headers of")
    return notes
