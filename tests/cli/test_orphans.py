"""No process is left behind by a launcher that was killed."""

import fcntl
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from finetune.attempt.state import LOCK
from finetune.cli.orphans import wait_for_orphans

CHILD = """
import time
from finetune.cli.orphans import end_with_parent
end_with_parent()
print(flush=True)
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_process_does_not_outlive_the_launcher_that_started_it() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    assert psutil.wait_procs([child], timeout=10)[1] == []


def test_a_run_without_its_launcher_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    lock = (tmp_path / LOCK).open("a+")
    fcntl.flock(lock, fcntl.LOCK_EX)
    began = time.monotonic()
    wait_for_orphans(tmp_path, 0.3)
    assert 0.3 <= time.monotonic() - began < 5
    threading.Timer(0.3, lock.close).start()
    wait_for_orphans(tmp_path, 30)
    assert time.monotonic() - began < 10
