"""One prompt, one answer."""

from typing import Any

import pytest

from finetune.data.segments import RowError
from finetune.errors import ConfigError

from .conftest import BuildFormat, Encode, ShowRuns

MAPPING = {"field_instruction": "q", "field_output": "a", "format": "Q: {instruction} ({input})\nA:"}
BARE = {**MAPPING, "no_input_format": "Q: {instruction}\nA:"}


def test_only_the_answer_and_eos_are_trained(runs: ShowRuns) -> None:
    assert runs({"q": "one", "a": "two"}, type=BARE) == [("<s>Q: one\nA:", False), ("two</s>", True)]


def test_the_format_with_input_is_used_only_where_there_is_one(runs: ShowRuns) -> None:
    assert runs({"q": "x", "input": "y", "a": "z"}, type=BARE)[0] == ("<s>Q: x (y)\nA:", False)
    assert runs({"q": "x", "input": "", "a": "z"}, type=BARE)[0] == ("<s>Q: x\nA:", False)
    assert runs({"q": "x", "input": None, "a": "z"}, type=BARE)[0] == ("<s>Q: x\nA:", False)


def test_the_system_column_replaces_the_system_prompt_even_with_nothing(runs: ShowRuns) -> None:
    mapping = {**BARE, "system_prompt": "S", "system_format": "[{system}] "}
    assert runs({"q": "x", "a": "z"}, type=mapping)[0] == ("<s>[S] Q: x\nA:", False)
    assert runs({"q": "x", "a": "z", "system": "T"}, type=mapping)[0] == ("<s>[T] Q: x\nA:", False)
    assert runs({"q": "x", "a": "z", "system": None}, type=mapping)[0] == ("<s>Q: x\nA:", False)


def test_braces_in_the_data_are_plain_text(runs: ShowRuns) -> None:
    assert runs({"q": "{q} {{}}", "a": "{0}"}, type=BARE) == [("<s>Q: {q} {{}}\nA:", False), ("{0}</s>", True)]


def test_prompt_and_answer_never_share_a_token(encode: Encode) -> None:
    apart = encode({"q": "x", "a": "he"}, type={**BARE, "no_input_format": "{instruction} t"})
    together = encode({"text": "x the"}, type="completion")
    assert (len(apart.input_ids), len(together.input_ids)) == (7, 4)


@pytest.mark.parametrize("answer", ["", None], ids=["empty", "null"])
def test_an_answer_of_nothing_leaves_no_trained_token(answer: str | None, runs: ShowRuns) -> None:
    assert runs({"q": "x", "a": answer}, type=BARE) == [("<s>Q: x\nA:", False)]


def test_train_on_inputs_trains_the_prompt_and_bos(runs: ShowRuns) -> None:
    row = {"q": "x", "a": "z"}
    assert runs(row, type=BARE, data={"train_on_inputs": True}) == [("<s>Q: x\nA:z</s>", True)]


def test_prompt_and_answer_are_each_cut_to_sequence_len(runs: ShowRuns) -> None:
    row = {"q": "x" * 20, "a": "z" * 20}
    assert runs(row, type=BARE, data={"sequence_len": 6}) == [("<s>Q: xx", False), ("zzzzz", True)]


@pytest.mark.parametrize(
    ("row", "message", "field"),
    [
        ({"q": "x", "answer": "y"}, "no column 'a'; the row has: q, answer.", "a"),
        ({"question": "x", "a": "y"}, "no column 'q'; the row has: question, a.", "q"),
        ({"q": None, "a": "y"}, "q must be text, but is null", "q"),
        ({"q": "x", "a": 42}, "a must be text, but is a number (42)", "a"),
        ({"q": ["x"], "a": "y"}, "q must be text, but is a list (['x'])", "q"),
        ({"q": "x", "a": "y", "input": True}, "input must be text, but is a boolean (True)", "input"),
        ({"q": "x", "a": {"b": 1}}, "a must be text, but is an object with b", "a"),
    ],
    ids=["no output", "no instruction", "null", "number", "list", "boolean", "object"],
)
def test_a_row_in_the_wrong_shape_is_refused(
    row: dict[str, Any], message: str, field: str, build_format: BuildFormat
) -> None:
    with pytest.raises(RowError) as error:
        build_format(type=BARE)(row)
    assert str(error.value) == message
    assert error.value.field == field


def test_the_nearest_column_is_named(build_format: BuildFormat) -> None:
    with pytest.raises(
        RowError, match=r"no column 'output'; the row has: instruction, outputs\. Did you mean 'outputs'"
    ):
        build_format(type="alpaca")({"instruction": "x", "outputs": "y"})


def test_a_mapping_with_field_is_refused_with_the_way_to_train_on_text(build_format: BuildFormat) -> None:
    with pytest.raises(ConfigError) as error:
        build_format(type={"field": "body"})
    assert str(error.value) == (
        "type.field is not used by a mapping of prompt and answer; for plain text write "
        "type: completion and field: body in the data set's entry"
    )
