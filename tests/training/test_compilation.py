"""Compiled layers: the numbers of plain ones, the same names, and only where it is worth it and possible."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tests.story import LORA, write_run
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from finetune.config import load_config
from finetune.config.training import TrainingSection
from finetune.errors import HardwareError, ModelError
from finetune.model.precision import Precision
from finetune.narration import Narrator
from finetune.train import run
from finetune.training.compilation import choose_compilation, keep_compiled_code, refuse_compilation

REQUIRED = {"micro_batch_size": 1, "gradient_accumulation_steps": 1, "batch_size": 1, "eval_batch_size": 1}


def section(choice: bool | str) -> TrainingSection:
    return TrainingSection.model_validate({**REQUIRED, "learning_rate": 1e-3, "torch_compile": choice})


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_compiled_layers_train_like_plain_ones(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    torch.compiler.reset()
    file = write_run(tmp_path, tiny_llama)
    changes = [*LORA, "--sample_packing=true", "--gradient_checkpointing=true", "--max_steps=3"]
    losses, weights, said = [], [], []
    for choice in ("false", "true"):
        text = tmp_path / f"{choice}.txt"
        with text.open("w") as stream:
            config = load_config(file, [*changes, f"--torch_compile={choice}", f"--output_dir={tmp_path / choice}"])
            folder = run(config, Narrator(Console(file=stream, width=200)))
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows if "loss" in row])
        weights.append(load_file(folder / "adapter_model.safetensors"))
        said.append(text.read_text())

    assert "torch_compile: 2 layers" in said[1]
    assert "torch_compile" not in said[0]
    assert any((tmp_path / "compiled").rglob("*.so"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=2e-4) for name in weights[0])


@pytest.mark.skipif(shutil.which("false") is None, reason="there is no program `false`")
def test_layers_that_cannot_be_compiled_are_an_answer_not_a_traceback(tmp_path: Path, tiny_llama: Path) -> None:
    file = write_run(tmp_path, tiny_llama)
    done = subprocess.run(
        [sys.executable, "-m", "finetune", "train", str(file), "--torch_compile=true", "--max_steps=1"],
        env={**os.environ, "CXX": "false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ModelError.exit_code
    assert "cannot compile this model's layers here: " in done.stderr
    assert "use torch_compile: false" in done.stderr
    assert "Traceback" not in done.stderr


def test_auto_says_why_it_does_not_compile() -> None:
    def note(num_steps: int, dtype: torch.dtype, *, deepspeed: bool = False) -> str | None:
        precision = Precision(dtype)
        return choose_compilation(section("auto"), num_steps, precision, deepspeed=deepspeed).note

    assert note(1000, torch.bfloat16, deepspeed=True) == "torch_compile: auto is off: DeepSpeed hooks into each layer"
    assert note(199, torch.bfloat16) == "torch_compile: auto is off: 199 steps are fewer than 200"
    if not torch.cuda.is_available():
        expected = "torch_compile: auto is off: on a CPU it gains nothing in float32"
        assert note(1000, torch.float32) == expected


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_auto_compiles_a_long_run_in_16_bits() -> None:
    precision = Precision(torch.bfloat16)
    assert choose_compilation(section("auto"), 200, precision, deepspeed=False).on
    assert not choose_compilation(section(choice=False), 200, precision, deepspeed=False).on


def test_a_compiler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(HardwareError, match=r"torch_compile: true, but there is no C\+\+ compiler \(no-such-compiler"):
        refuse_compilation(section(choice=True), deepspeed=False)
    refuse_compilation(section("auto"), deepspeed=False)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_compilation_with_deepspeed_is_refused() -> None:
    with pytest.raises(ModelError, match="torch_compile: true is not supported with deepspeed"):
        refuse_compilation(section(choice=True), deepspeed=True)


def test_compiled_code_is_kept_where_caches_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
    keep_compiled_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "mine"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for theirs in (None, default_cache_dir()):
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        if theirs:
            monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", theirs)
        keep_compiled_code()
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "finetune" / "compiled")
