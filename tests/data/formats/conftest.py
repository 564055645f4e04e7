"""A byte-level tokenizer written out by hand, so that its ids never change, and builders of formats."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from finetune.config.data import DataSection, DatasetEntry
from finetune.data.formats import Format, resolve_format
from finetune.data.tokenize import IGNORE_INDEX, Tokens, tokenize_samples

SPECIAL = [
    "<s>",
    "</s>",
    "<pad>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
MERGES = [("Ċ", "Ċ"), ("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "n"), ("Ġ", "a"), ("s", "s"), ("1", "2")]

Runs = list[tuple[str, bool]]
BuildFormat = Callable[..., Format]
Encode = Callable[..., Tokens]
ShowRuns = Callable[..., Runs]


def build_tokenizer(eos: str, bos: str = "<s>") -> PreTrainedTokenizerFast:
    """Bytes, eight merges and the special tokens; ``<s>`` is put in front of every text."""
    words = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in MERGES)]
    backend = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos, pad_token="<pad>")


@pytest.fixture(scope="session")
def plain_tokenizer() -> PreTrainedTokenizerFast:
    """EOS is ``</s>``."""
    return build_tokenizer("</s>")


@pytest.fixture(scope="session")
def chat_tokenizer() -> PreTrainedTokenizerFast:
    """EOS is ChatML's ``<|im_end|>``."""
    return build_tokenizer("<|im_end|>")


@pytest.fixture
def build_format(plain_tokenizer: PreTrainedTokenizerFast) -> BuildFormat:
    """Build a format from an entry's keys; ``data`` holds top-level keys."""

    def build(
        tokenizer: PreTrainedTokenizerFast = plain_tokenizer, data: Mapping[str, Any] | None = None, **entry: Any
    ) -> Format:
        config = DatasetEntry(**{"path": "rows.jsonl", **entry})
        defaults = {"eval_sample_packing": False, "pad_to_sequence_len": False}
        section = DataSection(datasets=[config], **{**defaults, **(data or {})})
        return resolve_format(config, section, tokenizer)

    return build


@pytest.fixture
def encode(build_format: BuildFormat, plain_tokenizer: PreTrainedTokenizerFast) -> Encode:
    """Turn one row into tokens."""

    def tokens(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast = plain_tokenizer, **keys: Any) -> Tokens:
        return tokenize_samples([build_format(tokenizer, **keys)(row)], tokenizer)[0]

    return tokens


@pytest.fixture
def runs(encode: Encode, plain_tokenizer: PreTrainedTokenizerFast) -> ShowRuns:
    """Turn one row into stretches of text, each trained or not, as the model sees them."""

    def show(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast = plain_tokenizer, **keys: Any) -> Runs:
        return as_runs(encode(row, tokenizer, **keys), tokenizer)

    return show


def as_runs(tokens: Tokens, tokenizer: PreTrainedTokenizerFast) -> Runs:
    """Decode neighbouring tokens with the same mask together."""
    groups: list[tuple[list[int], bool]] = []
    for token, label in zip(tokens.input_ids, tokens.labels, strict=True):
        trained = label != IGNORE_INDEX
        assert label in (token, IGNORE_INDEX)
        if not groups or groups[-1][1] != trained:
            groups.append(([], trained))
        groups[-1][0].append(token)
    return [(tokenizer.decode(ids), trained) for ids, trained in groups]
