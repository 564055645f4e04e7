"""The memory of a run on one device, part by part, and its peak."""

from dataclasses import dataclass

from finetune.estimate.devices import PROCESS
from finetune.estimate.holding import Held, hold
from finetune.estimate.optimizer import KINDS, state_bytes
from finetune.estimate.passes import Pass, largest_pass, moments_of
from finetune.estimate.setup import Setup
from finetune.estimate.sharding import Sharding, read_sharding


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
    largest = largest_pass(setup, held)
    logits = "all logits at one time" if largest.is_whole else "a few logits at a time"
    passing = [
        Part("activations", largest.activations.saved, note=_batch_note(largest)),
        Part("one layer, computed again", largest.activations.layer if setup.checkpoints else 0),
        Part("16-bit copies of trained weights", largest.activations.copies, note="made by autocast"),
        Part(
            "logits and loss",
            largest.loss,
            note=logits,
        ),
    ]
    buffers = [*_buffers(setup, held, trained, sharding), _own(setup)]
    moments = moments_of(setup, largest, held, gradients.device)
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


def _buffers(setup: Setup, held: list[Held], trained: list[Held], sharding: Sharding | None) -> list[Part]:
    count = sum(tensor.num_parameters for tensor in trained)
    if sharding is not None:
        whole = sum(tensor.num_parameters for tensor in held)
        return [Part("DeepSpeed's buckets", sharding.buffer_bytes(count, whole, setup.compute_bytes))]
    return [Part("buckets of gradients", 4 * count if setup.num_processes > 1 else 0, note="summed over processes")]


def _own(setup: Setup) -> Part:
    name = "CUDA context" if setup.device.kind == "cuda" else "process and libraries"
    return Part(name, setup.device.own_bytes)


def _batch_note(largest: Pass) -> str:
    batch = largest.batch
    samples = f" in samples of {batch.short:,}" if 0 < batch.short < batch.num_tokens else ""
    return f"{batch.num_tokens:,} tokens{samples}, {largest.attention} attention"


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
