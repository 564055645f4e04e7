"""What devices multiply at most: what a utilization (MFU) is a share of."""

import re
from typing import Literal

Format = Literal["16-bit", "tf32", "fp32"]

PEAKS: tuple[tuple[str, float, float, float], ...] = (
    (r"\bH200\b", 989.0, 494.5, 66.9),
    (r"\bH100\b.*\bPCIe\b", 756.0, 378.0, 51.2),
    (r"\bH100\b.*\b(HBM3|SXM5?)\b", 989.0, 494.5, 66.9),
    (r"\bA100\b", 312.0, 156.0, 19.5),
    (r"\bL40S\b", 362.0, 183.0, 91.6),
    (r"\bA40\b", 149.7, 74.8, 37.4),
    (r"\bRTX A6000\b", 154.8, 77.4, 38.7),
    (r"\bA10G?\b", 125.0, 62.5, 31.2),
    (r"\bL4\b", 121.0, 60.0, 30.3),
    (r"\bRTX 4090\b", 165.2, 82.6, 82.6),
    (r"\bRTX 3090\b", 71.0, 35.6, 35.6),
    (r"\bV100\b", 125.0, 15.7, 15.7),
    (r"\bT4\b", 65.0, 8.1, 8.1),
)
"""Pattern of the device's name; TFLOP/s of dense products in 16 bits (sums in float32), tf32 and float32.

From the makers' data sheets, without sparsity.  A GPU that does not hold its clock reaches less.
"""


def peak_flops(device: str, number_format: Format) -> float | None:
    """Return floating point operations a second; None for a device that is not in the table, as every CPU."""
    column = ("16-bit", "tf32", "fp32").index(number_format) + 1
    row = next((row for row in PEAKS if re.search(row[0], device)), None)
    return None if row is None else float(row[column]) * 1e12
