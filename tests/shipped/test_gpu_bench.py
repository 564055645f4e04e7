"""The benchmark for one GPU runs where there is none, with a tiny model, and says what it left out."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "gpu.py"


def test_a_tiny_model_is_measured_on_a_cpu(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--tiny", "--steps", "4", "--work", str(tmp_path), "--cases", "tiny full"]
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| tiny full |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert int(cells[1].replace(",", "")) > 100
    assert float(cells[6]) > 0  # estimated
    assert re.fullmatch(r"[\d.]+ to [\d.]+", cells[7])


def test_what_its_time_does_not_allow_is_named(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--tiny", "--seconds", "0", "--work", str(tmp_path)]
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "- tiny LoRA: left out, the time of all cases was over" in done.stdout
