"""What devices multiply at most: what a utilization (MFU) is a share of."""

import re
from typing import Literal

Format = Literal["16-bit", "tf32", "fp32"]

PEAKS: tuple[tuple[str, float, float, float], ...] = (
    (r"NVIDIA B200", 2250.0, 1100.0, 75.0),
    (r"NVIDIA H200", 989.0, 494.5, 67.0),
    (r"NVIDIA H[12]00 NVL", 835.5, 417.5, 60.0),
    (r"NVIDIA H100 PCIe", 756.0, 378.0, 51.0),
    (r"NVIDIA H100 80GB HBM3", 989.0, 494.5, 67.0),
    (r"NVIDIA A100[ -].*|A100-.*", 312.0, 156.0, 19.5),
    (r"NVIDIA L40S", 362.0, 183.0, 91.6),
    (r"NVIDIA L4", 121.0, 60.0, 30.3),
    (r"NVIDIA A40", 149.7, 74.8, 37.4),
    (r"(NVIDIA )?RTX A6000", 154.8, 77.4, 38.7),
    (r"NVIDIA A10", 125.0, 62.5, 31.2),
    (r"NVIDIA A10G", 70.0, 35.0, 35.0),
    (r"NVIDIA GeForce RTX 4090", 165.2, 82.6, 82.6),
    (r"(NVIDIA )?GeForce RTX 3090", 71.0, 35.6, 35.6),
    (r"Tesla V100-SXM[23]-.*", 125.0, 15.7, 15.7),
    (r"Tesla V100-PCIE-.*", 112.0, 14.0, 14.0),
    (r"Tesla V100S-PCIE-.*", 130.0, 16.4, 16.4),
    (r"(NVIDIA|Tesla) T4", 65.0, 8.1, 8.1),
)
"""Pattern of the device's whole name as CUDA gives it; TFLOP/s of products in 16 bits, tf32 and float32.

Without sparsity, which doubles what some data sheets print, and with sums in float32, which GeForce cards do at half
their speed.  A GPU that does not hold its clock reaches less.  The sources are NVIDIA's: the data sheets of HGX B200
(per GPU), H200, H100 (SXM, PCIe and NVL), A100, L40S, L4, A40, A10, A10G (of AWS, another chip than the A10), V100 and
T4, and the architecture papers GA102 (RTX A6000, RTX 3090) and Ada (RTX 4090).  V100 and T4 have no tf32: they take
float32 there.
"""

_SLICE = re.compile(r"\bMIG\b")


def peak_flops(device: str, number_format: Format) -> float | None:
    """Return floating point operations a second; None for a device that is not in the table, as every CPU.

    A slice of a GPU (MIG) does a part of it, which its name does not tell: None too.
    """
    column = ("16-bit", "tf32", "fp32").index(number_format) + 1
    if _SLICE.search(device):
        return None
    row = next((row for row in PEAKS if re.fullmatch(row[0], device)), None)
    return None if row is None else float(row[column]) * 1e12
