"""Loading and quantizing for real, on the CPU."""

import shutil
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from transformers import PreTrainedModel

from finetune.config.model import ModelSection
from finetune.errors import ConfigError, ModelError
from finetune.model.attention import choose_attention
from finetune.model.base import find_base
from finetune.model.load import load_model, stored_dtype
from finetune.model.precision import Precision

FP32 = Precision(torch.float32)


def load(folder: Path, **changes: object) -> PreTrainedModel:
    section = ModelSection(base_model=str(folder), **changes)
    return load_model(section, find_base(section), choose_attention(section, FP32), FP32, torch.float32)[0]


def test_four_bits_are_nf4_and_double_quantized(tiny_llama: Path) -> None:
    layer = load(tiny_llama, load_in_4bit=True).model.layers[0].self_attn.q_proj

    assert isinstance(layer, bnb.nn.Linear4bit)
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.nested
    assert layer.compute_dtype == torch.float32


def test_bnb_config_kwargs_have_the_last_word(tiny_llama: Path) -> None:
    model = load(tiny_llama, load_in_4bit=True, bnb_config_kwargs={"bnb_4bit_quant_type": "fp4"})

    assert model.model.layers[0].self_attn.q_proj.weight.quant_state.quant_type == "fp4"


def test_a_wrong_bnb_argument_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(ConfigError, match="bnb_config_kwargs: "):
        load(tiny_llama, load_in_4bit=True, bnb_config_kwargs={"bnb_4bit_compute_dtype": 5})


def test_eight_bits_are_int8(tiny_llama: Path) -> None:
    layer = load(tiny_llama, load_in_8bit=True).model.layers[0].self_attn.q_proj

    assert isinstance(layer, bnb.nn.Linear8bitLt)
    assert layer.weight.dtype == torch.int8


def test_the_cache_is_off_so_that_packed_samples_stay_apart(tiny_llama: Path) -> None:
    assert load(tiny_llama).config.use_cache is False


def test_the_class_of_the_model_is_checked(tiny_llama: Path) -> None:
    assert type(load(tiny_llama, model_type="LlamaForCausalLM")).__name__ == "LlamaForCausalLM"
    with pytest.raises(ConfigError, match="MistralForCausalLM does not fit the model, whose class is LlamaForCausalLM"):
        load(tiny_llama, model_type="MistralForCausalLM")
    with pytest.raises(ConfigError, match="Did you mean 'LlamaForCausalLM'"):
        load(tiny_llama, model_type="LamaForCausalLM")


def test_a_damaged_weights_file_is_named(tiny_llama: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_llama, tmp_path / "copy"))
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    with pytest.raises(ModelError, match=r"a weights file is damaged .* copy or download the model again"):
        load(copy)


def test_the_stored_format_is_read_from_the_folder(tiny_llama: Path) -> None:
    section = ModelSection(base_model=str(tiny_llama))

    assert stored_dtype(section, find_base(section)) == torch.float32
