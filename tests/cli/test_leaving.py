"""A process that is done ends at once, with all that was said and promised."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys, threading, time
from finetune.cli.leaving import leaving_at_once

class Kept:
    def __del__(self):
        print("taken apart")

kept = Kept()
with leaving_at_once():
    atexit.register(print, "promised")
    threading.Thread(target=lambda: (time.sleep(0.2), print("waited for"))).start()
    print("said", end=" ")
    {last}
"""


@pytest.mark.parametrize(
    ("last", "exit_code"),
    [("pass", 0), ("sys.exit()", 0), ("sys.exit(75)", 75), ("sys.exit('no')", 1), ("raise OSError('no')", 1)],
)
def test_threads_and_promises_are_kept_and_nothing_is_taken_apart(last: str, exit_code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(last=last)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "said waited for\npromised\n"
    assert done.returncode == exit_code
    assert ("no" in done.stderr) == (exit_code == 1)


def test_a_reader_who_has_gone_changes_nothing() -> None:
    last = "input(); sys.exit(75)"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(last=last)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.close()
        child.stdin.write(b"\n")
        child.stdin.close()
        assert child.wait() == 75


@pytest.mark.parametrize("module", ["finetune", "finetune.train"])
def test_the_command_ends_so(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, "--no-such"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "finetune.cli.leaving" in done.stderr
