"""Floating point operations of training, per token: what a model has to do, however it is computed.

The numbers are those that a utilization (MFU) divides by the peak of the device.  A product with a matrix of ``n``
parameters costs ``2n`` for a token; its backward pass costs that once for the gradient of the input and once more
where the matrix is trained.  Causal attention costs ``2 x length x width`` for a token and layer, and twice that
backward.  Norms, activations, the embedding's look-up and the optimizer are left out, as is usual (Kaplan 2020,
Appendix B; Chowdhery 2022, Appendix B).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from finetune.estimate.architecture import Architecture


@dataclass(frozen=True)
class MatmulShape:
    """The matrices that each token is multiplied with."""

    layer_parameters: int
    """Parameters of the matrices of all layers."""
    head_parameters: int
    """Parameters of the output embedding; a tied one counts, since it is multiplied with."""
    attention_width: int
    """Heads x size of a head."""
    num_layers: int
    sliding_window: int | None = None
    """Tokens that attention sees at most."""


@dataclass(frozen=True)
class Trained:
    """What of a model is trained."""

    matmul_parameters: int = 0
    """Trained parameters of the matrices themselves: all of them in full training, none under an adapter."""
    adapter_parameters: int = 0
    first_layer: int = 0
    """The lowest layer with trained parameters: the backward pass ends there."""


def matmul_shape(architecture: Architecture) -> MatmulShape:
    """Return the matrices of a decoder with gated feed-forward blocks."""
    hidden, query, kv = architecture.hidden_size, architecture.query_width, architecture.kv_width
    layer = hidden * (2 * query + 2 * kv) + 3 * hidden * architecture.intermediate_size
    return MatmulShape(
        layer_parameters=architecture.num_layers * layer,
        head_parameters=hidden * architecture.vocab_size,
        attention_width=query,
        num_layers=architecture.num_layers,
        sliding_window=architecture.sliding_window,
    )


def everything(shape: MatmulShape) -> Trained:
    """Full training."""
    return Trained(matmul_parameters=shape.layer_parameters + shape.head_parameters)


def attended_length(lengths: Iterable[int]) -> float:
    """Return ``sum(length^2) / sum(length)``: how long a sequence is to its average token.

    Packed samples do not see each other, so that each counts by itself.
    """
    total = squares = 0
    for length in lengths:
        total += length
        squares += length * length
    return squares / total if total else 0.0


def flops_per_token(
    shape: MatmulShape,
    attended: float,
    trained: Trained,
    *,
    gradient_checkpointing: bool = False,
    head_share: float = 1.0,
) -> float:
    """Return the floating point operations of one token's forward and backward pass.

    Full training is three forward passes; an adapter saves the gradient of the base's matrices, which is a third of
    the products, and adds six operations for each of its own parameters; gradient checkpointing adds one more
    forward pass of the layers.

    Args:
        shape: the matrices of the model.
        attended: see :func:`attended_length`; for sequences of one length, that length.
        trained: what of the model is trained.
        gradient_checkpointing: count the layers' second forward pass; leave it out for an MFU, where only necessary
            work counts (with it the quotient is the hardware's utilization, HFU).
        head_share: the share of the tokens whose logits are computed.
    """
    seen = min(attended, shape.sliding_window) if shape.sliding_window else attended
    attention = 2 * seen * shape.attention_width * shape.num_layers
    layers, head = 2 * shape.layer_parameters, 2 * shape.head_parameters * head_share
    reached = (shape.num_layers - trained.first_layer) / shape.num_layers
    forward = layers + attention + head
    backward = reached * (layers + 2 * attention) + head
    gradients = 2 * trained.matmul_parameters + 6 * trained.adapter_parameters
    again = layers + attention if gradient_checkpointing else 0
    return forward + backward + gradients + again
