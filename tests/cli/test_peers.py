"""Which of several failing processes speaks."""

from pathlib import Path

import pytest

from finetune.cli.peers import speaks_for_all


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
