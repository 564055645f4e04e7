"""The first half of the story: a tokenizer and prepared data.  ``finetune preprocess`` ends here, training goes on."""

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from finetune.config import RunConfig
from finetune.data.prepare import PreparedData, prepare
from finetune.data.render import load_chat_template
from finetune.model.base import BaseModelSource, find_base
from finetune.model.tokenizer import load_tokenizer

Say = Callable[[str], None]


@dataclass(frozen=True)
class Preprocessed:
    """What training needs before any weights are loaded."""

    base: BaseModelSource
    tokenizer: PreTrainedTokenizerBase
    added_ids: tuple[int, ...]
    data: PreparedData


def preprocess(config: RunConfig, say: Say) -> Preprocessed:
    """Load the tokenizer with its added tokens and chat template, and tokenize the data (or find it prepared).

    Raises:
        ModelError, DataError, ConfigError, CheckpointError: see the functions called.
    """
    base = find_base(config.model)
    loaded = load_tokenizer(config.model, base)
    tokenizer = loaded.tokenizer
    if config.data.chat_template:
        tokenizer.chat_template = load_chat_template(
            config.data.chat_template, config.data.chat_template_jinja, tokenizer
        )
    data = prepare(config.data, tokenizer, seed=config.training.seed)
    for note in (*config.source.notes, *loaded.notes, *data.notes):
        say(note)
    return Preprocessed(base, tokenizer, loaded.added_ids, data)
