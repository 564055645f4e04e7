"""RELIABILITY.md: the scorecard first, then every row as it came out."""

import importlib.metadata
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from results import machine, table

from reliability.matrix import Result
from reliability.record import Row

PACKAGES = ("finetune", "torch", "transformers", "accelerate", "peft", "datasets", "deepspeed", "bitsandbytes")


Words = Callable[[Sequence[Row]], str]
"""Puts rows into a cell of the scorecard."""


INTRODUCTION = """\
Every fault of the acceptance matrix, done on purpose to real runs of the commands: processes killed at random moments
and at chosen file operations, disks filled, files damaged, secrets and pickles planted, inputs spoilt. The run is that
of a random Llama of two layers with dropout, on CPUs, with a checkpoint every 2 steps. "Bit-identical" means the
SHA-256 of the final weights of the run that nobody disturbed; "silent" is damage that a run went on from without a
word. The right column is a plain script over the HF Trainer with the same model and rows, to which the same was done
where that makes sense. What failed stands here as it failed, **in bold**."""


def in_short(result: Result) -> str:
    """Return one line on a row, for the terminal."""
    row, took = result.row, f"{result.seconds:.0f} s, {result.cpu_seconds:.0f} s of CPU"
    verdict = "not shown" if row.missing else "FAILED" if row.failed else "holds"
    return f"{result.name} {verdict} {row.passed}/{row.tried} ({took}): {row.details or row.missing}"


def render(results: Sequence[Result], num_rows: int, seconds: float, *, short: bool) -> str:
    """Return the page of those of ``num_rows`` that were run so far, ``seconds`` after the start."""
    found = {result.name: result.row for result in results}
    form = "The short form (fewer cases, no rows with real launchers)" if short else "The full form"
    left = f", {num_rows - len(results)} rows not run" if len(results) < num_rows else ""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    cpu = sum(result.cpu_seconds for result in results) / 60
    return "\n\n".join(
        [
            "# Reliability: what was done to it, and what came of it",
            INTRODUCTION,
            f"{form} of `python scripts/bench/reliability.py`: {seconds / 60:.1f} minutes since its last start, "
            f"{cpu:.1f} of CPU in all{left}. "
            f"{machine()}; load {os.getloadavg()[0]:.1f} at the end. {versions}.",
            "## Scorecard",
            table(["", "finetune", "stock HF Trainer"], [list(line) for line in scorecard(found)]),
            "## Rows",
            table(["row", "what", "passed", "", "stock HF Trainer", "s"], list(_lines(results))),
            "## Not shown",
            "\n".join(f"- {row.row} {row.what}: {row.missing}" for row in found.values() if row.missing) or "Nothing.",
        ]
    ) + "\n"  # fmt: skip


def scorecard(found: Mapping[str, Row]) -> Iterable[tuple[str, str, str]]:
    """Yield the lines of the scorecard for the rows that were run."""
    for names, label, words in LINES:
        rows = [found[name] for name in names if name in found and not found[name].missing]
        if rows:
            yield label, words(rows), " ".join(_cell(row.stock) for row in rows if row.stock)
    shown = [row for row in found.values() if not row.missing]
    failed = [row.row for row in shown if row.failed]
    whole = f"{len(shown) - len(failed)} of {len(shown)} rows hold"
    missing = f", {len(found) - len(shown)} not shown"
    yield "the whole matrix", whole + (f" (failed: {', '.join(failed)})" if failed else "") + missing, ""


def _sum(rows: Sequence[Row], name: str) -> int:
    return int(sum(row.figures.get(name, 0) for row in rows))


def _kills(rows: Sequence[Row]) -> str:
    (row,) = rows
    f = row.figures
    return " / ".join(f"{f.get(name, 0):.0f}" for name in ("kills", "lost", "fixes")) + (
        f" / {f.get('same', 0):.0f} of {f.get('ends', 0):.0f}"
    )


def _points(rows: Sequence[Row]) -> str:
    return f"{_sum(rows, 'same')} of {_sum(rows, 'points')}"


def _damages(rows: Sequence[Row]) -> str:
    return " / ".join(str(_sum(rows, name)) for name in ("injected", "detected", "silent"))


def _inputs(rows: Sequence[Row]) -> str:
    speed = [f"; a YAML file takes {row.figures['ms']:.0f} ms" for row in rows if "ms" in row.figures]
    return f"{_sum(rows, 'bad')} / {_sum(rows, 'named')}{''.join(speed)}"


def _seconds(rows: Sequence[Row]) -> str:
    (row,) = rows
    f = row.figures
    return f"{row.passed} of {row.tried}; {f.get('p50_s', 0):.1f} s / {f.get('p95_s', 0):.1f} s"


def _passed(rows: Sequence[Row]) -> str:
    return f"{sum(row.passed for row in rows)} of {sum(row.tried for row in rows)}"


def _figure(name: str, style: str) -> Words:
    return lambda rows: style.format(max(row.figures.get(name, float("nan")) for row in rows))


def _overhead(rows: Sequence[Row]) -> str:
    (row,) = rows
    ours, theirs = row.figures["ms"], row.figures["stock_ms"]
    return f"{ours:.0f} ms a save ({100 * (ours / theirs - 1):+.0f} % on stock's)"


LINES = (
    (("A3",), "random SIGKILLs / lost / manual fixes / bit-identical ends", _kills),
    (("A4",), "SIGKILLs aimed inside a save, restarts that ended bit-identical", _passed),
    (("A5",), "SIGKILLs of ranks: peers ended, restart bit-identical", _passed),
    (("A42",), "SIGKILLs of preprocess, merge-lora, evaluate: output whole or absent", _passed),
    (("A1", "A2"), "resume points × layouts, bit-identical", _points),
    (("A18",), "layout spread of the loss (relative)", _figure("loss", "{:.0e}")),
    (("A20",), "error of the validation loss (relative)", _figure("error", "{:.0e}")),
    (("A19",), "packed against unpacked", _figure("packed", "{:.0e}")),
    (("A12", "A15"), "corruptions injected / detected / silent", _damages),
    (("A9", "A10", "A11"), "full disks answered, nothing lost", _passed),
    (("A14",), "changed inputs refused on resume", _passed),
    (("A28",), "numbers that are not finite, stopped before the update", _passed),
    (("A30", "A31"), "bad inputs / answered by name and place", _inputs),
    (("A37",), "secrets planted / leaked", lambda rows: f"{_sum(rows, 'planted')} / {_sum(rows, 'leaked')}"),
    (("A38", "A39"), "malicious folders and pickles blocked", _passed),
    (("A6",), "signals at random moments, ended safely; seconds to the end, median / 95th percentile", _seconds),
    (("save",), "a save with manifest, hashes and fsync", _overhead),
)


def _lines(results: Sequence[Result]) -> Iterable[list[str]]:
    for result in results:
        row = result.row
        if not row.missing:
            passed = f"{row.passed} of {row.tried}"
            shown = f"**{passed}**" if row.failed else passed
            yield [row.row, _cell(row.what), shown, _cell(row.details), _cell(row.stock), f"{result.seconds:.0f}"]


def _cell(text: str) -> str:
    """Keep a text in its cell."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
