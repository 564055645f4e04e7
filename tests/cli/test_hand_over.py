"""A launcher is run to its end, gets each signal once, and its processes' exit code is passed on."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune.cli.hand_over import ended_by_signal, hand_over
from finetune.errors import LaunchError


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [
        ("exit 0", 0),
        ("exit 2", 2),
        ('printf 75 > "$FINETUNE_FAILURE_FILE"; exit 1', 75),
        ('printf 3 > "$FINETUNE_FAILURE_FILE"; kill -KILL $$', 3),
        ('printf 3 > "$FINETUNE_FAILURE_FILE"; exit 0', 0),
    ],
    ids=["done", "refused options", "a process said 75", "killed after a process said 3", "a restart that went well"],
)
def test_the_exit_code_is_that_of_the_first_failure(script: str, exit_code: int) -> None:
    assert hand_over(shell(script), os.environ) == exit_code


@pytest.mark.parametrize(
    "script", ["exit 1", "kill -KILL $$", ': > "$FINETUNE_FAILURE_FILE"; exit 1'], ids=["1", "killed", "cut short"]
)
def test_a_failure_that_nobody_explained_is_a_launch_error(script: str) -> None:
    with pytest.raises(LaunchError, match="a process of this run ended without a word of its own; see the ") as caught:
        hand_over(shell(script), os.environ)
    assert caught.value.exit_code == 8


FAILED = 'echo "a long traceback" >&2; printf "4\\nfinetune: no model" > "$FINETUNE_FAILURE_FILE"; exit 1'
KILLED = """echo 'Root Cause (first observed failure):
[0]:
  rank      : 3 (local_rank: 3)
  exitcode  : -9 (pid: 42)' >&2; exit 1"""


def test_the_process_speaks_and_the_launcher_is_in_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert hand_over(shell(FAILED), os.environ, log_dir=tmp_path) == 4
    assert capfd.readouterr().err == "finetune: no model\n"
    assert (tmp_path / "debug-launcher.log").read_text() == "a long traceback\n"


def test_without_a_folder_for_the_log_the_launcher_is_not_heard_either(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert hand_over(shell(FAILED), os.environ, log_dir=tmp_path / "none") == 4
    assert capfd.readouterr().err == "finetune: no model\n"
    assert list(tmp_path.iterdir()) == []


def test_with_debug_the_launcher_speaks_too(capfd: pytest.CaptureFixture[str]) -> None:
    assert hand_over(shell(FAILED), os.environ, log_dir=None) == 4
    assert capfd.readouterr().err == "a long traceback\nfinetune: no model\n"


@pytest.mark.parametrize("code", [8, 143], ids=["who lost its partner", "who the launcher ended then"])
def test_who_was_killed_is_said_in_place_of_the_words_of_others(tmp_path: Path, code: int) -> None:
    said = f'printf "{code}\\nfinetune: another process ended" > "$FINETUNE_FAILURE_FILE"; '
    with pytest.raises(LaunchError, match="process 3 was ended by SIGKILL without a word of its own"):
        hand_over(shell(said + KILLED), os.environ, log_dir=tmp_path)


def test_where_the_launcher_saw_no_signal_the_process_that_lost_its_partner_speaks(tmp_path: Path) -> None:
    said = 'printf "8\\nfinetune: another process ended" > "$FINETUNE_FAILURE_FILE"; exit 1'
    with pytest.raises(LaunchError, match=r"^another process ended$"):
        hand_over(shell(said), os.environ, log_dir=tmp_path)


def test_the_killed_process_is_found_behind_one_that_the_launcher_saw_first() -> None:
    report = "Failures:\n rank : 1\n exitcode : -9\nRoot Cause\n rank : 0\n exitcode : 1"
    assert ended_by_signal(report) == "process 1 was ended by SIGKILL"
    assert ended_by_signal("Root Cause\n rank : 0\n exitcode : -15") is None, "the launcher's own"


def test_who_was_killed_is_said_where_nobody_else_speaks(tmp_path: Path) -> None:
    log = re.escape(str(tmp_path / "debug-launcher.log"))
    with pytest.raises(LaunchError, match=f"process 3 was ended by SIGKILL without a word of its own; see {log}"):
        hand_over(shell(KILLED), os.environ, log_dir=tmp_path)


def test_a_launcher_that_refuses_its_options_is_heard(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert hand_over(shell("echo no such option >&2; exit 2"), os.environ, log_dir=tmp_path / "none") == 2
    assert capfd.readouterr().err == "no such option\n"


def test_machines_that_do_not_meet_are_told_where(tmp_path: Path) -> None:
    script = "echo 'torch.distributed.DistNetworkError: The client socket has timed out' >&2; exit 1"
    with pytest.raises(LaunchError, match=r"the machines did not meet at 10\.0\.0\.1:29500 \(.*timed out\)\. Check"):
        hand_over(shell(script), os.environ, log_dir=tmp_path / "none", meeting="10.0.0.1:29500")


def test_a_signal_without_a_name_has_its_number() -> None:
    assert ended_by_signal("Root Cause\n rank : 0\n exitcode : -99") == "process 0 was ended by signal 99"
    assert ended_by_signal("Root Cause\n rank : 0\n exitcode : 1") is None


PARENT = """
import os, sys
from finetune.cli.hand_over import hand_over
sys.exit(hand_over(["sh", "-c", sys.argv[1]], os.environ))
"""

COUNT = """
trap 'echo got >> "{log}"; [ $(wc -l < "{log}") -ge 2 ] && printf 130 > "$FINETUNE_FAILURE_FILE" && exit 1' {name}
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
    time.sleep(0.5)
    assert log.read_text() == "got\n"
    os.killpg(process.pid, signal.Signals[f"SIG{name}"])
    assert process.wait(timeout=20) == 130


@pytest.mark.parametrize(("name", "exit_code"), [("TERM", 143), ("INT", 130), ("USR1", 143)])
def test_a_signal_before_any_process_could_save_is_a_stop_and_no_failure(
    name: str, exit_code: int, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    script = f'trap - TERM INT USR1; echo > "{ready}"; exec sleep 20'
    process = subprocess.Popen([sys.executable, "-c", PARENT, script], stderr=subprocess.PIPE, text=True)
    wait_for(ready)
    process.send_signal(signal.Signals[f"SIG{name}"])
    _, error = process.communicate(timeout=20)
    assert process.returncode == exit_code
    assert error.startswith(f"finetune: stopped by SIG{name} before anything new was saved.")


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
