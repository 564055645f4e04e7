"""Which of several failing processes speaks."""

from pathlib import Path

import pytest
from torch.distributed import DistBackendError

from finetune.cli.peers import lost_peer, speaks_for_all


def test_the_first_process_to_fail_speaks_and_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "0" / "error.json"))
    assert speaks_for_all()
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "1" / "error.json"))
    assert not speaks_for_all()


def test_without_a_launcher_every_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)

    assert speaks_for_all()
    assert speaks_for_all()


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
