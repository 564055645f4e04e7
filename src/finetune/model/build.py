"""Weights ready to train, in the order that matters: load, new rows, adapter or freeze, precision."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from finetune.config.adapter import AdapterSection
from finetune.config.model import ModelSection
from finetune.model.adapters import add_adapter
from finetune.model.attention import Attention
from finetune.model.base import BaseModelSource
from finetune.model.embeddings import add_token_rows
from finetune.model.freeze import FrozenRows, PatternMatch, cast_frozen, unfreeze
from finetune.model.load import load_model, stored_dtype
from finetune.model.precision import Precision
from finetune.model.summary import ParameterSummary, summarize_parameters


@dataclass(frozen=True)
class TrainableModel:
    """A model, and what of it trains."""

    model: PreTrainedModel | PeftModel
    summary: ParameterSummary
    matches: tuple[PatternMatch, ...]
    """What each of ``unfrozen_parameters`` selected; empty without them."""
    frozen_rows: FrozenRows | None
    stored_dtype: torch.dtype
    """Format of the base's weights, which whole weights are saved in."""


@dataclass(frozen=True)
class Hardware:
    """How the arithmetic runs here."""

    precision: Precision
    attention: Attention


def build_model(
    model: ModelSection,
    adapter: AdapterSection,
    base: BaseModelSource,
    hardware: Hardware,
    tokens: tuple[int, Sequence[int]],
    say: Callable[[str], None],
) -> TrainableModel:
    """Load ``base`` and decide what of it trains.

    ``tokens`` are the size of the tokenizer's vocabulary and the ids of the tokens that were added to it.
    """
    precision = hardware.precision
    dtype = precision.compute_dtype if adapter.adapter else torch.float32
    network = load_model(model, base, hardware.attention, precision, dtype)
    vocab_size, added_ids = tokens
    if add_token_rows(network, vocab_size, added_ids):
        say(f"embeddings: grown to {vocab_size} rows for {len(added_ids)} added tokens, which start as the mean")
    matches: tuple[PatternMatch, ...] = ()
    frozen_rows = None
    if adapter.adapter:
        network = add_adapter(network, adapter, added_ids, quantized=model.quantized)
    elif model.unfrozen_parameters:
        unfrozen = unfreeze(network, model.unfrozen_parameters)
        matches = unfrozen.matches
        for warning in unfrozen.warnings:
            say(f"WARNING {warning}")
        frozen_rows = FrozenRows(network, unfrozen.ranges) if unfrozen.ranges else None
        cast_frozen(network, precision.compute_dtype)
    return TrainableModel(network, summarize_parameters(network), matches, frozen_rows, stored_dtype(model, base))
