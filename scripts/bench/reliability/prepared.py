"""A15, A16: prepared data that was damaged, raced for, or left unfinished."""

import shutil
import signal
import time
from pathlib import Path

import numpy as np

from finetune.data.store import StoredSamples
from reliability.corruption import damages
from reliability.record import Row, joined, listed
from reliability.runs import Case, Lab

NUM_AT_ONCE = 8


def damaged_data(lab: Lab) -> Row:
    """A15."""
    case = lab.case("a15", dataset_prepared_path=str(lab.folder / "a15-prepared"))
    root = lab.folder / "a15-prepared"
    case.run(name="preprocess")
    entry = entry_of(root)
    expected = tokens(entry)
    shutil.copytree(entry, case.folder / "kept")
    found = damages(entry, lab.count(1000, 6))
    silent, failures = 0, []
    for damage in found:
        shutil.rmtree(entry)
        shutil.copytree(case.folder / "kept", entry)
        damage.do(entry)
        done = case.run(name="preprocess")
        said = "damaged" in done.text and "anew" in done.text
        silent += not said
        if done.exit_code or not said:
            failures.append(f"{damage}: {done.last_words}")
        elif tokens(entry) != expected:
            failures.append(f"{damage}: other tokens")
    detected = len(found) - len(failures)
    return Row(
        "A15",
        "flip a bit of, truncate, delete each file of the prepared data",
        len(found),
        detected,
        joined(f"{detected} of {len(found)} named and built anew, same tokens; {silent} silent", listed(failures)),
        figures={"injected": len(found), "detected": len(found) - silent, "silent": silent},
    )


def entry_of(root: Path) -> Path:
    """Return the one entry of a folder of prepared data."""
    (entry,) = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return entry


def tokens(entry: Path) -> list[tuple[list[int], list[int]]]:
    """Return all ids and labels."""
    return [(np.asarray(s["input_ids"]).tolist(), np.asarray(s["labels"]).tolist()) for s in StoredSamples(entry)]


def races(lab: Lab) -> Row:
    """A16."""
    root = lab.folder / "a16-prepared"
    case = lab.case("a16", dataset_prepared_path=str(root))
    failures = _at_once(lab, case, root)
    expected = tokens(entry_of(root))
    whole_s = case.run(name="preprocess").seconds
    num_kills = lab.count(20, 4)
    for number in range(num_kills):
        shutil.rmtree(root)
        child = case.start(name="preprocess")
        time.sleep(lab.chance.uniform(0, 1.5 * whole_s))
        child.send(signal.SIGKILL) if child.running() else None
        child.wait()
        done = case.run(name="preprocess")
        if done.exit_code or tokens(entry_of(root)) != expected:
            failures.append(f"kill {number}: {done.last_words}")
    tried = NUM_AT_ONCE + num_kills
    return Row(
        "A16",
        "8 processes prepare the same data at once; the builder is killed",
        tried,
        tried - len(failures),
        joined(f"one build for {NUM_AT_ONCE}; {num_kills} kills left no lock and no half entry", listed(failures)),
    )


def _at_once(lab: Lab, case: Case, root: Path) -> list[str]:
    """Start all of them together: one may build, the others have to find what it built."""
    cases = [lab.case(f"a16-{number}", dataset_prepared_path=str(root)) for number in range(NUM_AT_ONCE)]
    children = [case.start(name="preprocess") for case in cases]
    ends = [child.wait() for child in children]
    failures = [f"process {number}: {end.last_words}" for number, end in enumerate(ends) if end.exit_code]
    built = sum("wrote " in end.text for end in ends)
    return failures + ([f"{built} of them built"] if built != 1 else [])
