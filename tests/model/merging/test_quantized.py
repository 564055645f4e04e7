"""The dequantized base is the base that training saw, bit for bit."""

from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from tests.tiny import save_tiny_llama
from transformers import AutoModelForCausalLM

from finetune.config.model import ModelSection
from finetune.model.attention import choose_attention
from finetune.model.base import find_base
from finetune.model.load import load_model, quantization
from finetune.model.merging.layout import read_layout
from finetune.model.merging.quantized import as_trained
from finetune.model.precision import Precision


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "keys",
    [
        {"load_in_4bit": True},
        {"load_in_4bit": True, "bnb_config_kwargs": {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False}},
        {"load_in_8bit": True},
        {"load_in_4bit": True, "bnb_config_kwargs": {"llm_int8_skip_modules": ["o_proj", "lm_head"]}},
    ],
    ids=["nf4", "fp4", "8 bits", "skipping"],
)
def test_weights_are_dequantized_to_what_training_holds(
    tmp_path: Path, keys: dict[str, Any], compute: torch.dtype
) -> None:
    base = save_tiny_llama(tmp_path / "base", dtype=torch.bfloat16)
    section, precision = ModelSection(base_model=str(base), **keys), Precision(compute)
    source = find_base(section)
    trained, _ = load_model(section, source, choose_attention(section, precision), precision, compute)
    stored = AutoModelForCausalLM.from_pretrained(base)

    layers = read_layout(source, quantization(section, precision), trust_remote_code=False).quantized

    held = {
        name for name, module in trained.named_modules() if isinstance(module, (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt))
    }
    assert layers.keys() == held
    for name, layer in layers.items():
        module = trained.get_submodule(name)
        weight = module.weight
        if "load_in_8bit" in keys:
            # loading compares attention backends, and the first forward pass takes the scales out of the weight
            scales = module.state.SCB if weight.SCB is None else weight.SCB
            expected = bnb.functional.int8_vectorwise_dequant(weight.data, scales)
        else:
            expected = bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
        assert torch.equal(as_trained(stored.get_submodule(name).weight.data, layer, compute), expected)
