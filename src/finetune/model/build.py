"""Weights ready to train, in the order that matters: load, new rows, adapter or freeze, precision."""

from collections.abc import Callable
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
from finetune.model.fp8 import multiply_in_fp8
from finetune.model.freeze import FrozenRows, PatternMatch, cast_frozen, unfreeze
from finetune.model.generation import align_special_tokens
from finetune.model.head import LossHead, attach_head
from finetune.model.liger import change_layers, uses_liger_loss
from finetune.model.load import load_model, stored_dtype
from finetune.model.precision import Precision
from finetune.model.stored import StoredFormat, read_stored_format
from finetune.model.summary import ParameterSummary, summarize_parameters
from finetune.model.tokenizer import LoadedTokenizer


@dataclass(frozen=True)
class Hardware:
    """How the arithmetic runs here."""

    precision: Precision
    attention: Attention


@dataclass(frozen=True)
class TrainableModel:
    """A model, and what of it trains."""

    model: PreTrainedModel | PeftModel
    hardware: Hardware
    """How it runs; the attention is the one that it really uses."""
    summary: ParameterSummary
    matches: tuple[PatternMatch, ...]
    """What each of ``unfrozen_parameters`` selected; empty without them."""
    frozen_rows: FrozenRows | None
    stored: StoredFormat
    """Formats of the base's tensors, which whole weights are saved in."""
    head: LossHead | None = None
    """The output layer, made to give losses; None where it gives logits."""


def build_model(
    model: ModelSection,
    adapter: AdapterSection,
    base: BaseModelSource,
    hardware: Hardware,
    loaded: LoadedTokenizer,
    say: Callable[[str], None],
) -> TrainableModel:
    """Load ``base``, fit it to the tokenizer, and decide what of it trains."""
    precision = hardware.precision
    dtype = precision.compute_dtype if adapter.adapter else torch.float32
    network, attention = load_model(model, base, hardware.attention, precision, dtype)
    stored = read_stored_format(base, stored_dtype(model, base))
    vocab_size, added_ids = len(loaded.tokenizer), loaded.added_ids
    if add_token_rows(network, vocab_size, added_ids):
        say(f"embeddings: grown to {vocab_size} rows for {len(added_ids)} added tokens, which start as the mean")
    align_special_tokens(network, loaded.tokenizer)
    change_layers(network, model, say)
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
        if precision.compute_dtype != torch.float32:
            cast_frozen(network, stored)
    if precision.fp8:
        say(f"fp8: {multiply_in_fp8(network, precision.fp8)} linear layers multiply in 8 bits ({precision.fp8} scales)")
    actual = Hardware(precision, attention)
    head = attach_head(network, liger=uses_liger_loss(model)) if model.chunked_cross_entropy is not False else None
    return TrainableModel(network, actual, summarize_parameters(network), matches, frozen_rows, stored, head)
