"""A launcher is run to its end, gets each signal once, and its processes' exit code is passed on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune.cli.hand_over import hand_over
from finetune.errors import LaunchError


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [
        ("exit 0", 0),
        ("exit 2", 2),
        ('printf 75 > "$FINETUNE_EXIT_CODE_FILE"; exit 1', 75),
        ('printf 3 > "$FINETUNE_EXIT_CODE_FILE"; kill -KILL $$', 3),
        ('printf 3 > "$FINETUNE_EXIT_CODE_FILE"; exit 0', 0),
    ],
    ids=["done", "refused options", "a process said 75", "killed after a process said 3", "a restart that went well"],
)
def test_the_exit_code_is_that_of_the_first_failure(script: str, exit_code: int) -> None:
    assert hand_over(shell(script), os.environ) == exit_code


@pytest.mark.parametrize(
    "script", ["exit 1", "kill -KILL $$", ': > "$FINETUNE_EXIT_CODE_FILE"; exit 1'], ids=["1", "killed", "cut short"]
)
def test_a_failure_that_nobody_explained_is_a_launch_error(script: str) -> None:
    with pytest.raises(LaunchError, match="a process of this run ended without a word of its own") as caught:
        hand_over(shell(script), os.environ)
    assert caught.value.exit_code == 8


PARENT = """
import os, sys
from finetune.cli.hand_over import hand_over
sys.exit(hand_over(["sh", "-c", sys.argv[1]], os.environ))
"""

COUNT = """
trap 'echo got >> "{log}"; [ $(wc -l < "{log}") -ge 2 ] && printf 130 > "$FINETUNE_EXIT_CODE_FILE" && exit 1' {name}
echo ready > "{ready}"
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_each_signal_reaches_the_launcher_once(name: str, tmp_path: Path) -> None:
    """Sent to the whole group, as a terminal sends Ctrl-C: the launcher must not get it a second time by itself."""
    log, ready = tmp_path / "log", tmp_path / "ready"
    script = COUNT.format(log=log, ready=ready, name=name)
    process = subprocess.Popen([sys.executable, "-c", PARENT, script], start_new_session=True)
    wait_for(ready)
    os.killpg(process.pid, signal.Signals[f"SIG{name}"])
    wait_for(log)
    time.sleep(0.3)
    assert log.read_text() == "got\n"
    os.killpg(process.pid, signal.Signals[f"SIG{name}"])
    assert process.wait(timeout=20) == 130


def test_a_launcher_does_not_outlive_the_command_that_started_it(tmp_path: Path) -> None:
    log, ready = tmp_path / "log", tmp_path / "ready"
    script = f'trap "echo got > {log}; exit 1" TERM; echo > {ready}; while :; do sleep 0.05; done'
    process = subprocess.Popen([sys.executable, "-c", PARENT, script])
    wait_for(ready)
    process.kill()
    process.wait()
    wait_for(log)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not come"
        time.sleep(0.02)
