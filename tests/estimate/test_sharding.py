"""What a DeepSpeed file says about memory."""

import json

import pytest

from finetune.estimate.sharding import BUCKET, LIVE, PREFETCH, read_sharding
from finetune.training.deepspeed import shipped_folder


@pytest.mark.parametrize(("stage", "parts"), [(0, (1, 1, 1)), (1, (4, 1, 1)), (2, (4, 4, 1)), (3, (4, 4, 4))])
def test_each_stage_shares_one_thing_more(stage: int, parts: tuple[int, int, int]) -> None:
    sharding = read_sharding({"zero_optimization": {"stage": stage}}, 4, 64)
    assert (sharding.optimizer_parts, sharding.gradient_parts, sharding.weight_parts) == parts


def test_sizes_left_out_are_those_of_deepspeed() -> None:
    second, third = (read_sharding({"zero_optimization": {"stage": stage}}, 4, 64) for stage in (2, 3))
    assert (second.reduce_bucket, second.gather_bucket) == (BUCKET, BUCKET)
    assert third.gather_bucket == LIVE + PREFETCH


def test_automatic_sizes_follow_the_width() -> None:
    zero = {"stage": 3, "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto"}
    sharding = read_sharding({"zero_optimization": zero}, 4, 100)
    assert (sharding.reduce_bucket, sharding.gather_bucket) == (10_000, LIVE + 9_000)


def test_buckets_are_no_larger_than_what_goes_through_them() -> None:
    sharding = read_sharding({"zero_optimization": {"stage": 2, "overlap_comm": True}}, 4, 64)
    assert sharding.buffer_bytes(1000, 5000, 2) == 2 * (1000 + 1000)


def test_shipped_files_that_offload_are_seen_to() -> None:
    found = {file.name: read_sharding(json.loads(file.read_text()), 2, 64) for file in shipped_folder().glob("*.json")}
    assert {name for name, sharding in found.items() if sharding.offloads_optimizer} == {
        "zero2_cpu_offload.json",
        "zero3_cpu_offload.json",
    }
