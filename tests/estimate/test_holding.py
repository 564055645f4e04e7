"""Weights, adapters and quantized matrices: to the byte what the built model has."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear8bitLt
from tests.estimate.sections import CPU, config_of, make_setup
from tests.tiny import save_tiny_llama
from transformers import logging as transformers_logging

from finetune.errors import ConfigError, HealthError
from finetune.estimate.holding import Held, hold
from finetune.model.attention import choose_attention
from finetune.model.base import find_base
from finetune.model.build import Hardware, build_model
from finetune.model.precision import choose_precision
from finetune.model.tokenizer import load_tokenizer

LORA = {"adapter": "lora", "lora_target_linear": True, "lora_r": 4}
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "unfrozen": {"unfrozen_parameters": ["mlp", r"^model.embed_tokens.weight$[5:]"]},
    "added tokens": {"tokens": ["<a>", "<b>"]},
    "lora": LORA,
    "dora, rank-stabilised": {**LORA, "peft_use_dora": True, "peft_use_rslora": True},
    "two targets": {**LORA, "lora_target_linear": False, "lora_target_modules": ["q_proj", "embed_tokens"]},
    "a pattern": {**LORA, "lora_target_linear": False, "lora_target_modules": r"model\.layers\.1\..*_proj"},
    "whole embeddings": {**LORA, "lora_modules_to_save": ["embed_tokens", "lm_head"]},
    "rows of added tokens": {**LORA, "tokens": ["<a>", "<b>"]},
    "4-bit": {**LORA, "load_in_4bit": True},
    "4-bit, single": {**LORA, "load_in_4bit": True, "bnb_config_kwargs": {"bnb_4bit_use_double_quant": False}},
    "4-bit, one skipped": {**LORA, "load_in_4bit": True, "bnb_config_kwargs": {"llm_int8_skip_modules": ["q_proj"]}},
    "8-bit": {**LORA, "load_in_8bit": True},
}


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers_logging.set_verbosity_error()
    folder = tmp_path_factory.mktemp("base")
    return save_tiny_llama(folder, tie=request.param, dtype=torch.bfloat16)


def expected(folder: Path, base: Path, **keys: Any) -> list[Held]:
    setup = make_setup(folder, base, CPU, **keys)
    return hold(setup.model, setup.adapter, setup.base, setup.compute_bytes, setup.num_added)


def built(folder: Path, base: Path, **keys: Any) -> torch.nn.Module:
    config = config_of(folder, base, **keys)
    precision = choose_precision(config.training)
    hardware = Hardware(precision, choose_attention(config.model, precision))
    source = find_base(config.model)
    loaded = load_tokenizer(config.model, source)
    return build_model(config.model, config.adapter, source, hardware, loaded, lambda _: None).model


def constant_bytes(state: QuantState) -> int:
    """Bytes of all that a quantized tensor keeps beside itself."""
    nested = constant_bytes(state.state2) + 4 if state.nested else 0
    return state.absmax.nbytes + state.code.nbytes + nested


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", CASES)
def test_the_bytes_are_those_of_the_built_model(name: str, bf16: bool, base: Path, tmp_path: Path) -> None:
    keys = {**CASES[name], "bf16": bf16}
    held = expected(tmp_path, base, **keys)
    model = built(tmp_path, base, **keys)
    parameters = list(model.parameters())
    states = [vars(parameter).get("quant_state") for parameter in parameters]

    assert sum(tensor.num_bytes for tensor in held) == sum(p.numel() * p.element_size() for p in parameters)
    trained = sum(tensor.num_parameters for tensor in held if tensor.trained)
    assert trained == sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    assert len([t for t in held if t.trained]) == len([p for p in parameters if p.requires_grad])
    if "4-bit" in name:
        measured = sum(constant_bytes(state) for state in states if state is not None)
        assert sum(tensor.constants for tensor in held) == measured
    if name == "8-bit":
        scales = sum(layer.state.SCB.nbytes for layer in model.modules() if isinstance(layer, Linear8bitLt))
        assert sum(tensor.constants for tensor in held) == scales


def test_an_adapter_that_is_there_counts_as_it_is(base: Path, tmp_path: Path) -> None:
    built(tmp_path, base, **LORA).save_pretrained(tmp_path / "adapter")
    keys = {"adapter": "lora", "lora_model_dir": str(tmp_path / "adapter")}
    fresh, saved = ([t for t in expected(tmp_path, base, **some) if t.of_adapter] for some in (LORA, keys))
    assert sorted(t.shape for t in fresh) == sorted(t.shape for t in saved)


def test_a_target_that_is_not_there_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no matrix is called 'qq_proj'\. Did you mean 'q_proj'"):
        expected(tmp_path, base, adapter="lora", lora_target_modules=["qq_proj"])


def test_patterns_that_match_nothing_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(HealthError, match="no pattern matches a parameter"):
        expected(tmp_path, base, unfrozen_parameters=["nothing"])
