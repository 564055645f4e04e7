"""Interrupting real trainings: start one, wait for a moment, do something to it, look at what is left, go on."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 240
COMPUTED = ("step", "epoch", "loss", "grad_norm", "learning_rate", "eval_loss")
"""Fields of ``metrics.jsonl`` that are the same in any run, the first two in every row."""
STOPS = {signal.SIGTERM: (75, 143), signal.SIGINT: (130,), signal.SIGUSR1: (75, 143), signal.SIGHUP: (75, 143)}
"""Signal to the exit codes that it may lead to, besides 0 for a run whose result was being written."""


@dataclass(frozen=True)
class Ended:
    """A command that was interrupted, and how it ended."""

    exit_code: int
    output: str
    seconds: float
    """From the signal to the end."""
    state: dict[str, Any]
    """What ``run.json`` says; empty where there is none."""


class Bench:
    """A small run with dropout, evaluations and checkpoints, and what it comes to when nobody interrupts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chance = random.Random(0)  # noqa: S311 - moments, no secrets
        self.config = self._write()
        self.wholes: dict[tuple[str, ...], Ended] = {}

    def _write(self) -> Path:
        sys.path.insert(0, str(ROOT))
        from tests.distributed.runs import write_run  # noqa: PLC0415 - tests are no package that is installed

        self.folder.mkdir(parents=True, exist_ok=True)
        config = write_run(self.folder)
        values = yaml.safe_load(config.read_text())
        values |= {"adapter": "lora", "lora_target_linear": True, "lora_r": 4, "lora_dropout": 0.1}
        values |= {"num_epochs": 8, "micro_batch_size": 2, "evals_per_epoch": 3, "saves_per_epoch": 1}
        values |= {"save_total_limit": 2}
        config.write_text(yaml.safe_dump(values))
        return config

    def start(self, out: Path, words: Sequence[str]) -> subprocess.Popen[str]:
        """Start a training in a session of its own."""
        launched = re.compile(r"RANK|LOCAL_RANK|WORLD_SIZE|MASTER_\w+|ACCELERATE_\w+|FINETUNE_\w+|TORCHELASTIC_\w+")
        own = {name: value for name, value in os.environ.items() if not launched.fullmatch(name)}
        return subprocess.Popen(
            [sys.executable, "-m", "finetune", "train", str(self.config), f"--output_dir={out}", *words],
            env={**own, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def whole(self, words: tuple[str, ...]) -> Ended:
        """Return how the run ends that nobody interrupts, ``seconds`` its length."""
        if words not in self.wholes:
            out = self.folder / f"whole-{len(self.wholes)}"
            began = time.monotonic()
            process = self.start(out, words)
            output, _ = process.communicate(timeout=LIMIT_S)
            if process.returncode:
                raise RuntimeError(output)
            state = {"digest": digest(out), "metrics": metrics(out)}
            self.wholes[words] = Ended(0, output, time.monotonic() - began, state)
            shutil.rmtree(out)
        return self.wholes[words]

    def interrupt(
        self,
        words: tuple[str, ...],
        moment: Callable[[subprocess.Popen[str], Path], object],
        act: Callable[[subprocess.Popen[str]], object],
        out: Path,
    ) -> Ended:
        """Start a run, wait for a moment, do something to it, and wait for its end."""
        process = self.start(out, words)
        moment(process, out)
        began = time.monotonic()
        act(process)
        try:
            output, _ = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output = f"not over after {LIMIT_S} s: {process.communicate()[0]}"
        seconds = time.monotonic() - began
        file = out / "run.json"
        state = json.loads(file.read_text()) if file.is_file() else {}
        return Ended(process.returncode, output, seconds, state)

    def fault(self, ended: Ended, allowed: Sequence[int], words: tuple[str, ...], out: Path) -> str:
        """Return what is wrong with an end, or with what goes on from it; an empty string for nothing."""
        wrong = fault_of_end(ended, allowed, out)
        if wrong:
            return wrong
        if ended.exit_code != 0:
            process = self.start(out, (*words, *(["--resume"] if list(out.glob("checkpoint-*")) else [])))
            again, _ = process.communicate(timeout=LIMIT_S)
            if process.returncode:
                return f"the same command again ended with {process.returncode}: {again[-300:]}"
        whole = self.whole(words).state
        same = {"weights": digest(out) == whole["digest"], "metrics.jsonl": metrics(out) == whole["metrics"]}
        other = [name for name, is_same in same.items() if not is_same]
        return f"other {' and '.join(other)} than the uninterrupted run's, after {ended.output[-100:]}" if other else ""

    def sweep(
        self, words: tuple[str, ...], numbers: Sequence[signal.Signals], count: int
    ) -> tuple[list[str], list[float]]:
        """Interrupt ``count`` runs at random moments; return what went wrong, and how long each end took."""
        faults, seconds = [], []
        length = self.whole(words).seconds
        for index in range(count):
            number, delay = numbers[index % len(numbers)], self.chance.uniform(0.3, length)
            out = self.folder / "interrupted"
            shutil.rmtree(out, ignore_errors=True)
            fresh = (
                (*words, f"--dataset_prepared_path={self.folder / f'prepared-{index}'}") if index % 3 == 0 else words
            )
            ended = self.interrupt(fresh, wait(delay), send(number), out)
            wrong = self.fault(ended, (*STOPS[number], 0), words, out)
            faults += [f"{number.name} after {delay:.2f} of {length:.2f} s: {wrong}"] if wrong else []
            seconds += [ended.seconds] if ended.exit_code else []
            shutil.rmtree(self.folder / f"prepared-{index}", ignore_errors=True)
        return faults, seconds


def fault_of_end(ended: Ended, allowed: Sequence[int], out: Path) -> str:
    """Return what is wrong with the way that a run ended; an empty string for nothing."""
    checkpoints = list(out.glob("checkpoint-*"))
    faults = {
        f"exit code {ended.exit_code}": ended.exit_code not in allowed,
        "a traceback": "Traceback" in ended.output,
        "run.json says another code": bool(ended.state) and ended.state["exit_code"] != ended.exit_code,
        "75 without a checkpoint": ended.exit_code == 75 and not checkpoints,
        "a partial checkpoint": any(not (path / "trainer_state.json").is_file() for path in checkpoints),
    }
    found = [name for name, is_so in faults.items() if is_so]
    return f"{', '.join(found)}: {ended.output[-300:]}" if found else ""


def digest(out: Path) -> str:
    """Return one hash over the final weights."""
    files = sorted(out.glob("*.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else ""


def metrics(out: Path) -> list[dict[str, Any]]:
    """Return what was computed, of the rows of ``metrics.jsonl``; what a clock says is left out."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in COMPUTED if name in row} for row in rows if row.keys() & set(COMPUTED[2:])]


def wait(seconds: float) -> Callable[[subprocess.Popen[str], Path], None]:
    """Return a moment: so long after the start."""
    return lambda process, out: time.sleep(seconds)


def at_step(number: int) -> Callable[[subprocess.Popen[str], Path], None]:
    """Return a moment: when so many rows of metrics are written."""

    def until(process: subprocess.Popen[str], out: Path) -> None:
        deadline, file = time.monotonic() + LIMIT_S, out / "metrics.jsonl"
        while process.poll() is None and time.monotonic() < deadline:
            if file.is_file() and file.read_text().count("\n") >= number:
                return
            time.sleep(0.05)

    return until


def in_steps(process: subprocess.Popen[str], out: Path) -> None:
    """Wait until the first step is being taken."""
    deadline = time.monotonic() + LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        file = out / "run.json"
        if file.is_file() and json.loads(file.read_text())["total_steps"]:
            time.sleep(1)
            return
        time.sleep(0.05)


def send(number: signal.Signals) -> Callable[[subprocess.Popen[str]], None]:
    """Return what sends a signal to the command."""
    return lambda process: process.send_signal(number)


def workers(process: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    """Return the processes that train, by rank."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            environment, line = child.environ(), child.cmdline()
        except psutil.Error:
            continue
        if "finetune.train" in line and environment.get("LOCAL_RANK"):
            found[int(environment["RANK"])] = child
    return found
