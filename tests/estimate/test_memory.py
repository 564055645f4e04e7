"""The memory of a run put together: precision, ZeRO, and the peak."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.estimate.sections import BIG, CPU, make_setup
from tests.estimate.test_flops import LLAMA_8B
from tests.tiny import save_tiny_llama

from finetune.estimate.devices import CUDA_CONTEXT
from finetune.estimate.memory import Estimate, estimate

LORA = {"adapter": "lora", "lora_target_linear": True}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "base", dtype=torch.bfloat16)


def needed(base: Path, zero: dict[str, Any] | None = None, processes: int = 1, **keys: Any) -> Estimate:
    return estimate(make_setup(base.parent, base, BIG, zero, processes, **keys))


def sizes(found: Estimate) -> dict[str, int]:
    return {part.name: part.device for part in found.parts}


def test_full_training_holds_four_bytes_of_everything_and_eight_of_states(base: Path) -> None:
    found = needed(base)
    parts = sizes(found)
    assert found.num_parameters == found.num_trained
    assert parts["weights"] == parts["gradients"] == 4 * found.num_parameters
    assert parts["optimizer states"] == 8 * found.num_parameters + 4 * 21


def test_an_adapter_leaves_the_base_in_16_bits(base: Path) -> None:
    found = needed(base, **LORA)
    parts = sizes(found)
    assert parts["weights"] == 2 * (found.num_parameters - found.num_trained)
    assert parts["adapter"] == parts["gradients"] == 4 * found.num_trained


def test_products_in_8_bits_make_no_16_bit_copies_of_whole_weights(base: Path) -> None:
    copies = "16-bit copies of trained weights"
    assert copies in sizes(needed(base, bf16=True))
    assert copies not in sizes(needed(base, bf16=True, fp8=True))
    assert copies in sizes(needed(base, bf16=True, fp8=True, **LORA))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_divides_what_its_stage_says(stage: int, base: Path) -> None:
    found = needed(base, {"stage": stage}, 4)
    parts, count = sizes(found), found.num_parameters
    assert parts["optimizer states"] == pytest.approx(8 * count / 4, abs=16)
    assert parts["float32 copy of trained weights"] == pytest.approx(4 * count / 4, abs=16)
    assert parts["weights"] == pytest.approx(2 * count / (4 if stage == 3 else 1), abs=16)
    assert parts["gradients"] == pytest.approx(2 * count / (4 if stage >= 2 else 1) + 4 * count / 4, abs=16)
    assert "16-bit copies of trained weights" not in parts


def test_offloading_moves_states_to_the_host(base: Path) -> None:
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    found = needed(base, zero, 2)
    assert {part.name for part in found.parts if part.host} == {
        "weights",
        "float32 copy of trained weights",
        "optimizer states",
        "gradients",
    }
    assert found.part("optimizer states").device == 0
    assert found.host > found.part("optimizer states").host


def test_several_processes_sum_gradients_in_buckets(base: Path) -> None:
    assert sizes(needed(base, processes=2))["buckets of gradients"] == sizes(needed(base))["gradients"]


def test_the_peak_adds_what_exists_at_one_time(base: Path) -> None:
    one, several = needed(base, sequence_len=4096), needed(base, sequence_len=4096, gradient_accumulation_steps=2)
    assert one.peak_at == several.peak_at == "the loss"
    assert several.peak == one.peak + one.part("gradients").device


def test_gradients_can_outweigh_activations(base: Path) -> None:
    (base / "config.json").write_text(json.dumps(LLAMA_8B))
    (base / "model.safetensors").unlink()
    short, copying = (needed(base, sequence_len=64, optimizer=name) for name in ("adamw_8bit", "adamw_torch"))
    assert (short.peak_at, copying.peak_at) == ("the end of the backward pass", "the optimizer's step")
    assert short.peak < sum(part.device for part in short.parts)


def test_a_gpu_holds_its_context_too(base: Path) -> None:
    assert sizes(needed(base))["CUDA context"] == CUDA_CONTEXT
    host = estimate(make_setup(base.parent, base, CPU))
    assert host.host == 0
    assert "process and libraries" in sizes(host)


def test_what_is_not_known_for_certain_is_noted(base: Path) -> None:
    assert needed(base).notes == ()
    config = base / "config.json"
    config.write_text(config.read_text().replace('"model_type": "llama"', '"model_type": "newcomer"'))
    assert needed(base).notes == ("activations: a 'newcomer' is counted like a Llama of its size",)
