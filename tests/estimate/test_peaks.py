"""The table of what devices multiply at most."""

import pytest

from finetune.estimate.peaks import Format, peak_flops


@pytest.mark.parametrize(
    ("device", "number_format", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "16-bit", 989),
        ("NVIDIA H100 PCIe", "16-bit", 756),
        ("NVIDIA H200", "tf32", 494.5),
        ("NVIDIA A100-SXM4-40GB", "16-bit", 312),
        ("NVIDIA GeForce RTX 4090", "fp32", 82.6),
        ("NVIDIA L40S", "16-bit", 362),
        ("NVIDIA L4", "16-bit", 121),
        ("Tesla T4", "16-bit", 65),
    ],
)
def test_a_known_device_has_a_peak(device: str, number_format: Format, tera: float) -> None:
    assert peak_flops(device, number_format) == tera * 1e12


@pytest.mark.parametrize("device", ["AMD EPYC, 2 cores", "NVIDIA H100", "NVIDIA A1000", "Intel(R) Xeon(R) A10x"])
def test_of_a_device_that_nobody_knows_nothing_is_claimed(device: str) -> None:
    assert peak_flops(device, "16-bit") is None
