"""A5 to A8 and A45: signals and dead processes at random moments of real commands, one and two processes.

``python scripts/bench/reliability/signals.py --count 5`` runs the rows by themselves.
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

if __package__ in (None, ""):  # started as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from reliability.interruptions import LIMIT_S, STOPS, Bench, at_step, in_steps, workers

END_S = 30
"""Within which the others end when a process of the group dies."""
ORPHAN_S = 10
"""Within which the processes of a launcher end that was killed."""
SECOND_S = 2
"""Within which a second signal ends a run."""


@dataclass(frozen=True)
class Record:
    """What a row of the matrix showed."""

    row: str
    what: str
    tried: int
    passed: int
    details: str
    figures: Mapping[str, float] = field(default_factory=dict)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return the median, the 95th percentile and the longest of some durations."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    return {"p50_s": statistics.median(ordered), "p95_s": ordered[int(0.95 * (len(ordered) - 1))], "max_s": ordered[-1]}


def in_words(faults: list[str], figures: Mapping[str, float]) -> str:
    """Put figures and the first faults into a cell of a table."""
    said = [f"{name.removesuffix('_s')} {value:.2f} s" for name, value in figures.items()]
    return "; ".join([", ".join(said), *(f"FAILED {fault}" for fault in faults[:3])])


TWO = ("--launcher", "torchrun", "--num-processes", "2")
ENGINES = {"DDP": (), "ZeRO-1": ("zero1.json",), "ZeRO-3": ("zero3.json",)}


def killed_peers(bench: Bench, count: int) -> Record:
    """A5: SIGKILL of rank 0, of rank 1, or of both."""
    faults, seconds, tried = [], [], 0
    for engine in list(ENGINES)[: 1 if count < 3 else 3]:
        words = (*TWO, *(f"--deepspeed={bench.folder / name}" for name in ENGINES[engine]))
        for index in range(-(-count // 3)):
            tried += 1
            out, ranks = bench.folder / "killed", [(0,), (1,), (0, 1)][index % 3]
            shutil.rmtree(out, ignore_errors=True)

            def kill(process: subprocess.Popen[str], ranks: tuple[int, ...] = ranks) -> None:
                found = workers(process)
                for rank in ranks:
                    found[rank].kill()

            ended = bench.interrupt(words, at_step(bench.chance.randint(12, 60)), kill, out)
            wrong = bench.fault(ended, (8,), words, out)
            wrong = wrong or ("" if "was ended by SIGKILL" in ended.output else f"not said: {ended.output[-300:]}")
            wrong = wrong or ("" if ended.seconds <= END_S else f"ended after {ended.seconds:.1f} s")
            faults += [f"{engine}, ranks {ranks}: {wrong}"] if wrong else []
            seconds.append(ended.seconds)
    figures = percentiles(seconds)
    what = "SIGKILL of rank 0, 1 or both: the others end, 8, the restart is bit-identical"
    return Record("A5", what, tried, tried - len(faults), in_words(faults, figures), figures)


def random_signals(bench: Bench, count: int) -> Record:
    """A6: SIGTERM, SIGINT, SIGUSR1 and SIGHUP at random moments of one process and of two."""
    alone, seconds = bench.sweep((), list(STOPS), count)
    pair, more = bench.sweep(TWO, [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], -(-count // 3))
    faults, figures, tried = [*alone, *pair], percentiles(seconds + more), count + -(-count // 3)
    what = "a signal at a random moment: a checkpoint and 75 or 130, or 143; the run goes on bit-identically"
    return Record("A6", what, tried, tried - len(faults), in_words(faults, figures), figures)


def signal_to_one(bench: Bench, count: int) -> Record:
    """A7: SIGTERM to one of two processes."""
    faults, seconds = [], []
    for index in range(count):
        out = bench.folder / "one-of-two"
        shutil.rmtree(out, ignore_errors=True)

        def one(process: subprocess.Popen[str], rank: int = index % 2) -> None:
            workers(process)[rank].send_signal(signal.SIGTERM)

        ended = bench.interrupt(TWO, at_step(bench.chance.randint(5, 40)), one, out)
        wrong = bench.fault(ended, (75,), TWO, out)
        faults += [f"rank {index % 2}: {wrong}"] if wrong else []
        seconds.append(ended.seconds)
    figures = percentiles(seconds)
    what = "SIGTERM to one of two processes: both save at one step"
    return Record("A7", what, count, count - len(faults), in_words(faults, figures), figures)


def second_signal(bench: Bench, count: int) -> Record:
    """A8: a second Ctrl-C, while the first one's checkpoint is being waited for."""
    faults, seconds = [], []
    many = bench.folder / "many.jsonl"
    many.write_text("".join((bench.folder / "rows.jsonl").read_text() for _ in range(300)))
    slow = (
        f"--datasets[0].path={many}",
        "--val_set_size=0",
        "--evals_per_epoch=null",
        "--micro_batch_size=1",
        "--gradient_accumulation_steps=13000",
    )
    for index in range(count):
        words = (*slow, *(TWO if index % 3 == 2 else ()))
        out = bench.folder / "twice"
        shutil.rmtree(out, ignore_errors=True)
        process = bench.start(out, words)
        in_steps(process, out)
        process.send_signal(signal.SIGINT)
        time.sleep(1.2)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=LIMIT_S)
        took = time.monotonic() - began
        partial = [path.name for path in out.glob("checkpoint-*") if not (path / "trainer_state.json").is_file()]
        good = process.returncode == 130 and took <= SECOND_S and not partial and "Traceback" not in output
        faults += [] if good else [f"{process.returncode} after {took:.2f} s {partial}: {output[-300:]}"]
        seconds.append(took)
    figures = percentiles(seconds)
    what = "a second Ctrl-C ends within 2 s, nothing half published"
    return Record("A8", what, count, count - len(faults), in_words(faults, figures), figures)


def killed_launcher(bench: Bench, count: int) -> Record:
    """A45: SIGKILL of ``finetune train`` or of the launcher that it started."""
    faults, seconds = [], []
    for index in range(count):
        out = bench.folder / "orphans"
        shutil.rmtree(out, ignore_errors=True)
        process = bench.start(out, TWO)
        at_step(5)(process, out)
        left = list(workers(process).values())
        launcher = psutil.Process(process.pid).children()[0]
        began = time.monotonic()
        (psutil.Process(process.pid) if index % 2 else launcher).kill()
        alive = psutil.wait_procs(left, timeout=LIMIT_S)[1]
        took = time.monotonic() - began
        output, _ = process.communicate(timeout=LIMIT_S)
        state = json.loads((out / "run.json").read_text())
        good = len(left) == 2 and not alive and took <= ORPHAN_S and state["status"] != "running"
        faults += [] if good else [f"{len(left)} workers, {took:.1f} s, {state['status']}: {output[-300:]}"]
        seconds.append(took)
    figures = percentiles(seconds)
    what = "SIGKILL of the command or of its launcher: no process is left, run.json says how it ended"
    return Record("A45", what, count, count - len(faults), in_words(faults, figures), figures)


ROWS: dict[str, Callable[[Bench, int], Record]] = {
    "A5": killed_peers,
    "A6": random_signals,
    "A7": signal_to_one,
    "A8": second_signal,
    "A45": killed_launcher,
}


def main() -> None:
    """Run rows and print what they showed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5, help="runs of each row")
    parser.add_argument("--rows", default=",".join(ROWS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for name in options.rows.split(","):
            record = ROWS[name](bench, options.count)
            sys.stdout.write(f"{record.row} {record.passed}/{record.tried} {record.what}: {record.details}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
