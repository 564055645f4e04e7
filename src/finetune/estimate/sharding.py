"""How ZeRO shares states out among processes (Rajbhandari 2020), and what DeepSpeed keeps beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BUCKET = 500_000_000
"""DeepSpeed's default for reduce_bucket_size and allgather_bucket_size, in elements."""
PREFETCH = 50_000_000
LIVE = 1_000_000_000
"""DeepSpeed's default for stage3_max_live_parameters."""


@dataclass(frozen=True)
class Sharding:
    """What a ``deepspeed:`` file says, as far as memory goes."""

    stage: int
    num_processes: int
    offloads_optimizer: bool
    offloads_weights: bool
    reduce_bucket: int
    gather_bucket: int
    """Elements gathered at one time: updated weights (ZeRO-1 and 2), or weights in use and fetched ahead (ZeRO-3)."""
    overlaps: bool

    @property
    def optimizer_parts(self) -> int:
        """Processes that share master weights and optimizer states."""
        return self.num_processes if self.stage >= 1 else 1

    @property
    def gradient_parts(self) -> int:
        return self.num_processes if self.stage >= 2 else 1

    @property
    def weight_parts(self) -> int:
        return self.num_processes if self.stage >= 3 else 1

    def buffer_bytes(self, num_trained: int, num_parameters: int, compute_bytes: int) -> int:
        """Return the bytes of the buckets, which are never larger than what goes through them."""
        reduce = min(self.reduce_bucket * (2 if self.overlaps else 1), num_trained)
        gather = min(self.gather_bucket, num_parameters if self.stage >= 3 else num_trained)
        return compute_bytes * (reduce + gather)


def read_sharding(settings: Mapping[str, Any], num_processes: int, hidden_size: int) -> Sharding:
    """Read DeepSpeed's settings; ``auto`` sizes follow from the width of the model, as transformers fills them."""
    zero = settings.get("zero_optimization") or {}
    stage = int(zero.get("stage", 0))
    reduce = _number(zero, "reduce_bucket_size", hidden_size**2, BUCKET)
    if stage >= 3:
        ahead = _number(zero, "stage3_prefetch_bucket_size", int(0.9 * hidden_size**2), PREFETCH)
        gather = _number(zero, "stage3_max_live_parameters", LIVE, LIVE) + ahead
    else:
        gather = _number(zero, "allgather_bucket_size", BUCKET, BUCKET) if stage else 0
    return Sharding(
        stage=stage,
        num_processes=num_processes,
        offloads_optimizer=_offloads(zero, "offload_optimizer"),
        offloads_weights=_offloads(zero, "offload_param"),
        reduce_bucket=reduce if stage else 0,
        gather_bucket=gather,
        overlaps=bool(zero.get("overlap_comm", stage >= 3)),
    )


def _number(block: Mapping[str, Any], key: str, automatic: int, default: int) -> int:
    value = block.get(key, default)
    return automatic if value == "auto" else int(float(value))


def _offloads(zero: Mapping[str, Any], key: str) -> bool:
    block = zero.get(key)
    return isinstance(block, Mapping) and block.get("device", "none") in ("cpu", "nvme")
