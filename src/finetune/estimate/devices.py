"""Memory of GPUs by name, of the GPU in this machine, and of the machine itself."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.errors import ConfigError, nearest

GPUS = {
    "B200 180GB": 178.4,
    "MI300X 192GB": 191.5,
    "H200 141GB": 139.8,
    "H100 80GB": 79.1,
    "A100 80GB": 79.2,
    "A100 40GB": 39.4,
    "L40S 48GB": 44.5,
    "A40 48GB": 44.5,
    "RTX A6000 48GB": 47.5,
    "RTX 6000 Ada 48GB": 47.4,
    "RTX 5090 32GB": 31.4,
    "V100 32GB": 31.7,
    "RTX 4090 24GB": 23.5,
    "RTX 3090 24GB": 23.6,
    "L4 24GB": 22.0,
    "A10 24GB": 22.0,
    "V100 16GB": 15.8,
    "T4 16GB": 14.6,
    "RTX 3060 12GB": 11.6,
}
"""GiB that a program finds there: less than the label, by error correction and the driver."""

CUDA_CONTEXT = 600 * 2**20
"""Bytes of the CUDA context, its kernels and the workspace of cuBLAS, which no tensor is in."""
PROCESS = 800 * 2**20
"""Bytes of a Python process that has imported all it needs to train."""
MARGINS = {"cuda": 0.05, "cpu": 0.25}
"""Share of the memory that is left free: the allocator's gaps, and the error of the estimate.

A machine has other programs, too, and its allocator does not give back all that is let go: a process was seen to grow
up to 0.9 GB beyond its tensors (scripts/bench/ESTIMATE.md).
"""


@dataclass(frozen=True)
class Device:
    """Where a process trains."""

    name: str
    kind: Literal["cuda", "cpu"]
    num_bytes: int
    """Memory that one process may use."""

    @property
    def usable_bytes(self) -> int:
        return int(self.num_bytes * (1 - MARGINS[self.kind]))

    @property
    def own_bytes(self) -> int:
        """What is taken before there is a tensor."""
        return CUDA_CONTEXT if self.kind == "cuda" else PROCESS


def named_gpu(name: str) -> Device:
    """Return the GPU that ``name`` means, in any spelling; of several sizes the smallest.

    Raises:
        ConfigError: no GPU of the table has this name.
    """
    wanted = _words(name)
    found = [(size, label) for label, size in GPUS.items() if wanted and wanted <= _words(label)]
    if not found:
        raise ConfigError(
            f"--device: {name!r} is not in the table.{nearest(name, GPUS)} Known are {', '.join(GPUS)}; "
            "for any other give its size with --memory"
        )
    size, label = min(found)
    return Device(label, "cuda", int(size * 2**30))


def sized_gpu(size: str) -> Device:
    """Return a GPU with the memory that ``size`` says, such as 80GB or 24GiB.

    Raises:
        ConfigError: it is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(G|M)?(i?)B?\s*", size, re.IGNORECASE)
    if not match or not float(match[1]):
        raise ConfigError(f"--memory: {size!r} is not a size; write it as 80GB or 24GiB")
    base = 1024 if match[3] else 1000
    unit = base**2 if (match[2] or "G").upper() == "M" else base**3
    return Device(f"a GPU with {size.strip()}", "cuda", int(float(match[1]) * unit))


def device_here(num_processes: int) -> Device:
    """Return the first GPU of this machine, else the machine's memory, shared among ``num_processes``."""
    return gpu_here() or Device("the memory of this machine", "cpu", host_bytes() // num_processes)


def gpu_here() -> Device | None:
    """Ask nvidia-smi, which takes a moment where torch would take seconds; None without a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    try:
        answer = subprocess.run(
            [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    name, _, size = answer.partition("\n")[0].rpartition(",")
    return Device(name.strip(), "cuda", int(size) * 2**20) if size.strip().isdigit() else None


def host_bytes() -> int:
    """Return the memory of this machine, or what its container may use of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    texts = [path.read_text(encoding="ascii").strip() for path in limits if path.is_file()]
    return min([total, *(int(text) for text in texts if text.isdigit())])


def _words(name: str) -> frozenset[str]:
    """Split a name into words, sizes without their unit: 'h100-80gb' and 'H100 80 GB' are the same."""
    text = re.sub(r"(\d+)\s*gi?b\b", r"\1", name.lower())
    drop = {"nvidia", "geforce", "tesla", "amd", "sxm", "pcie", "hbm3", "sxm4", "sxm5", ""}
    return frozenset(re.split(r"[\s_-]+", text)) - drop
