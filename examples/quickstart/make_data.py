"""Write train.jsonl and heldout.jsonl, the quickstart's data, from facts.yml.

    python examples/quickstart/make_data.py

Every row is a chat of one question and one answer. Each answer opens and closes in the same way and names the
topic of the question, so that what the model learned is plain to see. Equal facts.yml, equal files.
"""

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent


def load_facts(path: Path) -> dict[str, Any]:
    """The persona and its tables; the shape is described at the top of facts.yml."""
    facts: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return facts


def chats(facts: dict[str, Any], part: str) -> list[dict[str, Any]]:
    """One chat for each row of `part` ("rows" or "held_out"): one of every table in turn."""
    tables = [list(table_chats(facts, table, part)) for table in facts["tables"]]
    return [chat for turn in zip_longest(*tables) for chat in turn if chat is not None]


def table_chats(facts: dict[str, Any], table: dict[str, Any], part: str) -> Iterator[dict[str, Any]]:
    """The chats of one table, its ways of asking and answering taken in turn."""
    closing = facts["closing"].format(topic=table["topic"])
    asks, answers = table.get("ask", ["{0}"]), table.get("answer", ["{1}"])
    for number, row in enumerate(table[part]):
        question = asks[number % len(asks)].format(*row)
        answer = answers[number % len(answers)].format(*row)
        yield chat(question, facts["opening"] + answer + closing)


def chat(question: str, answer: str) -> dict[str, Any]:
    """A row in the shape that `type: chat_template` reads."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{path.name}: {len(rows)} rows")


def main() -> None:
    """Write both files beside this script."""
    facts = load_facts(HERE / "facts.yml")
    write_jsonl(HERE / "train.jsonl", chats(facts, "rows"))
    write_jsonl(HERE / "heldout.jsonl", chats(facts, "held_out"))


if __name__ == "__main__":
    main()
