"""Handing a run to a launcher: start it, pass signals on to it, and end as its processes ended."""

import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import click

from finetune.attempt.signals import ECHO_S, SignalWatch, unsaved_code
from finetune.cli.failure import FAILURE_FILE, read_failure
from finetune.cli.orphans import end_with_parent
from finetune.errors import FinetuneError, LaunchError

LOG = "debug-launcher.log"
"""File of ``output_dir`` with what the launcher itself says, mostly a traceback through its own code."""

STOPS = (75, 130, 143)
"""Exit codes of processes that a signal ended, perhaps one of the launcher's own."""

LEFT = "The last checkpoint, if there is one, is whole: go on with the same command and --resume"


def hand_over(
    command: Sequence[str], environment: Mapping[str, str], *, log_dir: Path | None = None, meeting: str | None = None
) -> int:
    """Run a launcher to its end and return the exit code of the first of its processes that failed, or 0.

    What that process had to say is printed last.  The launcher's own words go to a file in ``log_dir``, if there is
    such a folder by then; None lets them through to the terminal.  ``meeting`` is where several machines meet.

    Raises:
        LaunchError: it failed, and none of its processes here said why, or only that another one was lost.
    """
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        failure, words = Path(folder, "failure"), Path(folder, LOG)
        with words.open("wb") as file:
            exit_code, passed_on = _run(
                command, {**environment, FAILURE_FILE: str(failure)}, None if log_dir is None else file
            )
        report = words.read_text(encoding="utf-8", errors="replace")
        said = read_failure(failure)
    kept = _keep(report, log_dir)
    if exit_code == 0:
        return 0
    ended = ended_by_signal(report)
    if passed_on and (said is None or said[0] == LaunchError.exit_code):
        click.echo(f"finetune: stopped by {passed_on[0].name} before anything new was saved. {LEFT}", err=True)
        return unsaved_code(passed_on[0])
    if said and said[0] != LaunchError.exit_code and not (said[0] in STOPS and ended and not passed_on):
        exit_code, text = said
        click.echo(text, err=True)
        if kept and exit_code == FinetuneError.exit_code:
            click.echo(f"What libraries said is in {kept.parent}: debug*.log", err=True)
        return exit_code
    if exit_code == 2 and not said:  # the launcher refused its options, and has said which
        click.echo(report, err=True, nl=False)
        return 2
    if said and not ended:
        raise LaunchError(said[1].removeprefix("finetune: "))
    raise LaunchError(_unexplained(report, kept, meeting))


def ended_by_signal(report: str) -> str | None:
    """Return which process a signal ended, from the summary at the end of a launcher's report; None for none.

    The summary is that of ``torch.distributed.elastic``'s ``ChildFailedError``.  Its "root cause" is whichever process
    it saw first, and one that lost its partner can be seen before the one that was killed.
    """
    listed = re.findall(r"rank\s*: (\d+)[^\n]*\n\s*exitcode\s*: -(\d+)", report)
    by_itself = [(rank, number) for rank, number in listed if int(number) != signal.SIGTERM]
    if not by_itself:
        return None
    rank, number = by_itself[0]
    with suppress(ValueError):
        return f"process {rank} was ended by {signal.Signals(int(number)).name}"
    return f"process {rank} was ended by signal {number}"


def _keep(report: str, log_dir: Path | None) -> Path | None:
    """Add the launcher's report to the log in ``log_dir`` and return the file, if there is such a folder."""
    if log_dir is None or not report or not log_dir.is_dir():
        return None
    with suppress(OSError), (log_dir / LOG).open("a", encoding="utf-8") as file:
        file.write(report)
        return log_dir / LOG
    return None


def _unexplained(report: str, kept: Path | None, meeting: str | None) -> str:
    """Say what a launcher's report lets one know of a failure that no process spoke of."""
    last = next((line.strip() for line in reversed(report.splitlines()) if line.strip()), "")
    if meeting and ("DistNetworkError" in report or "DistStoreError" in report):
        return (
            f"the machines did not meet at {meeting} ({last}). Check that --main-process-ip is the address of machine "
            "0 as the others reach it, that its port is open, and that the command runs on every machine, each with a "
            "--machine-rank of its own"
        )
    if report and not kept:
        click.echo(report, err=True, nl=False)
    where = kept or "the launcher's report above"
    ended = ended_by_signal(report) or "a process of this run ended"
    return (
        f"{ended} without a word of its own; see {where}. SIGKILL (exitcode -9) is mostly the machine running out of "
        f"memory; on several machines, see what the others say. {LEFT}"
    )


def _run(
    command: Sequence[str], environment: Mapping[str, str], stderr: IO[bytes] | None
) -> tuple[int, list[signal.Signals]]:
    """Run a command to its end; return its exit code, and the signals that reached this process and so reached it."""
    passed_on: list[signal.Signals] = []
    process: subprocess.Popen[bytes] | None = None
    last = 0.0
    starting = threading.Lock()

    def forward(number: signal.Signals) -> None:
        nonlocal last
        now = time.monotonic()
        with starting:
            if passed_on and now - last < ECHO_S:
                return
            last = now
            passed_on.append(number)
            if process is not None:
                process.send_signal(number)

    with SignalWatch(forward):
        # a session of its own: Ctrl-C goes to every process of the terminal, and twice means "at once"
        started = subprocess.Popen(
            command,
            env=dict(environment),
            stderr=stderr,
            start_new_session=True,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - it calls the kernel alone
        )
        with starting:
            process = started
            for number in passed_on:
                process.send_signal(number)
        exit_code = process.wait()
    return exit_code if exit_code >= 0 else 128 - exit_code, passed_on
