"""The table of what devices multiply at most."""

import pytest

from finetune.estimate.peaks import PEAKS, Format, peak_flops


@pytest.mark.parametrize(
    ("device", "number_format", "tera"),
    [
        ("NVIDIA B200", "16-bit", 2250),
        ("NVIDIA H200", "tf32", 494.5),
        ("NVIDIA H200", "16-bit", 989),
        ("NVIDIA H200 NVL", "16-bit", 835.5),
        ("NVIDIA H100 80GB HBM3", "16-bit", 989),
        ("NVIDIA H100 PCIe", "16-bit", 756),
        ("NVIDIA H100 NVL", "fp32", 60),
        ("NVIDIA A100-SXM4-40GB", "16-bit", 312),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5),
        ("NVIDIA A100 80GB PCIe", "tf32", 156),
        ("NVIDIA A100-PCIE-40GB", "16-bit", 312),
        ("A100-SXM4-40GB", "16-bit", 312),
        ("NVIDIA L40S", "16-bit", 362),
        ("NVIDIA L4", "16-bit", 121),
        ("NVIDIA A40", "16-bit", 149.7),
        ("NVIDIA RTX A6000", "tf32", 77.4),
        ("NVIDIA A10", "16-bit", 125),
        ("NVIDIA A10G", "16-bit", 70),
        ("NVIDIA GeForce RTX 4090", "fp32", 82.6),
        ("NVIDIA GeForce RTX 3090", "16-bit", 71),
        ("Tesla V100-SXM2-16GB", "16-bit", 125),
        ("Tesla V100-PCIE-32GB", "16-bit", 112),
        ("Tesla V100S-PCIE-32GB", "16-bit", 130),
        ("Tesla T4", "16-bit", 65),
        ("NVIDIA T4", "fp32", 8.1),
    ],
)
def test_a_known_device_has_a_peak(device: str, number_format: Format, tera: float) -> None:
    assert peak_flops(device, number_format) == tera * 1e12


@pytest.mark.parametrize(
    "device",
    [
        "AMD EPYC, 2 cores",
        "Intel(R) Xeon(R) A10x",
        "NVIDIA H100",
        "NVIDIA GH200 480GB",
        "NVIDIA A1000",
        "NVIDIA A10-24Q",
        "NVIDIA L40",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
    ],
)
def test_of_a_device_that_nobody_knows_nothing_is_claimed(device: str) -> None:
    assert peak_flops(device, "16-bit") is None


def test_fewer_bits_are_never_slower() -> None:
    assert all(half >= tf32 >= single for _, half, tf32, single in PEAKS)
