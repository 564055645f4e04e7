"""What a forward pass keeps, against what autograd really saves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.estimate.models import FAMILIES, save_family
from tests.estimate.sections import CPU, make_setup
from transformers import AutoModelForCausalLM
from transformers import logging as transformers_logging

from finetune.data.collate import PaddedCollator
from finetune.estimate.activations import Numerics, loss_bytes
from finetune.estimate.architecture import read_architecture
from finetune.estimate.memory import estimate
from finetune.model.head import split_batch
from finetune.model.segments import SEGMENTS, register

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
TOKENS, ROWS = 128, 2


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers_logging.set_verbosity_error()
    folder = tmp_path_factory.mktemp(request.param)
    save_family(request.param, folder, **SIZES)
    return folder


def saved_bytes(model: Any, *, bf16: bool) -> int:
    """Add up the storages that autograd keeps after the decoder's forward pass, those of parameters left out."""
    known = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage
        return tensor

    sample = {"input_ids": np.arange(TOKENS, dtype=np.int32), "labels": np.arange(TOKENS, dtype=np.int32)}
    flatten = model.config._attn_implementation == SEGMENTS
    batch = PaddedCollator(0, TOKENS, flatten=flatten)([sample] * ROWS)
    inputs, _ = split_batch({**batch, "use_cache": False})
    model.train()
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        outcome = model.get_decoder()(**inputs)
    assert outcome is not None
    return sum(storage.nbytes() for storage in storages.values())


def load(base: Path, *, bf16: bool, lora: bool) -> Any:
    attention = "eager" if "gemma2" in base.name else SEGMENTS
    register()
    dtype = torch.bfloat16 if bf16 and lora else torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation=attention)
    if not lora:
        return model
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
    for parameter in adapted.parameters():
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    return adapted


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_activations_are_within_a_twentieth_of_what_autograd_saves(
    base: Path, bf16: bool, lora: bool, tmp_path: Path
) -> None:
    keys = {"adapter": "lora", "lora_target_linear": True, "lora_r": 8} if lora else {}
    needed = estimate(make_setup(tmp_path, base, CPU, bf16=bf16, micro_batch_size=ROWS, sequence_len=TOKENS, **keys))
    expected = sum(p.device for p in needed.parts if p.name in ("activations", "16-bit copies of trained weights"))
    assert expected == pytest.approx(saved_bytes(load(base, bf16=bf16, lora=lora), bf16=bf16), rel=0.05)


def activations(folder: Path, base: Path, **keys: Any) -> int:
    return estimate(make_setup(folder, base, bf16=True, **keys)).part("activations").device


def test_what_is_kept_grows_with_what_is_asked_for(tmp_path: Path) -> None:
    save_family("llama", tmp_path / "base", **SIZES)
    lora = {"adapter": "lora", "lora_target_linear": True, "sequence_len": 1024}

    def kept(**keys: Any) -> int:
        return activations(tmp_path, tmp_path / "base", **{**lora, **keys})

    plain = kept()
    assert kept(gradient_checkpointing=True) < plain / 4
    assert kept(micro_batch_size=3) == 3 * plain
    assert plain < kept(lora_dropout=0.1) < kept(peft_use_dora=True)
    assert plain < kept(sdp_attention=True) < kept(eager_attention=True)
    assert plain < kept(load_in_4bit=True)
    top = kept(lora_target_linear=False, lora_target_modules=r"model\.layers\.3\..*proj")
    assert top < plain / 3, "the backward pass ends at the lowest adapter"


def test_chunks_keep_the_logits_from_growing() -> None:
    config = json.loads('{"model_type": "llama", "vocab_size": 128000, "num_hidden_layers": 1}') | SIZES
    numerics = Numerics(2, 2, 2, "flash", adapter=True)

    def loss(num_kept: int, chunk_bytes: int | None) -> int:
        return loss_bytes(read_architecture(config, "here"), numerics, num_kept, chunk_bytes=chunk_bytes)

    assert loss(8192, None) > 8192 * 128_000 * 12
    assert loss(8192, 2**29) < 2**29 * 2.1
    assert loss(10, 2**29) < loss(10, None) * 2
