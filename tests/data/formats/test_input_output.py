"""Segments with labels."""

from typing import Any

import pytest

from finetune.data.segments import RowError

from .conftest import BuildFormat, Encode, ShowRuns


def segments(*pairs: tuple[str, Any]) -> dict[str, Any]:
    return {"segments": [{"text": text, "label": label} for text, label in pairs]}


def test_labels_decide_and_nothing_is_added(runs: ShowRuns) -> None:
    row = segments(("<s>ask:", False), ("\nreply</s>", True), (" rest", False))
    assert runs(row, type="input_output") == [("<s>ask:", False), ("\nreply</s>", True), (" rest", False)]


def test_segments_are_tokenized_apart(encode: Encode) -> None:
    apart = encode(segments(("t", False), ("h", True)), type="input_output")
    together = encode(segments(("th", True)), type="input_output")
    assert (len(apart.input_ids), len(together.input_ids)) == (2, 1)


def test_train_on_inputs_trains_every_segment(runs: ShowRuns) -> None:
    row = segments(("a", False), ("b", True))
    assert runs(row, type="input_output", data={"train_on_inputs": True}) == [("ab", True)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, "no column 'segments'; the row has: text."),
        ({"segments": "x"}, "segments is text that is not valid JSON (Expecting value at character 1)"),
        ({"segments": []}, "segments is an empty list"),
        ({"segments": [{"text": "x"}]}, "segments[0] has no 'label'; it has: text"),
        ({"segments": [{"label": True}]}, "segments[0] has no 'text'; it has: label"),
        (segments(("a", True), (None, True)), "segments[1].text must be text, but is null"),
        (segments(("a", "yes")), "segments[0].label must be true or false, but is text ('yes')"),
        ({"segments": ["a"]}, "segments[0] must be an object, but is text ('a')"),
    ],
    ids=["column", "json", "empty", "label", "text", "null text", "odd label", "not an object"],
)
def test_a_row_in_the_wrong_shape_is_refused(row: dict[str, Any], message: str, build_format: BuildFormat) -> None:
    with pytest.raises(RowError) as error:
        build_format(type="input_output")(row)
    assert str(error.value) == message
