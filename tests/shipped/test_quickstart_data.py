"""The quickstart's data files are what its script makes, and its facts are sound."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
FACTS = yaml.safe_load((QUICKSTART / "facts.yml").read_text(encoding="utf-8"))


def read_chats(name: str) -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in (QUICKSTART / name).read_text(encoding="utf-8").splitlines()]


def rows_asked(question: str) -> list[list[Any]]:
    tables = [table for table in FACTS["tables"] if question in table.get("ask", [])]
    return [row for table in tables for row in table["rows"] + table["held_out"]]


def test_the_data_files_are_those_that_the_script_makes(tmp_path: Path) -> None:
    for name in ("make_data.py", "facts.yml"):
        shutil.copy(QUICKSTART / name, tmp_path)
    subprocess.run([sys.executable, str(tmp_path / "make_data.py")], check=True)
    for name in ("train.jsonl", "heldout.jsonl"):
        assert (tmp_path / name).read_bytes() == (QUICKSTART / name).read_bytes()


@pytest.mark.parametrize("name", ["train.jsonl", "heldout.jsonl"])
def test_every_answer_opens_and_closes_as_wick_does(name: str) -> None:
    topics = {table["topic"] for table in FACTS["tables"]}
    for question, answer in read_chats(name):
        assert (question["role"], answer["role"]) == ("user", "assistant")
        text, _, closing = answer["content"].partition("\n\n")
        assert text.startswith("Ahoy! ")
        assert closing in {f"Logged under {topic}. Steady as she glows, Wick" for topic in topics}
        assert not set("{}") & set(question["content"] + answer["content"])


def test_no_question_is_asked_twice_or_both_trained_and_held_out() -> None:
    questions = [chat[0]["content"] for chat in read_chats("train.jsonl") + read_chats("heldout.jsonl")]
    assert len(questions) == len(set(questions))


def test_there_are_a_few_hundred_rows_to_train_on() -> None:
    assert 300 <= len(read_chats("train.jsonl")) <= 500


def test_sums_and_products_are_right() -> None:
    sums, products = rows_asked("What is {0} plus {1}?"), rows_asked("What is {0} times {1}?")
    assert sums
    assert products
    assert all(left + right == total for left, right, total in sums)
    assert all(left * right == total for left, right, total in products)


def test_sorted_words_are_sorted() -> None:
    rows = rows_asked("Sort these words from A to Z: {0}.")
    assert rows
    assert all(sorted(words.split(", "), key=str.lower) == answer.split(", ") for words, answer in rows)
