"""The exception tree: which outcome each class stands for, and the hint for a mistyped name."""

import re
from pathlib import Path

import pytest

from finetune import errors
from finetune.errors import EXIT_CODES as EXPLAINED
from finetune.errors import FinetuneError, Stopped, nearest

EXIT_CODES = {
    "FinetuneError": 1,
    "ConfigError": 2,
    "DataError": 3,
    "ModelError": 4,
    "HardwareError": 5,
    "HealthError": 6,
    "CheckpointError": 7,
    "LaunchError": 8,
    "EvaluationError": 1,
}


def own_classes() -> dict[str, type[Exception]]:
    found = vars(errors).items()
    return {name: value for name, value in found if isinstance(value, type) and issubclass(value, Exception)}


def test_every_error_is_of_the_one_tree() -> None:
    assert own_classes().keys() == EXIT_CODES.keys() | {"Stopped"}
    assert all(issubclass(error, FinetuneError) for error in own_classes().values())


@pytest.mark.parametrize(("name", "exit_code"), EXIT_CODES.items(), ids=EXIT_CODES.keys())
def test_an_outcome_has_its_exit_code(name: str, exit_code: int) -> None:
    error = vars(errors)[name]("what, where, what to do")
    assert error.exit_code == exit_code
    assert str(error) == "what, where, what to do"


def test_every_error_of_the_tree_has_a_code_that_is_explained() -> None:
    codes = {error.exit_code for error in own_classes().values() if issubclass(error, FinetuneError)}
    assert codes | {0, 75, 130, 143} == EXPLAINED.keys()
    assert {code for code, known in EXPLAINED.items() if known.retryable} == {7, 8, 75, 130, 143}
    assert all(known.meaning and (known.hint or not code) for code, known in EXPLAINED.items())


def test_the_readme_has_the_same_codes() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    rows = {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| ([^|]+) \|", text, re.MULTILINE)}
    if not rows:
        pytest.skip("README.md has no table of exit codes")
    assert rows == {code: known.meaning for code, known in EXPLAINED.items()}


@pytest.mark.parametrize("exit_code", [75, 130], ids=["SIGTERM", "Ctrl-C"])
def test_a_stop_on_request_carries_the_code_of_its_signal(exit_code: int) -> None:
    assert Stopped("stopped after step 3", exit_code).exit_code == exit_code


def test_the_tree_in_the_docstring_names_every_class_with_its_code() -> None:
    drawn = errors.__doc__ or ""
    for name, exit_code in EXIT_CODES.items():
        line = next(line for line in drawn.splitlines() if f"{name} " in line)
        assert f" {exit_code}" in line.split(name)[1]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("learning_rte", " Did you mean 'learning_rate'?"),
        ("lora", " Did you mean 'lora_r'?"),
        ("Learning_rate", " Did you mean 'learning_rate'?"),
        ("xyzzy", ""),
        ("", ""),
    ],
    ids=["typo", "beginning of a longer name", "upper case", "far from all", "empty"],
)
def test_nearest_names_the_closest_known_name(name: str, hint: str) -> None:
    assert nearest(name, ["base_model", "lora_r", "lora_alpha", "learning_rate"]) == hint


def test_nearest_knows_nothing_without_names() -> None:
    assert nearest("learning_rate", []) == ""
