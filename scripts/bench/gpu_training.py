"""One training of gpu.py: by us or by TRL, within the time that is left."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from random_model import make_model

TRL_DRIVER = Path(__file__).parent / "peers" / "trl_train.py"
COMMON = {
    "sample_packing": True,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-5,
    "lr_scheduler": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
}


@dataclass(frozen=True)
class Case:
    """One training, and the tokens per second of one H100 that it is to reach."""

    shape: str
    keys: dict[str, Any]
    goal: int | None = None
    needs: str = ""
    """Package without which it is left out."""
    with_trl: str = ""
    """Name of the case of ours that TRL's SFTTrainer trains here."""


@dataclass(frozen=True)
class Measured:
    """What a training showed in the later half of its steps."""

    tokens_per_second: float
    step_seconds: float
    peak_gib: float
    norms: tuple[float, ...]
    mfu: float = 0.0
    """0 where the device's peak is not known."""
    estimated_gib: float = 0.0


class CaseFailedError(Exception):
    """The case did not end well, or what it showed does not count."""


@dataclass(frozen=True)
class GpuBench:
    """Where things are, and until when."""

    work: Path
    device: str
    sequence_len: int
    num_steps: int
    deadline: float
    """In the time of ``time.monotonic``."""

    @property
    def batch(self) -> int:
        """Packed rows in a step."""
        return 2 if self.device == "cuda" else 1

    def measure(self, case: Case, *, even_if_too_large: bool = False) -> Measured:
        """Train a case by ourselves.  Raises CaseFailedError."""
        words = self._words(case)
        code, expected = self._finetune("estimate", words, (0, 5))
        peak = re.search(r"(?m)^peak: ([\d.]+) GiB", expected)
        if code and not even_if_too_large:
            needed = f"{peak[1]} GiB" if peak else "its peak"
            raise CaseFailedError(f"left out, by `finetune estimate` {needed} does not fit (--cases runs it anyway)")
        _, said = self._finetune("train", [*words, "--replace"], (0,))
        if "they are isolated" not in said:
            raise CaseFailedError("packed samples were not found isolated")
        lines = (self.work / "out" / "metrics.jsonl").read_text().splitlines()
        steps = [row for row in map(json.loads, lines) if "loss" in row]
        shutil.rmtree(self.work / "out")
        late = steps[len(steps) // 2 :]
        rate, seconds, mfu = (
            statistics.median(row.get(key, 0.0) for row in late) for key in ("tokens_per_second", "step_time", "mfu")
        )
        peak_gib = max(row["peak_memory_gb"] for row in steps) * 1e9 / 2**30
        return Measured(rate, seconds, peak_gib, _norms(steps), mfu, float(peak[1]) if peak else 0.0)

    def measure_trl(self, case: Case) -> Measured:
        """Let TRL's SFTTrainer train the same rows, which it packs itself.  Raises CaseFailedError."""
        job = {
            "model": str(make_model(self.work, case.shape, self.device)),
            "data": "",
            "chats": str(self.work / "rows.jsonl"),
            "adapter": "adapter" in case.keys,
            "packed": True,
            "bf16": True,
            "num_steps": self.num_steps,
            "batch": self.batch,
            "learning_rate": COMMON["learning_rate"],
            "sequence_len": self.sequence_len,
            "seed": 42,
            "steps": str(self.work / "steps.jsonl"),
            "device": self.device,
        }
        (self.work / "job.json").write_text(json.dumps(job))
        (self.work / "steps.jsonl").unlink(missing_ok=True)
        self._run([sys.executable, str(TRL_DRIVER), str(self.work / "job.json")], (0,))
        steps = [json.loads(line) for line in (self.work / "steps.jsonl").read_text().splitlines()]
        half = len(steps) // 2
        late = steps[half:]
        times = [after["time"] - before["time"] for before, after in zip(steps[half - 1 :], late, strict=False)]
        rates = [step["total"] / seconds for step, seconds in zip(late, times, strict=True)]
        peak_gib = max(step.get("peak_bytes", 0) for step in steps) / 2**30
        return Measured(statistics.median(rates), statistics.median(times), peak_gib, _norms(steps))

    def _words(self, case: Case) -> list[str]:
        given = {
            "base_model": str(make_model(self.work, case.shape, self.device)),
            "datasets": [{"path": str(self.work / "rows.jsonl"), "type": "pretokenized"}],
            "dataset_prepared_path": str(self.work / "prepared"),
            "output_dir": str(self.work / "out"),
            "sequence_len": self.sequence_len,
            "micro_batch_size": self.batch,
            "max_steps": self.num_steps,
            **COMMON,
            **case.keys,
        }
        return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in given.items()]

    def _finetune(self, command: str, words: list[str], codes: tuple[int, ...]) -> tuple[int, str]:
        """Run one of our commands; return its exit code and what it said.  Raises CaseFailedError."""
        config = self.work / "config.yml"
        config.write_text("micro_batch_size: 1\n")
        return self._run([sys.executable, "-m", "finetune", command, str(config), *words], codes)

    def _run(self, command: list[str], codes: tuple[int, ...]) -> tuple[int, str]:
        hidden = {"CUDA_VISIBLE_DEVICES": "" if self.device == "cpu" else "0"}
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=max(1.0, self.deadline - time.monotonic()),
                env={**os.environ, **hidden, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(self.work / "cache")},
            )
        except subprocess.TimeoutExpired:
            raise CaseFailedError("stopped, the time of all cases was over") from None
        if done.returncode not in codes:
            said = " / ".join(done.stderr.splitlines()[-3:])
            raise CaseFailedError(f"{' '.join(command[1:4])} ended with {done.returncode}: {said}")
        return done.returncode, done.stdout


def _norms(steps: list[dict[str, Any]]) -> tuple[float, ...]:
    norms = tuple(step["grad_norm"] for step in steps)
    if not all(norm > 0 for norm in norms):
        raise CaseFailedError(f"a gradient norm is not above zero: {norms}")
    return norms
