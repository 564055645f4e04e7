"""What a process reads of its place in the group."""

import pytest

from finetune.errors import LaunchError
from finetune.processes import ProcessPlace, this_process

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher_a_process_is_alone_and_the_main_one() -> None:
    assert this_process() == ProcessPlace(0, 1, 0, launched=False)
    assert this_process().is_main


def test_the_launchers_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(NAMES, ("5", "8", "1"), strict=True):
        monkeypatch.setenv(name, value)

    assert this_process() == ProcessPlace(5, 8, 1, launched=True)
    assert not this_process().is_main


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, "RANK, WORLD_SIZE set in the environment and LOCAL_RANK not; .* unset them"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK=2, WORLD_SIZE=2.* below WORLD_SIZE"),
        ({"RANK": "a", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK=a.*not all of these are numbers"),
    ],
    ids=["a part", "beyond", "words"],
)
def test_half_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], message: str) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(LaunchError, match=message):
        this_process()
