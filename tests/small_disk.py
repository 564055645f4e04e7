"""A disk of a few megabytes: a tmpfs in a mount namespace, which ends with the command that runs on it."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def on_small_disk(folder: Path, megabytes: float, command: Sequence[str], *, filled: int = 0) -> str:
    """Run ``command`` where ``folder/disk`` is a disk of that size, ``filled`` bytes of it taken; return what it said.

    Standard output and error are returned together.  Files on the disk are gone when it returns, so the command has to
    say what is to be known of them.  Skips the test where no such disk can be made.
    """
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o size={int(megabytes * 1024)}k tmpfs {shlex.quote(str(disk))}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here: it needs user namespaces")
    fill = f"head -c {filled} /dev/zero > {shlex.quote(str(disk / 'taken'))}; " if filled else ""
    script = f"{mount} && {{ {fill}{shlex.join(map(str, command))}; }}"
    finished = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return finished.stdout
