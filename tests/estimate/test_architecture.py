"""Sizes of a decoder from its config.json."""

import json
from pathlib import Path

import pytest
from tests.estimate.models import FAMILIES, save_family

from finetune.errors import ModelError
from finetune.estimate.architecture import KNOWN, read_architecture

SIZES = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 300,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_file_leaves_unsaid_is_what_transformers_takes(family: str, tmp_path: Path) -> None:
    model = save_family(family, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    bare = {key: value for key, value in written.items() if key in {*SIZES, "num_key_value_heads"}}
    config = type(model.config)(**{key: value for key, value in bare.items() if key != "model_type"})
    architecture = read_architecture(bare, family)
    assert architecture.is_tied == config.tie_word_embeddings
    assert architecture.head_dim == (config.to_dict().get("head_dim") or config.hidden_size // 4)


def test_every_known_decoder_is_tried() -> None:
    assert set(FAMILIES) == set(KNOWN)


def test_the_text_part_of_a_larger_model_is_read() -> None:
    config = {"model_type": "gemma3", "text_config": {**SIZES, "model_type": "gemma3_text"}}
    assert read_architecture(config, "gemma").model_type == "gemma3_text"


def test_a_missing_size_is_named() -> None:
    config = {**SIZES, "hidden_sizes": 64}
    del config["hidden_size"]
    with pytest.raises(ModelError, match=r"^here: config.json has no hidden_size.* Did you mean 'hidden_sizes'\?$"):
        read_architecture(config, "here")


def test_models_with_experts_are_refused() -> None:
    with pytest.raises(ModelError, match="num_local_experts is 8; models with experts are not estimated"):
        read_architecture({**SIZES, "model_type": "mixtral", "num_local_experts": 8}, "here")


def test_an_unknown_decoder_is_read_and_marked() -> None:
    architecture = read_architecture({**SIZES, "model_type": "newcomer"}, "here")
    assert not architecture.is_known
    assert (architecture.query_width, architecture.kv_width) == (64, 64)


def test_a_window_counts_only_where_every_layer_has_it() -> None:
    mistral = {**SIZES, "model_type": "mistral", "sliding_window": 32}
    gemma = {**SIZES, "model_type": "gemma2", "sliding_window": 32}
    mixed = {**gemma, "layer_types": ["sliding_attention", "full_attention"]}
    windows = [read_architecture(config, "here").sliding_window for config in (mistral, gemma, mixed)]
    assert windows == [32, None, None]
