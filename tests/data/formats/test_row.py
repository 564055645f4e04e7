"""Checks that formats share."""

import pytest

from finetune.data.formats.row import as_flag, as_objects, describe
from finetune.data.segments import RowError


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"),
        (1.5, "a number (1.5)"),
        (True, "a boolean (True)"),
        ({}, "an empty object"),
        ({"a": 1, "b": 2}, "an object with a, b"),
        ("x" * 50, "text ('" + "x" * 36 + "...)"),
        (b"x", "bytes (b'x')"),
    ],
    ids=["null", "number", "boolean", "empty", "object", "long", "other"],
)
def test_a_value_is_described_in_the_words_of_json(value: object, words: str) -> None:
    assert describe(value) == words


@pytest.mark.parametrize(("value", "flag"), [(True, True), (False, False), (1, True), (0, False), (0.0, False)])
def test_zero_and_one_count_as_flags(value: object, flag: bool) -> None:
    assert as_flag(value, "x") is flag


@pytest.mark.parametrize("value", [2, "true", None, []], ids=["two", "text", "null", "list"])
def test_other_values_are_not_flags(value: object) -> None:
    with pytest.raises(RowError, match="x must be true or false, but is "):
        as_flag(value, "x")


def test_objects_may_come_as_json_text() -> None:
    assert as_objects('[{"a": 1}]', "x") == [{"a": 1}]


def test_broken_json_text_is_named_with_its_place() -> None:
    with pytest.raises(RowError) as error:
        as_objects('[{"a": }]', "turns")
    assert str(error.value) == "turns is text that is not valid JSON (Expecting value at character 8)"


def test_a_credential_is_not_repeated() -> None:
    assert describe(["hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"]) == "a list (a credential)"
