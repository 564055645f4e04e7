"""The tokenizer, with the tokens and the chat template that the configuration adds."""

import re
from dataclasses import dataclass
from pathlib import Path

from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from finetune.config.model import ModelSection, SpecialTokens
from finetune.errors import ConfigError, ModelError
from finetune.model.base import BaseModelSource
from finetune.model.light import PADS_WITH_END


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer and what was done to it."""

    tokenizer: PreTrainedTokenizerBase
    added_ids: tuple[int, ...]
    """Ids of the tokens that the base's tokenizer did not have."""
    notes: tuple[str, ...] = ()


def load_tokenizer(model: ModelSection, base: BaseModelSource) -> LoadedTokenizer:
    """Load the tokenizer of ``base`` and add ``special_tokens`` and ``tokens``, in this order, as Axolotl does.

    A tokenizer without a padding token pads with its end token; that is harmless, because padding is masked by
    position and never by id.

    Raises:
        ModelError: there is no tokenizer, or it is a slow one without character offsets.
        ConfigError: ``tokenizer_type`` names no tokenizer class.
    """
    tokenizer = _load(model, base)
    size = len(tokenizer)
    known = tokenizer.get_vocab()
    roles = model.special_tokens.model_dump(exclude_none=True)
    more = roles.pop("additional_special_tokens", None)
    special = {role: AddedToken(token, rstrip=False, lstrip=False, normalized=False) for role, token in roles.items()}
    if special:
        tokenizer.add_special_tokens(special)
    if more:
        tokenizer.add_special_tokens({"additional_special_tokens": more})
    if model.tokens:
        tokenizer.add_tokens(
            [AddedToken(token, rstrip=False, lstrip=False, normalized=False) for token in model.tokens]
        )
    added = tuple(sorted(index for token, index in tokenizer.get_vocab().items() if token not in known))
    assert len(tokenizer) == size + len(added)
    notes = []
    if tokenizer.eos_token is None:
        raise ModelError(f"{base.name}: its tokenizer has no end token; set special_tokens.eos_token")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
        notes.append(PADS_WITH_END.format(tokenizer.eos_token))
    tokenizer.padding_side = "right"
    return LoadedTokenizer(tokenizer, added, tuple(notes))


def load_saved_tokenizer(model: ModelSection, base: BaseModelSource, folder: Path | None) -> LoadedTokenizer:
    """Load the tokenizer that a run saved in ``folder``, else that of the configuration; see :func:`load_tokenizer`."""
    if folder is None or not (folder / "tokenizer.json").is_file():
        return load_tokenizer(model, base)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = model.model_copy(update={"special_tokens": SpecialTokens(), "tokens": []})
    known = load_tokenizer(plain, base).tokenizer.get_vocab()
    return LoadedTokenizer(
        tokenizer, tuple(sorted(index for token, index in tokenizer.get_vocab().items() if token not in known))
    )


def _load(model: ModelSection, base: BaseModelSource) -> PreTrainedTokenizerBase:
    loader = AutoTokenizer
    if model.tokenizer_type not in (None, "AutoTokenizer"):
        loader = tokenizer_class_from_name(model.tokenizer_type)
        if loader is None:
            raise ConfigError(
                f"tokenizer_type: transformers has no tokenizer class {model.tokenizer_type}; use AutoTokenizer"
            )
    try:
        tokenizer = loader.from_pretrained(
            base.name, revision=base.revision, trust_remote_code=model.trust_remote_code, use_fast=True
        )
    except (OSError, ValueError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{base.name}: its tokenizer cannot be loaded: {first_line}") from error
    _refuse_template_paths(tokenizer, base)
    if loader is not AutoTokenizer:
        _refuse_other_tokens(tokenizer, model, base)
    if not tokenizer.is_fast:
        raise ModelError(f"{base.name}: only tokenizers with a tokenizer.json (fast tokenizers) are supported")
    return tokenizer


def _refuse_template_paths(tokenizer: PreTrainedTokenizerBase, base: BaseModelSource) -> None:
    """Each of several chat templates is saved in a file of its name."""
    named = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
    for name in named:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ModelError(
                f"{base.name}: its tokenizer has a chat template named {name!r}, which is no name of a file; rename it "
                "in tokenizer_config.json"
            )


def _refuse_other_tokens(tokenizer: PreTrainedTokenizerBase, model: ModelSection, base: BaseModelSource) -> None:
    """A class that does not belong to the tokenizer's files loads without a word and cuts text otherwise."""
    probe = "Hello, world!  It's 3 o'clock\n\nnaïve café, 你好"
    expected = AutoTokenizer.from_pretrained(
        base.name, revision=base.revision, trust_remote_code=model.trust_remote_code, use_fast=True
    )
    if tokenizer(probe)["input_ids"] != expected(probe)["input_ids"]:
        raise ConfigError(
            f"tokenizer_type: {model.tokenizer_type} cuts text otherwise than the tokenizer that came with "
            f"{base.name} ({type(expected).__name__}); leave tokenizer_type out"
        )
