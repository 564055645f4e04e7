"""Which forward pass is the largest, and that the sizes are those of the parts that make it."""

from pathlib import Path
from typing import Any

import pytest
from tests.estimate.sections import BIG, CPU, make_setup
from tests.tiny import save_tiny_llama

from finetune.data import collate
from finetune.estimate import batches
from finetune.estimate.activations import Batch
from finetune.estimate.devices import Device
from finetune.model import segments


def largest(folder: Path, device: Device = CPU, **keys: Any) -> tuple[str, tuple[Batch, ...]]:
    base = folder / "base"
    setup = make_setup(folder, base if base.is_dir() else save_tiny_llama(base), device, **keys)
    kind = batches.attention_kind(setup)
    return kind, batches.largest_batches(setup, kind)


def test_the_sizes_are_those_of_the_collator_and_of_the_attention() -> None:
    assert batches.PAD_TO_MULTIPLE_OF == collate.PAD_TO_MULTIPLE_OF
    assert batches.SHORT == segments.SHORT


@pytest.mark.parametrize(
    ("keys", "on_gpu", "on_cpu"),
    [
        ({}, "flash", "segments"),
        ({"bf16": False}, "masked", "segments"),
        ({"sdp_attention": True}, "masked", "masked"),
        ({"flex_attention": True}, "masked", "masked"),
        ({"eager_attention": True}, "eager", "eager"),
    ],
)
def test_attention_is_the_one_that_a_run_chooses(
    keys: dict[str, Any], on_gpu: str, on_cpu: str, tmp_path: Path
) -> None:
    assert largest(tmp_path, BIG, **keys)[0] == on_gpu
    assert largest(tmp_path, CPU, **keys)[0] == on_cpu


def test_only_a_padded_batch_is_rounded_up(tmp_path: Path) -> None:
    rows = {"sequence_len": 100, "micro_batch_size": 3, "bf16": False}
    assert largest(tmp_path, **rows)[1] == (Batch(300, 100),)
    assert largest(tmp_path, sdp_attention=True, **rows)[1] == (Batch(384, 128),)
    assert largest(tmp_path, sdp_attention=True, sample_packing=True, **rows)[1] == (Batch(300, 100),)


def test_in_bfloat16_on_a_cpu_packs_are_full_of_samples_whose_probabilities_are_kept(tmp_path: Path) -> None:
    packed = {"sequence_len": 2048, "micro_batch_size": 2, "sample_packing": True}
    assert largest(tmp_path, bf16=True, **packed)[1] == (Batch(4096, 2048, 512),)
    assert largest(tmp_path, bf16=False, **packed)[1] == (Batch(4096, 2048),)
    assert largest(tmp_path, BIG, bf16=True, **packed)[1] == (Batch(4096, 2048),)


def test_a_row_of_its_own_is_long_or_short(tmp_path: Path) -> None:
    keys = {"micro_batch_size": 2, "bf16": True}
    assert largest(tmp_path, sequence_len=300, **keys)[1] == (Batch(600, 300, 300),)
    assert largest(tmp_path, sequence_len=600, **keys)[1] == (Batch(1200, 600), Batch(1024, 512, 512))
