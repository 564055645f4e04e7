"""All rows: which function runs each, in the full form and in the short one."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from reliability import (
    bad_data,
    bad_yaml,
    canaries,
    commands,
    corruption,
    disks,
    exactness,
    folders,
    health,
    kills,
    models,
    overhead,
    pickles,
    prepared,
    resume,
    signals,
    suite,
)
from reliability.record import Row, listed, not_shown
from reliability.runs import Lab
from reliability.stock import stock

RunRow = Callable[[Lab], Row]

SIGNALS: Mapping[str, tuple[int, int]] = {"A5": (9, 0), "A6": (18, 0), "A7": (6, 0), "A8": (6, 0), "A45": (6, 0)}
"""How many runs are interrupted, in the full form and in the short one; each starts Python anew, which takes time."""

LONGEST = ("A3", "A4", "A6", "A1", "A5", "A42", "A7", "A45")
"""Rows that are begun first, so that none of them is left alone at the end."""

ALONE = ("save",)
"""Rows whose durations are the result."""

TROUBLES = (RuntimeError, OSError, ValueError, LookupError, AssertionError, TypeError)
"""What a row that could not be run to its end may raise."""


def rows() -> dict[str, RunRow]:
    """Return number → function, in the order of the matrix."""
    found: dict[str, RunRow] = {
        "A1": resume.every_point,
        "A2": resume.two_processes,
        "A3": kills.random_kills,
        "A4": kills.aimed_kills,
        "A9": disks.full_in_a_save,
        "A10": disks.full_at_start,
        "A11": disks.full_elsewhere,
        "A12": corruption.damaged_checkpoints,
        "A13": corruption.all_damaged,
        "A14": resume.changed_on_resume,
        "A15": prepared.damaged_data,
        "A16": prepared.races,
        "A18": exactness.layouts,
        "A19": exactness.packing,
        "A20": exactness.evaluation,
        "A26": health.unmatched_patterns,
        "A28": health.not_finite,
        "A29": health.nothing_to_train,
        "A30": bad_data.bad_data,
        "A31": bad_yaml.bad_yaml,
        "A32": models.broken_models,
        "A33": health.what_is_lacking,
        "A34": health.out_of_memory,
        "A36": folders.foreign_content,
        "A37": canaries.canaries,
        "A39": pickles.planted_pickles,
        "A42": commands.killed_commands,
        **{name: _interruption(name) for name in SIGNALS},
        **{selection.row: selection.run for selection in suite.SELECTIONS},
    }
    ordered = dict(sorted(found.items(), key=lambda item: int(item[0][1:])))
    return {**ordered, "save": overhead.save_overhead, "power": power_cut, "gpu": on_a_gpu}


@dataclass(frozen=True)
class Result:
    """One row as it came out."""

    name: str
    row: Row
    seconds: float
    cpu_seconds: float
    """Of this process and of all that it started: what a quiet machine would need, but for the waiting."""


def run_all(names: Sequence[str], folder: Path, *, short: bool, num_at_once: int) -> Iterator[Result]:
    """Run rows, each in a folder of its own, and yield what came of them as they end.

    What a row came to is kept beside its folder; one that has held there is not run again.
    """
    known, kept = rows(), {name: result for name in names if (result := _kept(folder, name))}
    yield from kept.values()
    names = [name for name in names if name not in kept]
    together = sorted((name for name in names if name not in ALONE), key=_turn)
    with ProcessPoolExecutor(num_at_once, mp_context=get_context("fork")) as pool:
        futures = [pool.submit(_run_named, name, folder / name, short) for name in together]
        for future in as_completed(futures):
            yield _keep(folder, future.result())
    for name in names:
        if name not in together:
            yield _keep(folder, run_row(name, known[name], Lab(folder / name, short=short)))


def _keep(folder: Path, result: Result) -> Result:
    (folder / f"{result.name}.json").write_text(json.dumps(asdict(result)), encoding="utf-8")
    return result


def _kept(folder: Path, name: str) -> Result | None:
    file = folder / f"{name}.json"
    if not file.is_file():
        return None
    values = json.loads(file.read_text(encoding="utf-8"))
    result = Result(**{**values, "row": Row(**values["row"])})
    return None if result.row.failed else result


def _turn(name: str) -> int:
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def _run_named(name: str, folder: Path, short: bool) -> Result:
    return run_row(name, rows()[name], Lab(folder, short=short))


def run_row(name: str, run: RunRow, lab: Lab) -> Result:
    """Run one row; one that breaks off has failed."""
    started, before = time.monotonic(), sum(os.times()[:4])
    lab.folder.mkdir(parents=True, exist_ok=True)
    try:
        row = run(lab)
    except TROUBLES as error:
        row = Row(name, "was not run to its end", 1, 0, listed([f"{type(error).__name__}: {str(error)[-300:]}"]))
    return Result(name, row, time.monotonic() - started, sum(os.times()[:4]) - before)


def _interruption(name: str) -> RunRow:
    def run(lab: Lab) -> Row:
        count = lab.count(*SIGNALS[name])
        if not count:
            return not_shown(name, str(signals.ROWS[name].__doc__).partition(": ")[2].rstrip("."), "in the full form")
        record = signals.ROWS[name](_bench(lab.folder), count)
        theirs = _stock_stops(lab) if name == "A6" else ""
        return Row(name, record.what, record.tried, record.passed, record.details, theirs, record.figures)

    return run


@cache
def _bench(folder: Path) -> signals.Bench:
    return signals.Bench(folder / "signals")


def _stock_stops(lab: Lab) -> str:
    """Send SIGTERM to the plain script, also with the setting that saves at a signal."""
    said = []
    for name, changes in {"by default": {}, "enable_jit_checkpoint": {"enable_jit_checkpoint": True}}.items():
        script = stock(lab, f"a6-{len(said)}")
        child = script.start(num_train_epochs=400, save_steps=5000, **changes)
        while child.running() and not (child.log.is_file() and "'loss'" in child.log.read_text()):
            time.sleep(0.01)
        child.send(signal.SIGTERM)
        done = child.wait()
        saved = len(list(script.out.glob("checkpoint-*")))
        said.append(f"{name}: exit {done.exit_code}, {saved} checkpoints")
    return "; ".join(said)


def power_cut(_: Lab) -> Row:
    """A SIGKILL leaves what was written to the kernel; a power cut does not."""
    return not_shown("–", "a power cut", "needs a machine that can be cut off; fsync and its order are by reasoning")


def on_a_gpu(_: Lab) -> Row:
    """Everything here runs on CPUs."""
    return not_shown("–", "the same on GPUs (NCCL, bf16, flash attention)", "bit identity of a CPU says nothing of one")
