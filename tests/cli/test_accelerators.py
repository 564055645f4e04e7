"""How many GPUs a machine shows, as its driver lists them and ``CUDA_VISIBLE_DEVICES`` hides them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from finetune.cli.accelerators import VISIBLE, count_accelerators, count_processors, num_visible, use_one_accelerator

FOUR = "".join(f"GPU {n}: NVIDIA A100-SXM4-80GB (UUID: GPU-{n}f3a9c1e-77)\n" for n in range(4))
SLICES = (
    "GPU 0: NVIDIA A100 (UUID: GPU-aa)\n  MIG 1g.5gb Device 0: (UUID: MIG-bb)\n  MIG 1g.5gb Device 1: (UUID: MIG-cc)\n"
)


@pytest.mark.parametrize(
    ("visible", "number"),
    [
        (None, 4),
        ("0,1", 2),
        ("3", 1),
        ("2, 3", 2),
        ("", 0),
        ("-1", 0),
        ("0,-1,1", 1),
        ("0,1,7,2", 2),
        ("GPU-1f3a9c1e-77,GPU-2f", 2),
        ("GPU-unknown", 0),
    ],
)
def test_visible_gpus_are_counted_as_cuda_counts_them(visible: str | None, number: int) -> None:
    assert num_visible(FOUR, visible) == number


def test_a_slice_of_a_gpu_is_found_by_its_name() -> None:
    assert num_visible(SLICES, None) == 1
    assert num_visible(SLICES, "MIG-bb") == 1


def install_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put an ``nvidia-smi`` of our own in front of any other."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_the_driver_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_driver(tmp_path, monkeypatch, f"[ $1 = --list-gpus ] && printf '{FOUR}'")
    monkeypatch.delenv(VISIBLE, raising=False)
    assert count_accelerators() == 4
    monkeypatch.setenv(VISIBLE, "1,2")
    assert count_accelerators() == 2


def test_hidden_gpus_are_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_driver(tmp_path, monkeypatch, f"touch {tmp_path}/asked; printf '{FOUR}'")
    monkeypatch.setenv(VISIBLE, "")
    assert count_accelerators() == 0
    assert not (tmp_path / "asked").exists()


def test_torch_is_asked_where_the_driver_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_driver(tmp_path, monkeypatch, "echo No devices were found; exit 6")
    monkeypatch.delenv(VISIBLE, raising=False)
    assert count_accelerators() == torch.cuda.device_count()


@pytest.mark.parametrize(("visible", "first"), [(None, "0"), ("2,3", "2"), ("1", "1")])
def test_a_single_process_sees_the_first_gpu_alone(
    visible: str | None, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "kept for the end of the test")
    if visible is None:
        monkeypatch.delenv(VISIBLE)
    else:
        monkeypatch.setenv(VISIBLE, visible)
    use_one_accelerator()
    assert os.environ[VISIBLE] == first


def test_processors_that_a_process_may_not_use_are_not_counted() -> None:
    command = f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}]); "
    command += "from finetune.cli.accelerators import count_processors; print(count_processors())"
    assert subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout == "1\n"
    assert count_processors() == len(os.sched_getaffinity(0))
