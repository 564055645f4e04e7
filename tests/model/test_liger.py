"""Liger's kernels, as far as a machine without CUDA shows them: Triton can interpret the loss kernel."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from finetune.config.model import ModelSection
from finetune.model.liger import change_layers, uses_liger_loss

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")

COMPARE = """
import torch
from finetune.model.liger import liger_loss
from finetune.model.loss import Head, loss_and_gradients

random = torch.Generator().manual_seed(0)
hidden, weight = torch.randn(19, 16, generator=random), torch.randn(50, 16, generator=random)
bias, targets = torch.randn(50, generator=random), torch.randint(0, 50, (19,), generator=random)
for wanted in ((True, True, True), (True, False, False)):
    ours = loss_and_gradients(hidden, Head(weight, bias), targets, wanted)
    theirs = liger_loss(hidden, Head(weight, bias), targets, wanted)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
print("alike")
"""


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is None, reason="needs liger-kernel (finetune[liger])")
def test_ligers_loss_and_gradients_are_ours() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", COMPARE], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.endswith("alike\n"), done.stderr


@on_cpu
def test_without_cuda_nothing_is_changed_and_it_is_said_where_it_was_asked_for(tiny_llama: Path) -> None:
    said: list[str] = []
    model = LlamaForCausalLM.from_pretrained(tiny_llama)
    kinds = [type(module) for module in model.modules()]

    change_layers(model, ModelSection(base_model="x"), said.append)
    assert said == []
    change_layers(model, ModelSection(base_model="x", liger_rope=True), said.append)

    assert said == ["liger: not used, its kernels need a CUDA device; the model's own layers compute the same"]
    assert [type(module) for module in model.modules()] == kinds
    assert not uses_liger_loss(ModelSection(base_model="x", liger_fused_linear_cross_entropy=True))
