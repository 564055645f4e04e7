"""What the memory of a run depends on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.estimate.sections import BIG, CPU, make_setup
from tests.tiny import save_tiny_llama

from finetune.model.processor import cpu_has_bf16


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "base", dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("keys", "on_gpu", "on_cpu"),
    [({}, 2, 2 if cpu_has_bf16() else 4), ({"bf16": False}, 4, 4), ({"bf16": True}, 2, 2), ({"fp16": True}, 2, 2)],
)
def test_the_compute_format_is_the_one_of_training(keys: dict[str, Any], on_gpu: int, on_cpu: int, base: Path) -> None:
    assert make_setup(base.parent, base, BIG, **keys).compute_bytes == on_gpu
    assert make_setup(base.parent, base, CPU, **keys).compute_bytes == on_cpu


def test_deepspeed_on_a_cpu_computes_in_float32(base: Path) -> None:
    assert make_setup(base.parent, base, CPU, {"stage": 2}, 2).compute_bytes == 4
