"""Secrets planted where people leave them are found nowhere in what a run writes or says, and nobody is called."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.story import LORA, write_run
from tests.tiny import save_tiny_llama

from finetune.config import load_config
from finetune.errors import ConfigError
from finetune.model.attention import Attention
from finetune.model.build import Hardware
from finetune.model.precision import choose_precision
from finetune.surroundings import gather_surroundings

LETTERS = "CanaryCanaryCanaryCanaryCanary"
"""In every planted secret; what is looked for afterwards."""
HEX = "0ca0a40ca0a40ca0a40ca0a40ca0a40ca0a40ca0"

COMMENTS = f"""\
# HF_TOKEN=hf_{LETTERS}1
# wandb login {HEX}
# data: https://ann:{LETTERS}@example.org/rows.jsonl
# signed: https://example.org/rows.jsonl?X-Amz-Signature={LETTERS}
# api_key: {LETTERS}
# password = {LETTERS}
# AKIACANARYCANARYCANA sk-proj-{LETTERS}
"""
ENVIRONMENT = {"HF_TOKEN": f"hf_{LETTERS}2", "WANDB_API_KEY": HEX, "OPENAI_API_KEY": f"sk-{LETTERS}"}
NEEDLES = (LETTERS.encode(), HEX.encode(), b"AKIACANARYCANARYCANA")


def run(config_file: Path, *words: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    start = f"import sys\n{code}\nfrom finetune.cli import main\nmain(sys.argv[1:])"
    quick = ("--max_steps=2", "--save_steps=1", "--evals_per_epoch=null")
    return subprocess.run(
        [sys.executable, "-c", start, "train", str(config_file), *quick, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment},
    )


def hits(folder: Path) -> list[str]:
    """Return the files under ``folder`` that hold a planted secret."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 10
    return [str(path) for path in files if any(needle in path.read_bytes() for needle in NEEDLES)]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return write_run(tmp_path, save_tiny_llama(tmp_path / "llama"))


def test_planted_secrets_are_nowhere_in_what_a_run_leaves(config_file: Path) -> None:
    rows = config_file.parent / "rows.jsonl"
    lines = rows.read_text().splitlines()
    lines[-1] = json.dumps({"instruction": f"My key is sk-proj-{LETTERS}", "output": f"hf_{LETTERS}3"})
    rows.write_text("\n".join(lines) + "\n")
    config_file.write_text(COMMENTS + config_file.read_text())
    done = run(
        config_file,
        *LORA,
        "--eval_table_size=8",
        "--eval_max_new_tokens=2",
        "--wandb_project=p",
        "--wandb_log_model=false",
        **ENVIRONMENT,
        WANDB_MODE="offline",
    )

    assert done.returncode == 0, done.stderr
    assert [line for line in (done.stdout + done.stderr).splitlines() if any(n.decode() in line for n in NEEDLES)] == []
    out = config_file.parent / "out"
    assert {"README.md", "samples.md", "wandb", "latest", "manifest.json"} <= {path.name for path in out.iterdir()}
    assert hits(out) == []


def test_a_failure_does_not_repeat_the_password_of_an_address(config_file: Path) -> None:
    address = f"datasets[0].path=https://ann:{LETTERS}@127.0.0.1:9/rows.jsonl?sig={LETTERS}"
    done = run(config_file, address, "--debug")

    assert done.returncode == 3, done.stderr
    assert (
        LETTERS not in done.stdout + done.stderr.partition("Traceback")[0] + done.stderr.rpartition("\nfinetune: ")[2]
    )


def test_a_credential_on_the_command_line_ends_the_run_before_it_is_kept(config_file: Path) -> None:
    done = run(config_file, f"--wandb_name=hf_{LETTERS}4", "--wandb_project=p")

    assert done.returncode == 2
    assert LETTERS not in done.stdout + done.stderr
    assert not (config_file.parent / "out").exists()


def test_the_credentials_of_a_deepspeed_file_are_not_kept(config_file: Path) -> None:
    settings = {
        "zero_optimization": {"stage": 1},
        "comet": {"enabled": True, "api_key": LETTERS, "workspace": "w"},
        "csv_monitor": {"output_path": [f"https://ann:{LETTERS}@example.org"]},
    }
    (config_file.parent / "zero1.json").write_text(json.dumps(settings))
    config = load_config(config_file, ["--deepspeed=zero1.json"])
    hardware = Hardware(choose_precision(config.training), Attention("sdpa", flatten=False))
    kept = gather_surroundings(config, hardware).to_json()

    assert LETTERS not in kept
    assert json.loads(kept)["deepspeed"]["comet"] == {"enabled": True, "api_key": "[redacted]", "workspace": "w"}

    (config_file.parent / "zero1.json").write_text(json.dumps({**settings, "wandb": {"token": f"hf_{LETTERS}5"}}))
    with pytest.raises(ConfigError, match=r"zero1\.json: wandb\.token: looks like a Hugging Face token"):
        gather_surroundings(config, hardware)


SPY = """
calls = []
def spy(event, details):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        calls.append((event, str(details)))
sys.addaudithook(spy)
import atexit
atexit.register(lambda: sys.stderr.write(f"CALLS {calls}\\n"))
"""


def test_a_run_without_tracking_calls_nobody(config_file: Path) -> None:
    """No hub, no telemetry, not even a name looked up, although nothing says that this machine is offline."""
    done = run(config_file, *LORA, code=SPY, HF_HUB_OFFLINE="0", WANDB_MODE="online")

    assert done.returncode == 0, done.stderr
    assert "CALLS []" in done.stderr
