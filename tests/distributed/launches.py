"""Commands that start processes by themselves, as a person gives them on a machine without GPUs."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil

SHORT = ("--max_steps=3", "--evals_per_epoch=null")
"""Three steps, and one evaluation at the end."""

ENDLESS = ("--max_steps=100000", "--evals_per_epoch=null", "--eval_strategy=no", "--save_strategy=no")
"""Until a signal comes."""

LIMIT_S = 240
"""For one command.  The first start of DeepSpeed builds operators, and the machine may be busy."""


def environment(**changes: str) -> dict[str, str]:
    """Return the surroundings of a person at a machine without GPUs, outside any launcher."""
    launched = re.compile(r"RANK|LOCAL_RANK|WORLD_SIZE|MASTER_\w+|ACCELERATE_\w+|FINETUNE_\w+")
    own = {name: value for name, value in os.environ.items() if not launched.fullmatch(name)}
    return {**own, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **changes}


def start(*words: object, **changes: str) -> subprocess.Popen[str]:
    """Start ``python`` with ``words``, output and errors in one pipe."""
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a process and return its exit code and output; ended by force if it takes too long."""
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, _ = process.communicate()
        raise AssertionError(f"not done after {LIMIT_S} s\n{output}") from None
    return process.returncode, output


def run(*words: object, **changes: str) -> str:
    """Run ``python`` with ``words`` to a good end and return what it said."""
    exit_code, output = finish(start(*words, **changes))
    assert exit_code == 0, output
    return output


def kill_rank(process: subprocess.Popen[str], rank: int) -> None:
    """End one of the training processes that ``process`` has started with SIGKILL, and wait until it is gone."""
    children = psutil.Process(process.pid).children(recursive=True)
    (child,) = [
        child
        for child in children
        if "finetune.train" in child.cmdline()
        and child.environ().get("LOCAL_RANK")
        and child.environ()["RANK"] == str(rank)
    ]
    child.kill()
    assert psutil.wait_procs([child], timeout=10)[1] == []


def wait_for_steps(process: subprocess.Popen[str], output_dir: Path, number: int) -> None:
    """Wait until a run has logged ``number`` steps."""
    deadline = time.monotonic() + LIMIT_S
    path = output_dir / "metrics.jsonl"
    while not (path.is_file() and path.read_text().count("\n") >= number):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no step in time"
        time.sleep(0.1)
