"""Handing a run to a launcher: start it, pass signals on to it, and end as its processes ended."""

import ctypes
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from finetune.cli.exit_code import EXIT_CODE_FILE
from finetune.errors import LaunchError

PR_SET_PDEATHSIG = 1
"""``prctl``'s name for it, in linux/prctl.h."""

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def hand_over(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a launcher to its end and return the exit code of the first of its processes that failed, or 0.

    Raises:
        LaunchError: it failed, and none of its processes here said why.
    """
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        file = Path(folder) / "exit_code"
        exit_code = _run(command, {**environment, EXIT_CODE_FILE: str(file)})
        said = file.read_text(encoding="utf-8") if file.is_file() else ""
        if exit_code and said:
            return int(said)
    if exit_code in (0, 2):  # 2: the launcher refused its options, and has said which
        return exit_code
    raise LaunchError(
        "a process of this run ended without a word of its own; the launcher's report above names it. SIGKILL "
        "(exitcode -9) is mostly the machine running out of memory; on several machines, see what the others say"
    )


def _end_with_parent() -> None:
    """In the new process: ask the kernel for a SIGTERM when the one that started it dies, by SIGKILL for instance."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end; signals that reach this process reach it, each once."""
    early: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def forward(number: int, _: FrameType | None) -> None:
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    ignored = [number for number in FORWARDED if signal.getsignal(number) is signal.SIG_IGN]  # nohup
    previous = {number: signal.signal(number, forward) for number in FORWARDED if number not in ignored}
    try:
        # a session of its own: Ctrl-C goes to every process of the terminal, and twice means "at once"
        process = subprocess.Popen(
            command,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads here yet
        )
        for number in early:
            process.send_signal(number)
        exit_code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return exit_code if exit_code >= 0 else 128 - exit_code
