"""GPUs by name and by size."""

import os

import pytest

from finetune.errors import ConfigError
from finetune.estimate.devices import GPUS, Device, device_here, host_bytes, named_gpu, sized_gpu


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("H100 80GB", "H100 80GB"),
        ("h100", "H100 80GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("a100", "A100 40GB"),
        ("geforce rtx 4090", "RTX 4090 24GB"),
        ("V100 32 GB", "V100 32GB"),
    ],
)
def test_a_gpu_is_found_in_any_spelling(name: str, label: str) -> None:
    assert named_gpu(name).name == label


def test_every_gpu_has_less_than_its_label_says() -> None:
    for label, gib in GPUS.items():
        assert gib * 2**30 < int(label.rsplit(" ", 1)[1].removesuffix("GB")) * 1024**3


def test_an_unknown_gpu_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'H10' is not in the table.* for any other give its size with --memory"):
        named_gpu("H10")


@pytest.mark.parametrize(("size", "num_bytes"), [("80GB", 80 * 10**9), ("24 GiB", 24 * 2**30), ("512MiB", 2**29)])
def test_a_size_is_read(size: str, num_bytes: int) -> None:
    assert sized_gpu(size).num_bytes == num_bytes


@pytest.mark.parametrize("size", ["much", "", "0GB", "-1GB"])
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(ConfigError, match="is not a size; write it as 80GB or 24GiB"):
        sized_gpu(size)


def test_processes_without_a_gpu_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device_here(2).num_bytes == host_bytes() // 2
    assert host_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_machine_is_left_more_room_than_a_gpu() -> None:
    sizes = {kind: Device("x", kind, 100 * 2**30).usable_bytes for kind in ("cuda", "cpu")}
    assert sizes == {"cuda": 95 * 2**30, "cpu": 75 * 2**30}
