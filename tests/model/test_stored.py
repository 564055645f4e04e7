"""Formats read from headers, and weights written back in them."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from finetune.model.base import BaseModelSource
from finetune.model.stored import read_stored_format, save_weights


def test_each_tensor_goes_back_to_its_own_format(tiny_llama: Path, tmp_path: Path) -> None:
    mixed = {
        name: tensor if "norm" in name else tensor.to(torch.bfloat16)
        for name, tensor in load_file(tiny_llama / "model.safetensors").items()
    }
    base = tmp_path / "base"
    base.mkdir()
    save_file(mixed, base / "model.safetensors", metadata={"format": "pt"})
    stored = read_stored_format(BaseModelSource(str(base), None, is_local=True), torch.float16)

    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    save_weights(model, tmp_path / "out", stored)

    written = load_file(tmp_path / "out" / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in written.items()} == {n: t.dtype for n, t in mixed.items()}
    assert stored.of("a tensor that the base does not have") == torch.float16


def test_the_saved_configuration_names_the_stored_format(tiny_llama: Path, tmp_path: Path) -> None:
    stored = read_stored_format(BaseModelSource(str(tiny_llama), None, is_local=True), torch.float32)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16)
    model.config.use_cache = False

    save_weights(model, tmp_path / "out", stored)

    config = AutoModelForCausalLM.from_pretrained(tmp_path / "out").config
    assert (config.dtype, config.use_cache) == (torch.float32, True)
