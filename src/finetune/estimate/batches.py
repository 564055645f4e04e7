"""The forward pass that takes the most memory, of all that a configuration lets happen."""

from finetune.config.data import DataSection
from finetune.config.model import ModelSection
from finetune.config.training import TrainingSection
from finetune.estimate.activations import AttentionKind, Batch
from finetune.estimate.architecture import Architecture
from finetune.estimate.devices import Device

PAD_TO_MULTIPLE_OF = 64
"""Padded batches have a length that is a multiple of this."""
SHORT = 512
"""Tokens up to which a sample is attended by plain products in bfloat16 on a CPU: ``finetune.model.segments``."""


def attention_kind(
    model: ModelSection, architecture: Architecture, device: Device, compute_bytes: int
) -> AttentionKind:
    """Return how a run attends; the counterpart of ``finetune.model.attention``, for a GPU of the last years."""
    eager_only = architecture.model_type == "gemma2"  # it caps attention scores, which sdpa cannot
    if model.eager_attention or model.attn_implementation == "eager" or eager_only:
        return "eager"
    if model.sdp_attention or model.flex_attention or model.attn_implementation in ("sdpa", "flex_attention"):
        return "masked"
    if device.kind == "cpu":
        return "segments"
    return "flash" if compute_bytes == 2 else "masked"


def largest_batches(
    data: DataSection, training: TrainingSection, attention: AttentionKind, device: Device, compute_bytes: int
) -> tuple[Batch, ...]:
    """Return the passes of which one takes the most: every row full, or every sample as long as probabilities are kept.

    A pack is filled with samples of that length; a row of its own holds no more than one.
    """
    micro, width = training.micro_batch_size, data.sequence_len
    is_flat = attention in ("flash", "segments")
    if not data.sample_packing and not is_flat:
        width = -(-width // PAD_TO_MULTIPLE_OF) * PAD_TO_MULTIPLE_OF
    full = Batch(micro * width, width)
    if attention != "segments" or device.kind != "cpu" or compute_bytes != 2:
        return (full,)
    short = min(width, SHORT)
    if data.sample_packing:
        return (Batch(full.num_tokens, width, short),)
    return (full, Batch(micro * short, short, short)) if width > SHORT else (Batch(full.num_tokens, width, width),)
