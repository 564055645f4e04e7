"""``finetune estimate`` as a user types it."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Finetune, WriteConfig
from tests.estimate.test_flops import LLAMA_8B
from tests.repo.test_imports import HEAVY, modules_loaded_by
from tests.tiny import save_tiny_llama

LORA = {"adapter": "lora", "lora_target_linear": True}


@pytest.fixture
def llama(tmp_path: Path) -> str:
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(str(LLAMA_8B).replace("'", '"'))
    return str(folder)


def test_a_run_that_fits_is_said_to(finetune: Finetune, write_config: WriteConfig, llama: str) -> None:
    file = write_config(base_model=llama, sequence_len=2048, **LORA)
    told = finetune("estimate", file, "--device", "h100 80gb", "--lora_r", "16")
    assert told.exit_code == 0, told.err
    assert "8,072,204,288 parameters, 41,943,040 of them trained" in told.out
    assert "weights" in told.out
    assert "fits: H100 80GB" in told.out
    assert "shapes follow from config.json" in told.out


def test_a_run_that_does_not_fit_ends_with_5_and_says_what_would(
    finetune: Finetune, write_config: WriteConfig, llama: str
) -> None:
    told = finetune("estimate", write_config(base_model=llama, micro_batch_size=8, **LORA), "--memory", "24GB")
    assert told.exit_code == 5
    assert "does not fit: a GPU with 24GB" in told.out
    assert "to make it fit, one of these, the cheapest first:" in told.out
    assert "- micro_batch_size: 1, gradient_accumulation_steps: 8   -> " in told.out
    full = finetune("estimate", write_config(base_model=llama), "--memory", "9GB")
    assert "to make it fit, all of these:" in full.out


def test_auto_is_resolved_and_said(finetune: Finetune, write_config: WriteConfig, llama: str) -> None:
    keys = {"micro_batch_size": "auto", "batch_size": 64, "gradient_checkpointing": "auto", "sequence_len": 4096}
    told = finetune("estimate", write_config(base_model=llama, **keys, **LORA), "--device", "A100 80GB")
    assert told.exit_code == 0
    assert "gradient_checkpointing: auto is false" in told.out
    assert "micro_batch_size: auto is 2, gradient_accumulation_steps 32" in told.out


def test_deepspeed_and_processes_count(finetune: Finetune, write_config: WriteConfig, llama: str) -> None:
    file = write_config(base_model=llama, deepspeed="zero3_cpu_offload.json")
    told = finetune("estimate", file, "--device", "A100 40GB", "--num-processes", "8")
    assert "memory of each device, 8 processes" in told.out
    assert "host, GiB" in told.out
    assert "ZeRO-3, 8 processes, on the host" in told.out


def test_faults_are_told(finetune: Finetune, write_config: WriteConfig, llama: str) -> None:
    file = write_config(base_model=llama)
    both = finetune("estimate", file, "--device", "H100", "--memory", "80GB")
    assert (both.exit_code, "--device and --memory exclude each other" in both.err) == (2, True)
    unknown = finetune("estimate", file, "--device", "H1000")
    assert (unknown.exit_code, "is not in the table" in unknown.err) == (2, True)


def test_it_needs_no_torch(write_config: WriteConfig, tmp_path: Path) -> None:
    file = write_config(base_model=str(save_tiny_llama(tmp_path / "base")), tokens=["<a>"])
    assert modules_loaded_by("estimate", str(file), "--device", "H100") & HEAVY == set()


def test_the_first_gpu_or_the_memory_of_the_machine_is_meant(write_config: WriteConfig, tmp_path: Path) -> None:
    file = write_config(base_model=str(save_tiny_llama(tmp_path / "base")))
    done = subprocess.run(
        [sys.executable, "-m", "finetune", "estimate", str(file)], capture_output=True, text=True, check=True
    )
    assert "fits: " in done.stdout
