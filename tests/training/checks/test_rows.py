"""What is said of masks, ends and text, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.story import write_run
from tests.tiny import tiny_tokenizer

from finetune.config import load_config
from finetune.data.prepare import prepare
from finetune.errors import DataError
from finetune.training.checks.rows import Looked, check_rows, look, stretches

TOKENIZER = tiny_tokenizer()
EOS = TOKENIZER.eos_token_id


@pytest.fixture
def data(tmp_path: Path, tiny_llama: Path) -> Any:
    return load_config(write_run(tmp_path, tiny_llama), []).data


def looked(*texts: tuple[str, str], end: int | None = EOS) -> Looked:
    """Samples of a prompt and a trained answer."""
    samples = []
    for prompt, answer in texts:
        first = TOKENIZER.encode(prompt)
        second = TOKENIZER.encode(answer, add_special_tokens=False) + ([] if end is None else [end])
        ids = np.array(first + second, np.int32)
        samples.append((ids, np.where(np.arange(len(ids)) < len(first), -100, ids).astype(np.int32)))
    return Looked(samples, [f"rows.jsonl:{number}" for number in range(1, len(samples) + 1)], 5000)


def test_each_question_has_its_line(data: Any) -> None:
    said: list[str] = []
    answer = "A colour, and so are red and green, as is all that shines."
    check_rows(looked(*[("What is blue? ", answer)] * 9), data, TOKENIZER, said.append)
    assert said == [
        "check masks: 9 of 5,000 rows, 1.0 trained stretches in each; the first: '<s>What is blue? ' "
        "['A colour, and so are red… is all that shines.</s>'] ''",
        "check ends: the last trained token is an end token in 9 of 9 rows ('</s>')",
        "check text: 8 of 8 rows keep their text when it is tokenized again",
    ]


def test_answers_without_a_trained_end_are_refused(data: Any) -> None:
    rows = looked(*[("Capital? ", "Oslo")] * 9, end=None)
    with pytest.raises(DataError) as caught:
        check_rows(rows, data, TOKENIZER, lambda _: None)
    assert str(caught.value) == (
        "self-check: in none of 9 rows the last trained token is an end token, so the model would not learn to stop "
        "(the first, rows.jsonl:1, ends in 'lo'). Name the template's end tokens in eot_tokens, raise sequence_len if "
        "rows are cut, or leave the checks out with --skip-checks"
    )


def test_a_line_break_may_follow_the_end(data: Any) -> None:
    rows, said = looked(*[("Capital? ", f"Oslo{TOKENIZER.eos_token}\n")] * 9, end=None), list[str]()
    check_rows(rows, data, TOKENIZER, said.append)
    assert said[1] == "check ends: the last trained token is an end token in 9 of 9 rows ('</s>')"
    with pytest.raises(DataError, match="in none of 9 rows"):
        check_rows(
            looked(*[("Capital? ", f"Oslo{TOKENIZER.eos_token} or")] * 9, end=None), data, TOKENIZER, said.append
        )


def test_few_rows_and_rows_with_tokens_of_their_own_end_as_they_like(data: Any) -> None:
    said: list[str] = []
    check_rows(looked(*[("Capital? ", "Oslo")] * 7, end=None), data, TOKENIZER, said.append)
    entry = data.datasets[0].model_copy(update={"type": "completion"})
    own = data.model_copy(update={"datasets": [entry]})
    check_rows(looked(*[("Capital? ", "Oslo")] * 9, end=None), own, TOKENIZER, said.append)
    assert [line for line in said if line.startswith("check ends")] == [
        f"check ends: the last trained token is an end token in 0 of {number} rows" for number in (7, 9)
    ]


def test_a_label_that_is_not_its_token_is_refused(data: Any) -> None:
    rows = looked(("Capital? ", "Oslo"), ("Capital? ", "Paris"))
    rows.samples[1][1][-2] = 77
    with pytest.raises(DataError, match=r"self-check: rows\.jsonl:2: token \d+ is \d+ and is trained to be 77; "):
        check_rows(rows, data, TOKENIZER, lambda _: None)


def test_trained_stretches_are_found() -> None:
    labels = np.array([5, -100, -100, 6, 7, -100, 8], np.int32)
    assert stretches(labels) == [(0, 1), (3, 5), (6, 7)]


def test_rows_are_taken_from_all_over_the_data(data: Any, tmp_path: Path) -> None:
    rows = [{"instruction": f"Number {n}?", "output": f"It is {n}."} for n in range(1008)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepared: Any = prepare(data, TOKENIZER, seed=1)
    found = look(prepared)
    assert (len(found.samples), found.num_all) == (200, 1000)
    assert [found.places[0][-7:], found.places[-1][-5:]] == ["jsonl:1", ":1000"]
