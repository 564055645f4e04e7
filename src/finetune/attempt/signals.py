"""Signals that ask for an end, taken note of at once, whatever the process is busy with.

Python runs a signal's handler between two of its own instructions, so a step in native code, or a collective that
waits two hours for another process, would keep it waiting.  The interpreter also writes each signal's number to a file
descriptor, from where a thread reads it.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from types import FrameType
from typing import Any

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Ctrl-C; what schedulers and ``kill`` send; a terminal that closes; what SLURM can be told to send (``--signal``)."""

ECHO_S = 0.3
"""A second signal within this time is the first one again: ``timeout`` sends it to a process and to its group."""
LAUNCHED_ECHO_S = 1.0
"""The same under a launcher, which passes on what SLURM has sent to all processes already."""

_STOP = 0
"""Not a signal: the thread ends."""


class SignalWatch:
    """While entered, hands each watched signal to ``receive`` on a thread of its own.

    A signal that was ignored at the start (``nohup``, a shell's ``&``) stays ignored.  Outside of the main thread,
    where Python takes no signals, it watches nothing.
    """

    def __init__(self, receive: Callable[[signal.Signals], None]) -> None:
        self.receive = receive
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "SignalWatch":
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._pid = os.getpid()
        os.register_at_fork(after_in_child=self._leave_to_parent)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        self._earlier = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        ignored = [number for number in WATCHED if signal.getsignal(number) is signal.SIG_IGN]
        for number in WATCHED:
            if number not in ignored:
                self._previous[number] = signal.signal(number, _go_on)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._previous:
            return
        self._give_back()
        os.write(self._pipe[1], bytes([_STOP]))
        self._thread.join()
        for end in self._pipe:
            os.close(end)

    def _give_back(self) -> None:
        signal.set_wakeup_fd(self._earlier, warn_on_full_buffer=False)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _leave_to_parent(self) -> None:
        """In a forked child: its signals are not the run's, and it may be ended by one."""
        if self._previous and os.getpid() != self._pid:
            self._give_back()
            for number in WATCHED:
                if signal.getsignal(number) is _go_on:
                    signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)

    def _listen(self) -> None:
        while True:
            for number in os.read(self._pipe[0], 64):
                if number == _STOP:
                    return
                if number in WATCHED:  # others that have a handler come along
                    self.receive(signal.Signals(number))


def _go_on(number: int, frame: FrameType | None) -> None:
    """Let the main thread do what it was doing: the other thread has heard the signal."""


class Stage(Enum):
    """What a signal finds."""

    BEGINNING = auto()
    """No step was taken: nothing can be lost."""
    STEPS = auto()
    """Steps were taken, and can be saved after the present one."""
    RESULT = auto()
    """The last step was taken, and its result is being written."""


class StopRequest:
    """What a signal asks of a run, and whether it has been asked twice."""

    def __init__(self, leave: Callable[[str, int], None], echo_s: float) -> None:
        """Take what ends this process at once with a text and an exit code, from whichever thread."""
        self.leave = leave
        self.echo_s = echo_s
        self.stage = Stage.BEGINNING
        self.received: signal.Signals | None = None
        self.say: Callable[[str], None] = lambda text: None
        self.describe_kept: Callable[[], str] = lambda: "nothing was saved yet"
        """Says what is safe, and how to go on from it."""
        self._received_at = 0.0

    def receive(self, number: signal.Signals) -> None:
        """Take a signal: end now where nothing can be lost, or where it is the second one; else make a note of it."""
        now = time.monotonic()
        if self.received is not None:
            if now - self._received_at >= self.echo_s:
                text = f"stopped by {self.received.name} at once, as asked twice; {self.describe_kept()}"
                self.leave(text, unsaved_code(self.received))  # a launcher's second is SIGTERM, whatever it got
            return
        self._received_at = now
        self.received = number
        if self.stage is Stage.BEGINNING:
            self.leave(f"stopped by {number.name} before the first step; {self.describe_kept()}", unsaved_code(number))
            return
        saving = "saving a checkpoint after this step or batch of an evaluation, then stopping"
        plan = saving if self.stage is Stage.STEPS else "training is done; the run ends once its result is written"
        with suppress(OSError, ValueError):  # the terminal may be closed, which SIGHUP says
            self.say(f"{number.name}: {plan}. Once more ends at once")

    def take_over(self, number: int) -> None:
        """Take a signal that another process of the run got as this one's own."""
        if self.received is None:
            self._received_at = time.monotonic()
            self.received = signal.Signals(number)


def saved_code(number: signal.Signals) -> int:
    """Return the exit code of a run that saved a checkpoint on a signal."""
    return 130 if number == signal.SIGINT else 75


def unsaved_code(number: signal.Signals) -> int:
    """Return the exit code of a run that a signal ended without a new checkpoint; as shells count, for SIGTERM."""
    return 130 if number == signal.SIGINT else 143
