"""Runs whole trainings in groups of processes that are forked from one, so that torch is imported once.

Started as ``python forks.py cases.json``, a list of cases ``{"world_size", "arguments", "log", "signal"}``.  Prints
the exit codes of each case's processes.  The processes talk to each other as under a launcher; what a launcher itself
does is tested with a real one.
"""

import importlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from finetune.cli import main as finetune_main


def main(cases: list[dict[str, Any]]) -> list[list[int]]:
    """Run the cases one after another."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    for name in ("finetune.train", "deepspeed"):
        importlib.import_module(name)
    return [run_case(case) for case in cases]


def run_case(case: dict[str, Any]) -> list[int]:
    """Fork the processes of one case and wait for them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(case["world_size"]):
        child = os.fork()
        if child == 0:
            run_rank(case, rank, port)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def run_rank(case: dict[str, Any], rank: int, port: int) -> NoReturn:
    """Be one process of a case."""
    if case["world_size"] > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(case["world_size"])}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    log = os.open(case["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    exit_code = 1
    try:
        finetune_main(["train", *case["arguments"]])
        exit_code = 0
    except SystemExit as error:
        exit_code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(exit_code)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))) + "\n")
