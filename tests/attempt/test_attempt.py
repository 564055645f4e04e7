"""One start of a run: what ``run.json`` says after each way to begin and to end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.training.sections import training_section

from finetune.attempt.attempt import ATTEMPT, Attempt
from finetune.attempt.state import RunState, read_state
from finetune.errors import DataError, Stopped
from finetune.processes import ProcessPlace


@pytest.fixture(autouse=True)
def of_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ATTEMPT, raising=False)


def attempt_in(folder: Path, *, resumes: bool = False, rank: int = 0) -> Attempt:
    attempt = Attempt()
    attempt.take(ProcessPlace(rank, 2, rank, launched=True))
    attempt.belong(training_section(output_dir=str(folder), auto_resume_from_checkpoints=resumes))
    return attempt


def begun(folder: Path) -> Attempt:
    attempt = attempt_in(folder)
    attempt.begin()
    return attempt


def state_of(folder: Path) -> RunState:
    state = read_state(folder)
    assert state is not None
    return state


def test_a_run_is_running_from_its_beginning_and_finished_at_its_end(tmp_path: Path) -> None:
    attempt = begun(tmp_path)
    running = state_of(tmp_path)
    assert (running.status, running.exit_code, running.retryable, running.ended) == ("running", None, None, None)
    assert (running.pid, running.world_size, running.step, running.total_steps) == (os.getpid(), 2, 0, None)

    with attempt.recorded():
        attempt.progress(8, 20, tmp_path / "checkpoint-8")
        saved = state_of(tmp_path)
        assert (saved.step, saved.total_steps, saved.last_checkpoint) == (8, 20, "checkpoint-8")

    ended = state_of(tmp_path)
    assert (ended.status, ended.exit_code, ended.step, ended.error) == ("finished", 0, 20, None)


def test_an_error_is_recorded_without_secrets_and_goes_on(tmp_path: Path) -> None:
    attempt = begun(tmp_path)
    with pytest.raises(DataError), attempt.recorded():
        raise DataError("rows.jsonl:3: no answer at https://me:hunter2hunter2@host/x")
    error = state_of(tmp_path).error
    assert error is not None
    assert (error.id, error.where) == ("DataError", "rows.jsonl:3")
    assert "hunter2" not in error.message


def test_a_stop_is_no_error(tmp_path: Path) -> None:
    attempt = begun(tmp_path)
    with pytest.raises(Stopped), attempt.recorded():
        raise Stopped("stopped by SIGTERM", 75)
    ended = state_of(tmp_path)
    assert (ended.status, ended.exit_code, ended.retryable, ended.error) == ("stopped", 75, True, None)


def test_a_fault_of_our_own_is_recorded_too(tmp_path: Path) -> None:
    attempt = begun(tmp_path)
    with pytest.raises(ZeroDivisionError), attempt.recorded():
        _ = 1 / 0
    ended = state_of(tmp_path)
    assert ended.exit_code == 1
    assert ended.error is not None
    assert ended.error.message == "ZeroDivisionError: division by zero"


def test_who_lost_its_partner_does_not_overrule_who_knows_why(tmp_path: Path) -> None:
    main = begun(tmp_path)
    other = attempt_in(tmp_path, rank=1)
    other.join(state_of(tmp_path))

    main.end(8, "LaunchError", "another process ended")
    other.end(3, "DataError", "rows.jsonl:3")
    main.end(8, "LaunchError", "another process ended")
    assert state_of(tmp_path).exit_code == 3


def test_a_folder_that_belongs_to_another_start_now_is_left_alone(tmp_path: Path) -> None:
    late = begun(tmp_path)
    begun(tmp_path)
    late.end(3, "DataError", "x")
    assert state_of(tmp_path).status == "running"


def test_a_start_that_ended_without_a_word_is_told_of_by_the_next(tmp_path: Path) -> None:
    begun(tmp_path).progress(8, 20, tmp_path / "checkpoint-8")
    again = attempt_in(tmp_path)
    state = again.begin(tmp_path / "checkpoint-8", 8)

    assert again.note is not None
    assert again.note.startswith(f"the last start here (process {os.getpid()} on ")
    assert "ended without a word after step 8 of 20: killed, most often for lack of memory" in again.note
    assert (state.step, state.last_checkpoint) == (8, "checkpoint-8")


def test_a_run_keeps_its_id_when_it_is_gone_on_with_and_a_new_one_has_another(tmp_path: Path) -> None:
    first = begun(tmp_path).state
    resumed = attempt_in(tmp_path).begin(tmp_path / "checkpoint-8", 8)
    new = attempt_in(tmp_path).begin()
    assert first is not None
    assert first.run_id == resumed.run_id != new.run_id
    assert first.attempt != resumed.attempt


def test_a_resume_that_is_refused_is_recorded_and_a_mere_mistake_is_not(tmp_path: Path) -> None:
    """A script that reads of a stop worth resuming would resume for ever; a finished run is not to be spoilt."""
    with pytest.raises(Stopped), begun(tmp_path).recorded():
        raise Stopped("stopped by SIGTERM", 75)
    attempt_in(tmp_path).end(2, "ConfigError", "holds another run")
    assert state_of(tmp_path).exit_code == 75

    attempt_in(tmp_path, resumes=True).end(2, "ConfigError", "other values")
    ended = state_of(tmp_path)
    assert (ended.status, ended.exit_code, ended.retryable) == ("failed", 2, False)


def test_before_there_is_a_folder_nothing_is_written(tmp_path: Path) -> None:
    attempt_in(tmp_path / "out").end(3, "DataError", "x")
    Attempt().end(2, "ConfigError", "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("written", [None, 8], ids=["no process spoke", "one lost its partner"])
def test_who_called_the_launcher_says_what_no_process_could(tmp_path: Path, written: int | None) -> None:
    caller = attempt_in(tmp_path)
    worker = attempt_in(tmp_path)
    worker.id = caller.id
    worker.begin()
    if written:
        worker.end(written, "LaunchError", "another process of this run ended")

    assert caller.settle(8, "process 1 was ended by SIGKILL") == 8
    ended = state_of(tmp_path)
    assert ended.error is not None
    assert (ended.exit_code, ended.error.message) == (8, "process 1 was ended by SIGKILL")


def test_who_called_the_launcher_believes_what_a_process_wrote(tmp_path: Path) -> None:
    caller = attempt_in(tmp_path)
    worker = attempt_in(tmp_path)
    worker.id = caller.id
    worker.begin()
    worker.end(75)
    assert caller.settle(8, "the launcher was killed") == 75
    assert state_of(tmp_path).exit_code == 75


STOPPED = """
import os, signal, sys, time
from pathlib import Path
from types import SimpleNamespace
from finetune.attempt.attempt import Attempt
section = SimpleNamespace(output_dir=sys.argv[1], auto_resume_from_checkpoints=False, resume_from_checkpoint=None)
with Attempt(lambda text, code: print(text, code, file=sys.stderr)) as attempt:
    attempt.belong(section)
    attempt.begin()
    print("said before")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)
"""


def test_a_signal_in_the_beginning_ends_the_process_with_a_word_and_what_was_printed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, str(tmp_path)], capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 143
    assert done.stdout == "said before\n"
    kept = "no checkpoint was saved yet. Start again with the same command"
    assert done.stderr == f"finetune: stopped by SIGTERM before the first step; {kept} 143\n"
    ended = state_of(tmp_path)
    assert (ended.status, ended.exit_code, ended.retryable) == ("stopped", 143, True)


def test_a_signal_before_a_resumed_run_is_taken_up_says_that_nothing_of_it_was_touched(tmp_path: Path) -> None:
    script = STOPPED.replace("checkpoints=False", "checkpoints=True").replace("    attempt.begin()\n", "")
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 143
    kept = "the run that it was to go on with is as it was. Start again with the same command"
    assert done.stderr == f"finetune: stopped by SIGTERM before the first step; {kept} 143\n"
