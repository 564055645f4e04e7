"""What an exception means for the run as a whole."""

import pytest
from torch.distributed import DistBackendError

from finetune.attempt.outcome import lost_peer, outcome
from finetune.errors import DataError, Stopped


def test_an_error_of_ours_has_its_own_exit_code_and_words() -> None:
    assert outcome(DataError("rows.jsonl:3: no answer")) == (3, "rows.jsonl:3: no answer")
    assert outcome(Stopped("stopped by SIGTERM", 75)) == (75, "stopped by SIGTERM")


def test_other_exceptions_are_interrupts_or_faults_and_a_chosen_exit_is_neither() -> None:
    assert outcome(KeyboardInterrupt()) == (130, "interrupted")
    assert outcome(ZeroDivisionError("division by zero")) == (1, "ZeroDivisionError: division by zero")
    assert outcome(SystemExit(2)) is None


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242"),
        DistBackendError("NCCL error in: ProcessGroupNCCL.cpp: remote process exited or there was a network error"),
    ],
    ids=["gloo", "nccl"],
)
def test_a_collective_without_its_partner_is_put_in_words(error: RuntimeError) -> None:
    lost = lost_peer(error)

    assert lost is not None
    assert lost.exit_code == 8
    assert str(lost).startswith("another process of this run ended, and this one cannot go on without it.")


def test_another_failure_stays_what_it_is() -> None:
    assert lost_peer(RuntimeError("shapes do not match")) is None
    assert lost_peer(RuntimeError("broken pipe")) is None
