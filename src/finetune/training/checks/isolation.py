"""Proof, on the model at hand, that packed samples do not see each other."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from finetune.data.collate import PackedCollator
from finetune.errors import ModelError
from finetune.model.build import TrainableModel
from finetune.model.head import on_device

LENGTH = 6
"""Tokens of each sample of the probe."""


def check_isolation(trainable: TrainableModel, vocab_size: int, say: Callable[[str], None]) -> None:
    """Compare the logits of two samples, each packed behind two different neighbours; two short forward passes.

    Shapes and positions are the same in both passes, so an isolated sample has the same logits to the last bits, and
    any other difference comes from the neighbour.  Attention backends, and layers with a running state (Mamba, linear
    attention) that ignore ``position_ids``, are found this way, whatever their names.  What neighbours in rows of
    their own move (8-bit products share a scale over the batch) is no leak and is allowed for; two more passes find it
    out where something moves.

    Raises:
        ModelError: the neighbour shows in the logits.
    """
    tokens = np.random.default_rng(0).integers(0, vocab_size, (6, LENGTH)).astype(np.int32)
    first, second, samples = tokens[:2], tokens[2:4], tokens[4:]

    def move(*, packed: bool) -> tuple[float, float]:
        one, other = (_logits(trainable, neighbours, samples, packed=packed) for neighbours in (first, second))
        return (one - other).abs().max().item(), one.abs().max().item()

    difference, scale = move(packed=True)
    if difference > 1e-3 * scale and difference > 1e-3 * scale + 2 * move(packed=False)[0]:
        raise ModelError(
            f"self-check: on this model samples side by side see each other (a neighbour moves logits of up to "
            f"{scale:.3g} by {difference:.3g}). Set attn_implementation: sdpa; if that does not help, "
            "sample_packing: false"
        )
    say(f"check samples: side by side they are isolated (a neighbour moves logits by {difference:.1g} of {scale:.3g})")


def _logits(trainable: TrainableModel, neighbours: Any, samples: Any, *, packed: bool) -> torch.Tensor:
    """Return the logits of ``samples``, each behind its neighbour or in a row of its own, as float32."""
    attention = trainable.hardware.attention
    pairs = [[{"input_ids": ids, "labels": ids} for ids in pair] for pair in zip(neighbours, samples, strict=True)]
    bins = pairs if packed else [[sample] for pair in pairs for sample in pair]
    flatten = attention.flatten and packed
    batch = PackedCollator(pad_token_id=0, sequence_len=LENGTH * len(bins[0]), flatten=flatten)(bins)
    model = trainable.model
    device = next(model.parameters()).device
    inputs = on_device({name: value for name, value in batch.items() if name != "labels"}, device)
    was_training = model.training
    model.eval()
    with torch.no_grad(), trainable.hardware.precision.autocast():
        logits: torch.Tensor = model(**inputs).logits.float()
    model.train(was_training)
    # neighbour, sample, neighbour, sample: in whatever rows they stand
    return logits.reshape(4, LENGTH, -1)[1::2]
