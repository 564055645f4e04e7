"""One forward and backward pass: what it holds, and at which moment the most."""

from dataclasses import dataclass

from finetune.estimate.activations import Activations, AttentionKind, Batch, Numerics, count_activations, loss_bytes
from finetune.estimate.batches import attention_kind, largest_batches
from finetune.estimate.holding import Held, adapter_settings
from finetune.estimate.layers import plan_layers
from finetune.estimate.optimizer import step_bytes
from finetune.estimate.setup import Setup
from finetune.estimate.tensors import OUTPUT_EMBEDDINGS

CHUNK_BYTES = {"cpu": 32 * 2**20, "cuda": 512 * 2**20}
"""Bytes of float32 logits that the chunked loss makes at one time."""


@dataclass(frozen=True)
class Head:
    """The output matrix."""

    num_parameters: int
    is_trained: bool
    is_tied: bool
    """It is the input embedding, too."""
    is_plain: bool
    """Nothing of an adapter is on it, so that the loss can be made in chunks."""
    is_float32: bool

    @property
    def gradient(self) -> int:
        """Bytes of its gradient, which is made with the loss."""
        return 4 * self.num_parameters if self.is_trained else 0


@dataclass(frozen=True)
class Pass:
    """What one pass of the largest batch holds."""

    batch: Batch
    attention: AttentionKind
    activations: Activations
    head: Head
    loss: int
    """Bytes of logits, losses, and the gradient of the output matrix."""
    is_whole: bool
    """Whether all logits exist at one time."""


def largest_pass(setup: Setup, held: list[Held]) -> Pass:
    """Return the pass that takes the most memory."""
    architecture, head = setup.base.architecture, find_head(held)
    numerics = _numerics(setup, held)
    # DeepSpeed holds the weights in the compute format already; products in 8 bits round them anew each time
    has_copies = setup.deepspeed is None and (not setup.training.fp8 or bool(setup.adapter.adapter))
    layers = plan_layers(
        architecture, held, adapter=bool(setup.adapter.adapter), dora=setup.uses_dora, has_copies=has_copies
    )
    is_whole = setup.model.chunked_cross_entropy is False or not head.is_plain
    chunk = None if is_whole else CHUNK_BYTES[setup.device.kind]
    of_head = (0 if is_whole else head.gradient) + (_head_copies(setup, head) if numerics.compute == 2 else 0)
    batches = largest_batches(setup, numerics.attention)
    passes = [
        Pass(
            batch,
            numerics.attention,
            count_activations(architecture, layers, numerics, batch, checkpointing=setup.checkpoints),
            head,
            of_head + loss_bytes(architecture, numerics, batch.num_tokens, chunk_bytes=chunk),
            is_whole,
        )
        for batch in batches
    ]
    return max(passes, key=lambda one: one.activations.saved + one.activations.layer + one.loss)


def find_head(held: list[Held]) -> Head:
    """Return what is known of the output matrix; where there is none, it is the input embedding."""
    of_output = [t for t in held if set(OUTPUT_EMBEDDINGS) & set(t.name.split("."))]
    whole = [t for t in of_output if t.name.endswith((".weight", ".modules_to_save"))]
    matrix = whole[-1] if whole else next(t for t in held if t.is_embedding and not t.of_adapter)
    on_it = [t for t in of_output if t.of_adapter and t not in whole]
    rows = [t for t in held if t.name.endswith(".token_adapter")]
    return Head(
        matrix.num_parameters,
        is_trained=matrix.trained,
        is_tied=not whole,
        is_plain=not on_it and not rows and not matrix.constants,
        is_float32=matrix.num_bytes == 4 * matrix.num_parameters,
    )


def _head_copies(setup: Setup, head: Head) -> int:
    """The loss multiplies with a 16-bit copy, and autocast keeps one more of a matrix that trains."""
    if setup.deepspeed is not None or not head.is_float32:
        return 0
    return (4 if head.is_trained else 2) * head.num_parameters


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
        attention=attention_kind(setup),
        adapter=bool(setup.adapter.adapter),
        dropout_mask=mark if dropout else 0,
    )


def moments_of(setup: Setup, one: Pass, held: list[Held], gradients: int) -> dict[str, int]:
    """Return what passes at each moment of a step: what does not exist at the same time is not added.

    ``gradients`` are the bytes of all gradients on the device.
    """
    kept = gradients if setup.training.gradient_accumulation_steps > 1 or setup.deepspeed is not None else 0
    activations, head = one.activations, one.head
    trained_bytes = sum(tensor.num_bytes for tensor in held if tensor.trained)
    step = step_bytes(setup.training.optimizer, trained_bytes)
    of_head = head.gradient if head.is_tied or not kept else 0
    last = max(gradients - head.gradient - (gradients - head.gradient) // setup.base.architecture.num_layers, 0)
    again = activations.layer + activations.copies // setup.base.architecture.num_layers if setup.checkpoints else 0
    top = activations.saved + again + (0 if setup.checkpoints else activations.copies)
    bottom = max(activations.layer, again) + (kept or last) + of_head
    return {
        "the loss": activations.saved + activations.copies + one.loss + kept,
        "the backward pass": max(top + head.gradient + kept, bottom) + activations.working,
        "the end of the backward pass": gradients + (head.gradient if head.is_tied else 0),
        "the optimizer's step": gradients + step,
    }
