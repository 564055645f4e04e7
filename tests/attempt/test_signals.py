"""Signals are heard at once, whatever the process is busy with, and mean what the stage of the run says."""

import hashlib
import os
import signal
import threading
import time

import pytest

from finetune.attempt.signals import SignalWatch, Stage, StopRequest, saved_code, unsaved_code


def wait_until(heard: list[signal.Signals], count: int) -> None:
    deadline = time.monotonic() + 10
    while len(heard) < count:
        assert time.monotonic() < deadline, heard
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_is_heard_and_interrupts_nothing_and_handlers_are_put_back(number: signal.Signals) -> None:
    heard: list[signal.Signals] = []
    before = signal.getsignal(number)
    with SignalWatch(heard.append):
        signal.raise_signal(number)
        wait_until(heard, 1)
    assert heard == [number]
    assert signal.getsignal(number) is before


def test_a_signal_is_heard_while_the_main_thread_is_in_native_code() -> None:
    """As in a long step, or in a collective whose partner is gone: no Python runs there, and no handler."""
    at: list[float] = []
    with SignalWatch(lambda number: at.append(time.monotonic())):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        began = time.monotonic()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 3_000_000)
        ended = time.monotonic()
    assert ended - began > 0.5, "the native code was to be long"
    assert at[0] < ended - 0.2


def test_a_signal_that_was_ignored_stays_ignored_as_under_nohup() -> None:
    heard: list[signal.Signals] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with SignalWatch(heard.append):
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGUSR1)
            wait_until(heard, 1)
        assert heard == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_child_is_ended_by_its_signals_and_the_parent_hears_nothing_of_them() -> None:
    heard: list[signal.Signals] = []
    with SignalWatch(heard.append):
        child = os.fork()
        if child == 0:
            time.sleep(20)
            os._exit(0)
        time.sleep(0.2)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        time.sleep(0.1)
    assert heard == []


def test_a_watch_inside_another_takes_its_signals_and_gives_them_back() -> None:
    outer: list[signal.Signals] = []
    inner: list[signal.Signals] = []
    with SignalWatch(outer.append):
        with SignalWatch(inner.append):
            signal.raise_signal(signal.SIGTERM)
            wait_until(inner, 1)
        signal.raise_signal(signal.SIGUSR1)
        wait_until(outer, 1)
    assert (outer, inner) == ([signal.SIGUSR1], [signal.SIGTERM])


def request(stage: Stage, echo_s: float = 0.0) -> tuple[StopRequest, list[tuple[str, int]], list[str]]:
    left: list[tuple[str, int]] = []
    said: list[str] = []
    asked = StopRequest(lambda text, exit_code: left.append((text, exit_code)), echo_s)
    asked.say, asked.stage = said.append, stage
    asked.describe_kept = lambda: "checkpoint-8 is whole"
    return asked, left, said


def test_before_the_first_step_a_signal_ends_the_process() -> None:
    asked, left, said = request(Stage.BEGINNING)
    asked.receive(signal.SIGTERM)
    assert left == [("stopped by SIGTERM before the first step; checkpoint-8 is whole", 143)]
    assert said == []


def test_between_steps_a_signal_waits_for_a_checkpoint_and_the_second_one_does_not() -> None:
    asked, left, said = request(Stage.STEPS)
    asked.receive(signal.SIGINT)
    assert left == []
    plan = "saving a checkpoint after this step or batch of an evaluation, then stopping. Once more ends at once"
    assert said == [f"SIGINT: {plan}"]
    asked.receive(signal.SIGTERM)
    assert left == [("stopped by SIGINT at once, as asked twice; checkpoint-8 is whole", 130)]


def test_after_the_last_step_the_result_is_written() -> None:
    asked, left, said = request(Stage.RESULT)
    asked.receive(signal.SIGTERM)
    assert left == []
    assert said == ["SIGTERM: training is done; the run ends once its result is written. Once more ends at once"]


def test_an_echo_of_the_first_signal_is_no_second_one() -> None:
    asked, left, said = request(Stage.STEPS, echo_s=60)
    asked.receive(signal.SIGTERM)
    asked.receive(signal.SIGTERM)
    assert left == []
    assert len(said) == 1


def test_what_another_process_heard_counts_as_heard() -> None:
    asked, _, _ = request(Stage.STEPS)
    asked.take_over(signal.SIGINT)
    asked.take_over(signal.SIGTERM)
    assert asked.received is signal.SIGINT


def test_a_stop_has_the_exit_codes_that_scripts_know() -> None:
    codes = {number: (saved_code(number), unsaved_code(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    assert codes == {signal.SIGINT: (130, 130), signal.SIGTERM: (75, 143)}
    assert (saved_code(signal.SIGUSR1), unsaved_code(signal.SIGHUP)) == (75, 143)
