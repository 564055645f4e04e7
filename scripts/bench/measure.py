"""Run a command; measure its time, its CPU time, and its memory."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class Run:
    """What one run cost."""

    seconds: float
    cpu_seconds: float
    """Of the command and all its children."""
    peak_mb: float
    """Largest sum of the tree's proportional set sizes: shared pages count once."""


@dataclass(frozen=True)
class Training:
    """What one training cost."""

    started: float
    """Seconds since 1970."""
    cpu_seconds: float
    peak_mb: float
    """Largest resident set."""


class RunFailedError(Exception):
    """The command did not end well; the message has its last lines."""


def run(command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> Run:
    """Run ``command`` on the first core that this process may use.  Raises RunFailedError."""
    core = min(os.sched_getaffinity(0))
    with log.open("w") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],  # noqa: S607
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ONE_THREAD, **(environment or {})},
        )
        watcher = _MemoryWatcher(process.pid)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        watcher.stop()
    _refuse(process.returncode, log)
    return Run(seconds, usage.ru_utime + usage.ru_stime, watcher.peak / 1e6)


def run_training(command: Sequence[str | Path], log: Path, threads: int) -> Training:
    """Run ``command`` with ``threads``, unwatched: looking at gigabytes takes time.  Raises RunFailedError."""
    environment = {**os.environ, **ONE_THREAD, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with log.open("w") as output:
        started = time.time()
        process = subprocess.Popen(list(command), stdout=output, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    _refuse(process.returncode, log)
    return Training(started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3)


def _refuse(exit_code: int, log: Path) -> None:
    if exit_code:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise RunFailedError(f"exit code {exit_code}: {' / '.join(lines[-3:])}")


class _MemoryWatcher(threading.Thread):
    """Looks at the memory of a process tree ten times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self._done = threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._done.wait(0.1):
            self.peak = max(self.peak, self._now())

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _now(self) -> int:
        total = 0
        try:
            for process in [self._root, *self._root.children(recursive=True)]:
                total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            return total
        return total
