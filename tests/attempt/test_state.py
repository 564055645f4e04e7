"""``run.json``: whole at every moment, and the same after it was read back."""

import fcntl
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.attempt.state import LOCK, RUN_STATE, RunState, fault, is_in_use, read_state, write_state

STATE = RunState(
    run_id="a" * 32,
    attempt="b" * 32,
    step=8,
    total_steps=20,
    last_checkpoint="checkpoint-8",
    started=1.0,
    pid=42,
    host="here",
    world_size=2,
)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    for state in (STATE, STATE.ended_with(3, 2.0, fault("DataError", "rows.jsonl:3: no answer", 3))):
        write_state(state, tmp_path)
        assert read_state(tmp_path) == state
    assert [path.name for path in tmp_path.iterdir()] == [RUN_STATE]


@pytest.mark.parametrize(
    ("exit_code", "status", "retryable"),
    [
        (0, "finished", False),
        (1, "failed", False),
        (2, "failed", False),
        (3, "failed", False),
        (4, "failed", False),
        (5, "failed", False),
        (6, "failed", False),
        (7, "failed", True),
        (8, "failed", True),
        (75, "stopped", True),
        (130, "stopped", True),
        (143, "stopped", True),
    ],
)
def test_an_exit_code_says_whether_it_is_worth_trying_again(exit_code: int, status: str, retryable: bool) -> None:
    ended = STATE.ended_with(exit_code, 2.0, fault("X", "y", exit_code))
    assert (ended.status, ended.exit_code, ended.retryable, ended.ended) == (status, exit_code, retryable, 2.0)
    assert (ended.error is not None) == (status == "failed")
    assert ended.step == (20 if exit_code == 0 else 8)


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ("data/rows.jsonl:3: the row has no answer", "data/rows.jsonl:3"),
        ("config.yml:7:1: unknown key", "config.yml:7:1"),
        ("step 12: the loss is nan", "step 12"),
        ("base_model: there is no folder /model", None),
    ],
)
def test_a_place_that_the_message_names_is_a_field_of_its_own(message: str, where: str | None) -> None:
    found = fault("DataError", message, 3)
    assert (found.where, found.hint) == (where, "mend the rows that it names")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"status": "running", "error": null}'])
def test_a_file_that_is_no_state_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / RUN_STATE).write_text(text)
    assert read_state(tmp_path) is None


def test_where_no_new_file_can_be_written_the_old_one_is_written_over(tmp_path: Path) -> None:
    """As on a full disk; here a folder is in the way of the new file."""
    write_state(replace(STATE, last_checkpoint="checkpoint-8" * 20), tmp_path)
    (tmp_path / f".{RUN_STATE}.{os.getpid()}").mkdir()
    write_state(STATE.ended_with(7, 2.0), tmp_path)
    assert json.loads((tmp_path / RUN_STATE).read_text())["exit_code"] == 7


def test_a_folder_is_in_use_while_its_lock_is_held(tmp_path: Path) -> None:
    assert not is_in_use(tmp_path)
    with (tmp_path / LOCK).open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_in_use(tmp_path)
    assert not is_in_use(tmp_path)
