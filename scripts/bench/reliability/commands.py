"""A42: SIGKILL at random moments of the other commands: what they leave is whole, or not there."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from reliability.prepared import tokens
from reliability.record import Row, joined, listed
from reliability.runs import COLUMNS, LORA, ROWS, Case, Lab, weights_digest


def killed_commands(lab: Lab) -> Row:
    """A42."""
    case = _trained(lab)
    count = lab.count(50, 4)
    failures = [
        *_kill(lab, case, "preprocess", (), count, _preparation(case)),
        *_kill(lab, case, "merge-lora", ("--overwrite", "--no-verify"), count, _merge(case)),
        *_kill(lab, case, "evaluate", (), count, _evaluations(case)),
    ]
    return Row(
        "A42",
        "SIGKILLs of preprocess, merge-lora and evaluate at random moments",
        3 * count,
        3 * count - len(failures),
        joined(
            f"{count} kills of each: the output was whole or absent, and the same command then ended well",
            listed(failures),
        ),
        figures={"kills": 3 * count, "lost": len(failures)},
    )


def _trained(lab: Lab) -> Case:
    """Train an adapter with a few rows to evaluate on."""
    held_out = lab.folder / "a42-held-out.jsonl"
    held_out.write_text("".join(json.dumps({**row, "instruction": f"Say {row['output']}"}) + "\n" for row in ROWS[:6]))
    case = lab.case(
        "a42",
        **LORA,
        num_epochs=1,
        val_set_size=None,
        dataset_prepared_path=str(lab.folder / "a42" / "prepared"),
        test_datasets=[{"path": str(held_out), "type": COLUMNS, "split": "train"}],
        remove_validation_duplicates=False,
    )
    done = case.run()
    if done.exit_code:
        raise RuntimeError(done.last_words)
    return case


def _kill(
    lab: Lab, case: Case, name: str, words: tuple[str, ...], count: int, check: Callable[[bool], str]
) -> list[str]:
    """Kill a command ``count`` times; ``check(ended)`` says what is wrong with what it left."""
    check(False)
    whole = case.run(*words, name=name)
    failures = [f"{name}: {whole.last_words}"] if whole.exit_code else []
    check(True)
    for number in range(count):
        child = case.start(*words, name=name)
        if child.worked(lab.chance.uniform(0, whole.cpu_seconds)):
            child.send(signal.SIGKILL)
        ended = child.wait().exit_code == 0
        said = check(ended)
        again = case.run(*words, name=name)
        said = said or (again.last_words if again.exit_code else check(True))
        failures += [f"{name}, kill {number}: {said}"] if said else []
    return failures


def _preparation(case: Case) -> Callable[[bool], str]:
    """Look at prepared data, then take it away, so that the next command has to prepare it again."""
    root = case.folder / "prepared"
    entries = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    expected = {path.name: tokens(path) for path in entries}

    def check(_: bool) -> str:
        found = [path for path in root.glob("*") if path.is_dir() and not path.name.startswith(".")]
        wrong = [path.name for path in found if tokens(path) != expected.get(path.name)]
        shutil.rmtree(root, ignore_errors=True)
        return f"{wrong[0]} is not whole" if wrong else ""

    return check


def _merge(case: Case) -> Callable[[bool], str]:
    """Look at the merged model, then take it away."""
    merged = case.out / "merged"
    digests: list[str] = []

    def check(ended: bool) -> str:
        found = merged.is_dir()
        digest = weights_digest(merged)
        shutil.rmtree(merged, ignore_errors=True)
        if found and ended and not digests:
            digests.append(digest)
        return "the merged model is not whole" if found and digests and digest != digests[0] else ""

    return check


def _evaluations(case: Case) -> Callable[[bool], str]:
    """Read every evaluation and the card."""

    def check(_: bool) -> str:
        files: list[Path] = [*case.out.glob("evaluation/*.json"), case.out / "card.json"]
        for file in files:
            try:
                json.loads(file.read_text())
            except ValueError:
                return f"{file.name} is not whole"
        return "" if (case.out / "README.md").read_text().rstrip() else "the card is empty"

    return check
