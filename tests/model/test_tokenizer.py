"""The tokenizer: added tokens in Axolotl's order, padding, refusals."""

import shutil
from pathlib import Path

import pytest

from finetune.config.model import ModelSection, SpecialTokens
from finetune.errors import ConfigError, ModelError
from finetune.model.base import find_base
from finetune.model.tokenizer import LoadedTokenizer, load_tokenizer


def load(folder: Path, **changes: object) -> LoadedTokenizer:
    section = ModelSection(base_model=str(folder), **changes)
    return load_tokenizer(section, find_base(section))


def test_special_tokens_come_before_tokens_and_only_new_ones_count(tiny_llama: Path) -> None:
    size = len(load(tiny_llama).tokenizer)
    loaded = load(
        tiny_llama,
        special_tokens=SpecialTokens(eos_token="<end>", bos_token="<s>"),
        tokens=["<a>", "<|im_start|>", "<b>"],
    )

    assert loaded.added_ids == (size, size + 1, size + 2)
    assert loaded.tokenizer.convert_ids_to_tokens(list(loaded.added_ids)) == ["<end>", "<a>", "<b>"]
    assert loaded.tokenizer.eos_token_id == size
    assert "<a>" not in loaded.tokenizer.all_special_tokens


def test_an_added_token_is_one_token_and_eats_no_spaces(tiny_llama: Path) -> None:
    tokenizer = load(tiny_llama, tokens=["<a>"]).tokenizer

    assert tokenizer.tokenize("x <a> y")[2] == "<a>"
    assert tokenizer.decode(tokenizer("x <a> y", add_special_tokens=False)["input_ids"]) == "x <a> y"


def test_without_a_pad_token_the_end_token_fills_in_and_it_is_said(tiny_llama: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_llama, tmp_path / "copy"))
    path = copy / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"pad_token": "<pad>"', '"pad_token": null'))

    loaded = load(copy)

    assert loaded.tokenizer.pad_token == "</s>"
    assert loaded.notes == ("padding: the tokenizer has no pad token, </s> fills in (masked by position)",)


def test_an_unknown_tokenizer_class_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(ConfigError, match="transformers has no tokenizer class NoTokenizer; use AutoTokenizer"):
        load(tiny_llama, tokenizer_type="NoTokenizer")


def test_a_folder_without_a_tokenizer_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_llama, tmp_path / "copy"))
    for file in copy.glob("tokenizer*"):
        file.unlink()

    with pytest.raises(ModelError, match="its tokenizer cannot be loaded"):
        load(copy)
