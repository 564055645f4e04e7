"""The exit code of the first process that fails gets past a launcher."""

from pathlib import Path

import pytest

from finetune.cli.exit_code import EXIT_CODE_FILE, exit_code_for_launcher


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(EXIT_CODE_FILE, str(tmp_path / "code"))
    return tmp_path / "code"


def fail(error: BaseException) -> None:
    with pytest.raises(type(error)), exit_code_for_launcher():
        raise error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(75), "75"),
        (SystemExit("with a word"), "1"),
        (ZeroDivisionError(), "1"),
        (KeyboardInterrupt(), "1"),
    ],
    ids=repr,
)
def test_a_failure_is_written_down_and_goes_on(file: Path, error: BaseException, text: str) -> None:
    fail(error)
    assert file.read_text() == text


@pytest.mark.parametrize("code", [0, None])
def test_success_is_not_written_down(file: Path, code: int | None) -> None:
    fail(SystemExit(code))
    with exit_code_for_launcher():
        pass
    assert not file.exists()


def test_the_first_failure_counts(file: Path) -> None:
    fail(SystemExit(3))
    fail(SystemExit(75))
    assert file.read_text() == "3"


def test_without_a_launcher_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EXIT_CODE_FILE, raising=False)
    fail(SystemExit(3))
    monkeypatch.setenv(EXIT_CODE_FILE, str(tmp_path / "gone" / "code"))
    fail(SystemExit(3))
    assert list(tmp_path.iterdir()) == []
