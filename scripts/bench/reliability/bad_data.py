"""A30: data files with every fault, and files that mean the same rows."""

import json
import time
from collections import Counter
from pathlib import Path

from datasets import load_dataset
from tests.data.test_bad_input import CHAT_FAULTS, FAULTS, PLACES, SAME

from reliability.forks import run
from reliability.prepared import entry_of, tokens
from reliability.record import Row, joined, listed
from reliability.runs import Case, Lab
from reliability.stock import last_error


def bad_data(lab: Lab) -> Row:
    """A30."""
    started = time.monotonic()
    faults = {name: (file, content, said, "alpaca") for name, (file, content, said) in FAULTS.items()}
    chats = {
        f"chat-{name}": ("rows.jsonl", content, said, "chat_template") for name, (content, said) in CHAT_FAULTS.items()
    }
    wanted = list({**faults, **chats}.items())[:: lab.count(1, 6)]
    failures, lines = [], 0
    for name, (file, content, said, layout) in wanted:
        case = _case(lab, layout)
        path = case.folder / file
        path.write_bytes(content)
        done = case.run(f"--datasets=[{{path: {path}, type: {layout}}}]", name="preprocess")
        lines += f"{path}:" in done.text
        if done.exit_code != 3 or f"finetune: {path}{said}" not in done.text or "Traceback" in done.text:
            failures.append(f"{name}: {done.last_words}")
    refused, same = len(wanted), _same(lab, failures) + _places(lab, failures)
    tried = refused + same
    return Row(
        "A30",
        "files with every fault, and files that lost nothing",
        tried,
        tried - len(failures),
        joined(
            f"{refused} faults refused with exit 3, {lines} with file:line or file and fault, {same} others by rule",
            f"{1000 * (time.monotonic() - started) / tried:.0f} ms each",
            listed(failures),
        ),
        "" if lab.short else _stock(lab),
        {"bad": refused, "named": refused - len(failures)},
    )


def _stock(lab: Lab) -> str:
    """Read the faulty JSON lines with ``datasets``, which a script over the Trainer uses."""
    faults = {name: content for name, (file, content, _) in FAULTS.items() if file == "rows.jsonl"}
    outcomes: Counter[str] = Counter()
    for name, content in faults.items():
        path = lab.folder / "a30-stock.jsonl"
        path.write_bytes(content)

        def read(path: Path = path, name: str = name) -> int:
            load_dataset("json", data_files=str(path), split="train", cache_dir=str(lab.folder / f"datasets-{name}"))
            return 0

        done = run(read, path.with_suffix(".log"))
        said = last_error(done) if done.exit_code else ""
        outcomes[
            "taken in silence" if not said else "place named" if path.name in said else "refused without place"
        ] += 1
    return f"`datasets`, {len(faults)} JSON files: " + ", ".join(f"{n} {kind}" for kind, n in outcomes.most_common())


def _case(lab: Lab, layout: str) -> Case:
    template = {"chat_template": "chatml"} if layout == "chat_template" else {}
    return lab.case("a30", dataset_prepared_path=str(lab.folder / "a30" / "prepared"), **template)


def _same(lab: Lab, failures: list[str]) -> int:
    """Compare the tokens of files that mean the same rows; return how many there were."""
    wanted = dict(list(SAME.items())[:: lab.count(1, 6)])
    found = {}
    for name, (file, content) in wanted.items():
        case = _case(lab, "alpaca")
        path = case.folder / file
        path.write_bytes(content)
        done = case.run(f"--datasets=[{{path: {path}, type: alpaca}}]", "--sequence_len=512", name="preprocess")
        found[name] = done.last_words if done.exit_code else json.dumps(tokens(entry_of(case.folder / "prepared")))
    failures += [f"{name}: other tokens than {next(iter(found))}" for name in found if found[name] != found["clean"]]
    return len(wanted)


def _places(lab: Lab, failures: list[str]) -> int:
    """Name paths that are no file; return how many there were."""
    for name, (make, said) in PLACES.items():
        case = _case(lab, "alpaca")
        path: Path = case.folder / "rows.jsonl"
        make(path)
        done = case.run(f"--datasets=[{{path: {path}, type: alpaca}}]", name="preprocess")
        if done.exit_code != 3 or f"{path}{said}" not in done.text:
            failures.append(f"{name}: {done.last_words}")
    return len(PLACES)
