"""Commands in processes forked from one that has imported torch: they start in no time, and can be killed."""

import importlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from finetune.cli import main as finetune_main

HUNG = 124
"""Stands for the exit code of a process that did not end in time."""

LIMIT_S = 180.0

Work = Callable[[], int]
"""What a child does; it returns its exit code."""


def import_all() -> None:
    """Import what training needs, once, and nothing that starts a thread."""
    os.environ.update({"DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"})
    os.environ.update({"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""})
    for name in ("finetune.train", "finetune.cli.train", "finetune.cli.preprocess", "deepspeed"):
        importlib.import_module(name)


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    exit_code: int
    """Of the first process that ended badly; negative: the signal that killed it; HUNG: it had to be ended."""
    text: str
    """Output and errors of all processes together."""
    seconds: float
    cpu_seconds: float

    @property
    def last_words(self) -> str:
        """The end of what it said, on one line."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return f"exit {self.exit_code}: {' '.join(lines[-2:])[-240:]}"


@dataclass
class Child:
    """The processes of one command."""

    pids: list[int]
    log: Path
    started: float = field(default_factory=time.monotonic)
    codes: dict[int, int] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    """Of the processes that have ended, and of what they waited for."""

    def running(self) -> bool:
        """Whether any process is left; never waits."""
        for pid in self.pids:
            if pid not in self.codes:
                done, status, usage = os.wait4(pid, os.WNOHANG)
                if done:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
                    self.cpu_seconds += usage.ru_utime + usage.ru_stime
        return len(self.codes) < len(self.pids)

    def worked(self, seconds: float) -> bool:
        """Wait until the first process has used so much CPU time, or all have ended; return whether one still runs.

        Time of the clock would say nothing of how far a run has come on a machine that is busy with something else.
        """
        while self.running():
            if self._cpu_seconds() >= seconds:
                return True
            time.sleep(0.001)
        return False

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pids[0]}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send(self, number: signal.Signals, *ranks: int) -> None:
        """Send a signal to the processes ``ranks``, or to all of them."""
        for rank, pid in enumerate(self.pids):
            if pid not in self.codes and (not ranks or rank in ranks):
                os.kill(pid, number)

    def wait(self, limit_s: float = LIMIT_S) -> Outcome:
        """Wait for all processes; those that are late are killed."""
        late = False
        while self.running():
            if not late and time.monotonic() - self.started > limit_s:
                self.send(signal.SIGKILL)
                late = True
            time.sleep(0.002)
        codes = [self.codes[pid] for pid in self.pids]
        code = HUNG if late else next((code for code in codes if code), 0)
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
        return Outcome(code, text, time.monotonic() - self.started, self.cpu_seconds)


def start(work: Work, log: Path, world_size: int = 1, environment: Mapping[str, str] | None = None) -> Child:
    """Fork the processes of one command; their output goes to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    sys.stdout.flush()
    port = _free_port() if world_size > 1 else 0
    pids = []
    for rank in range(world_size):
        pid = os.fork()
        if pid == 0:
            os.environ.update(environment or {})
            if world_size > 1:
                _join(rank, world_size, port)
            _be_child(work, log)
        pids.append(pid)
    return Child(pids, log)


def run(work: Work, log: Path, world_size: int = 1, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run one command to its end."""
    return start(work, log, world_size, environment).wait()


def command(*words: object) -> Work:
    """Return the work that is ``finetune`` with these words."""

    def work() -> int:
        try:
            finetune_main([str(word) for word in words])
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        return 0

    return work


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _join(rank: int, world_size: int, port: int) -> None:
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})


def _be_child(work: Work, log: Path) -> NoReturn:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = 1
    try:
        code = work()
    finally:
        kind, error, trace = sys.exc_info()
        if kind and error:
            sys.excepthook(kind, error, trace)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
