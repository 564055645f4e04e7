"""Where a saved model stops."""

from pathlib import Path

import pytest
from tests.tiny import tiny_tokenizer
from transformers import LlamaForCausalLM

from finetune.model.generation import align_special_tokens


@pytest.mark.parametrize(
    ("base_ends", "expected"), [(1, [4, 1]), ([1, 7], [4, 1, 7]), (None, 4), (4, 4)], ids=["one", "two", "none", "same"]
)
def test_the_tokenizers_end_token_comes_first_and_those_of_the_base_stay(
    tiny_llama: Path, base_ends: object, expected: object
) -> None:
    model, tokenizer = LlamaForCausalLM.from_pretrained(tiny_llama), tiny_tokenizer()
    model.generation_config.eos_token_id = model.config.eos_token_id = base_ends
    tokenizer.eos_token = "<|im_end|>"

    align_special_tokens(model, tokenizer)

    assert model.generation_config.eos_token_id == expected
    assert model.config.eos_token_id == 4
    assert (model.config.bos_token_id, model.config.pad_token_id) == (0, 2)
    assert (model.generation_config.bos_token_id, model.generation_config.pad_token_id) == (0, 2)
