"""The forward pass that takes the most memory, of all that a configuration lets happen."""

from finetune.estimate.activations import AttentionKind, Batch
from finetune.estimate.setup import Setup

PAD_TO_MULTIPLE_OF = 64
"""Padded batches have a length that is a multiple of this."""
SHORT = 512
"""Tokens up to which a sample is attended by plain products in bfloat16 on a CPU: ``finetune.model.segments``."""


def attention_kind(setup: Setup) -> AttentionKind:
    """Return how a run attends; the counterpart of ``finetune.model.attention``, for a GPU of the last years."""
    model = setup.model
    eager_only = setup.base.architecture.model_type == "gemma2"  # it caps attention scores, which sdpa cannot
    if model.eager_attention or model.attn_implementation == "eager" or eager_only:
        return "eager"
    if model.sdp_attention or model.flex_attention or model.attn_implementation in ("sdpa", "flex_attention"):
        return "masked"
    if setup.device.kind == "cpu":
        return "segments"
    return "flash" if setup.compute_bytes == 2 else "masked"


def largest_batches(setup: Setup, attention: AttentionKind) -> tuple[Batch, ...]:
    """Return the passes of which one takes the most: every row full, or every sample as long as probabilities are kept.

    A pack is filled with samples of that length; a row of its own holds no more than one.
    """
    micro, width, packs = setup.training.micro_batch_size, setup.data.sequence_len, setup.data.sample_packing
    if not packs and attention not in ("flash", "segments"):
        width = -(-width // PAD_TO_MULTIPLE_OF) * PAD_TO_MULTIPLE_OF
    full = Batch(micro * width, width)
    if attention != "segments" or setup.compute_bytes != 2:
        return (full,)
    short = min(width, SHORT)
    if packs:
        return (Batch(full.num_tokens, width, short),)
    return (full, Batch(micro * short, short, short)) if width > SHORT else (Batch(full.num_tokens, width, width),)
