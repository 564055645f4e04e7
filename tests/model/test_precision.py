"""Number formats by device."""

import pytest
import torch

from finetune.config.training import TrainingSection
from finetune.errors import HardwareError
from finetune.model.precision import choose_precision, trained_dtype
from finetune.model.processor import cpu_has_bf16

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")


def section(**changes: object) -> TrainingSection:
    batch = {"micro_batch_size": 1, "gradient_accumulation_steps": 1, "batch_size": 1, "eval_batch_size": 1}
    return TrainingSection(learning_rate=1e-3, **batch, **changes)


@on_cpu
def test_auto_takes_bfloat16_only_where_the_processor_has_it() -> None:
    expected = torch.bfloat16 if cpu_has_bf16() else torch.float32

    assert choose_precision(section(bf16="auto")).compute_dtype == expected


def test_false_is_float32() -> None:
    assert choose_precision(section(bf16=False)).compute_dtype == torch.float32


@on_cpu
@pytest.mark.parametrize("key", ["fp16", "tf32"])
def test_a_format_of_gpus_is_refused_on_a_cpu(key: str) -> None:
    with pytest.raises(HardwareError, match=f"{key}: true needs a CUDA device, and none is visible"):
        choose_precision(section(**{key: True}))


@on_cpu
def test_8_bit_products_are_refused_on_a_cpu_with_what_to_use_instead() -> None:
    with pytest.raises(HardwareError, match=r"^fp8 needs a CUDA device, and none is visible; use bf16: true"):
        choose_precision(section(fp8=True))


@pytest.mark.parametrize("key", ["tf32", "fp8"])
def test_what_was_trained_on_another_device_can_be_measured_here(key: str) -> None:
    assert trained_dtype(section(bf16=True, **{key: True})) == torch.bfloat16
