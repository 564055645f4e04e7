"""A3, A4, A42: SIGKILL at any moment, and aimed at every file operation of a save."""

import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from reliability.aim import watched
from reliability.forks import Child, command, run
from reliability.record import Row, joined, listed
from reliability.runs import Case, Lab, has_staging, published, resumed_from, weights_digest
from reliability.stock import Stock, last_error, stock

NUM_KILLS_OF_STOCK = 60


@dataclass
class Tally:
    """What became of a number of kills."""

    kills: int = 0
    in_save: int = 0
    """Kills that left an unfinished save behind."""
    stuck: int = 0
    """Restarts that failed until a person did something."""
    lost: int = 0
    """Restarts that began before a checkpoint that stood."""
    ends: int = 0
    identical: int = 0
    """Runs that came to their end; with the weights of the run that nobody killed."""
    said: Counter[str] = field(default_factory=Counter)

    @property
    def words(self) -> str:
        return (
            f"{self.kills} kills ({self.in_save} inside a save): {self.lost} lost, {self.stuck} manual fixes, "
            f"{self.identical} of {self.ends} ends bit-identical"
        )

    @property
    def troubles(self) -> int:
        return self.stuck + self.lost + self.ends - self.identical


@dataclass(frozen=True)
class Killed:
    """Something that trains, and is killed and started again until it is done."""

    out: Path
    start: Callable[[], Child]
    unstick: Callable[[], None]
    reference: str
    """Digest of the weights that it has to end with."""


def kill_at_random(lab: Lab, killed: Killed, num_kills: int, whole_s: float) -> Tally:
    """Kill at random moments; ``whole_s`` is the CPU time of a run that nobody disturbs."""
    tally = Tally()
    newest = 0
    while tally.kills < num_kills or published(killed.out):
        child = killed.start()
        if tally.kills < num_kills and child.worked(lab.chance.uniform(0, whole_s)):
            time.sleep(lab.chance.uniform(0, 0.03))  # so that what waits for the disk is hit too
            child.send(signal.SIGKILL)
        outcome = child.wait()
        start_step = resumed_from(outcome.text)
        tally.lost += start_step is not None and start_step < newest
        newest = max(published(killed.out), default=0)
        if outcome.exit_code == -signal.SIGKILL:
            tally.kills += 1
            tally.in_save += has_staging(killed.out)
        elif outcome.exit_code:
            tally.stuck += 1
            tally.said[last_error(outcome)] += 1
            killed.unstick()
        else:
            newest = _finish(tally, killed)
    return tally


def _finish(tally: Tally, killed: Killed) -> int:
    """Compare a finished run, and make room for the next."""
    tally.ends += 1
    tally.identical += weights_digest(killed.out) == killed.reference
    shutil.rmtree(killed.out)
    return 0


def random_kills(lab: Lab) -> Row:
    """A3."""
    tally = kill_ours(lab, lab.count(200, 20))
    theirs = "" if lab.short else kill_stock(lab, NUM_KILLS_OF_STOCK).words
    text = "; ".join(f"{count}× {said}" for said, count in tally.said.most_common(3))
    return Row(
        "A3",
        "random SIGKILLs of a training that saves every 2 steps",
        tally.kills + tally.ends,
        tally.kills + tally.ends - tally.troubles,
        joined(tally.words, text),
        theirs,
        {"kills": tally.kills, "lost": tally.lost, "fixes": tally.stuck, "ends": tally.ends, "same": tally.identical},
    )


def kill_ours(lab: Lab, num_kills: int) -> Tally:
    """Kill ``finetune train --resume`` at random moments."""
    reference, whole_s = _reference(lab.case("a3-reference"))
    case = lab.case("a3")
    unstick = lambda: _remove_newest(case.out)  # noqa: E731
    killed = Killed(case.out, lambda: case.start("--resume"), unstick, reference)
    return kill_at_random(lab, killed, num_kills, whole_s)


def kill_stock(lab: Lab, num_kills: int) -> Tally:
    """Kill the plain script at random moments."""
    whole = stock(lab, "a3-reference")
    done = whole.run()
    script: Stock = stock(lab, "a3")
    killed = Killed(script.out, script.start, script.unstick, weights_digest(whole.out))
    return kill_at_random(lab, killed, num_kills, done.cpu_seconds)


def _reference(case: Case) -> tuple[str, float]:
    """Run once to have everything prepared, then once more undisturbed; return its digest and CPU time."""
    case.run()
    shutil.rmtree(case.out, ignore_errors=True)
    done = case.run()
    if done.exit_code:
        raise RuntimeError(f"the run that nobody disturbs failed: {done.last_words}")
    return weights_digest(case.out), done.cpu_seconds


def _remove_newest(out: Path) -> None:
    steps = published(out)
    shutil.rmtree(out / f"checkpoint-{steps[-1]}" if steps else out)


def aimed_kills(lab: Lab) -> Row:
    """A4."""
    case = lab.case("a4", num_epochs=1)
    reference, _ = _reference(case)
    total = _count_events(case)
    tried = min(lab.count(200, 8), total)
    moments = sorted(lab.chance.sample(range(1, total + 1), tried))
    failures = [said for moment in moments if (said := _kill_and_go_on(case, moment, reference))]
    where = f"at {tried} of {total} file operations in five saves with their rotation"
    return Row(
        "A4",
        "SIGKILLs aimed inside save, publish and rotate",
        tried,
        tried - len(failures),
        joined(
            f"{where}: each restart found its way and ended bit-identical" if not failures else where, listed(failures)
        ),
        "" if lab.short else _aimed_at_stock(lab),
        {"kills": tried, "lost": len(failures)},
    )


def _aimed_at_stock(lab: Lab) -> str:
    """Do the same to the plain script."""
    script = stock(lab, "a4")
    out = script.out
    counter = out.with_name("events")
    run(watched(script.work(num_train_epochs=1), out, counter=counter), out.with_suffix(".log"))
    total = int(counter.read_text())
    moments = sorted(lab.chance.sample(range(1, total + 1), min(total, 40)))
    stuck = 0
    for moment in moments:
        shutil.rmtree(out, ignore_errors=True)
        run(watched(script.work(num_train_epochs=1), out, kill_at=moment), out.with_suffix(".log"))
        stuck += script.run(num_train_epochs=1).exit_code != 0
    return f"{stuck} of {len(moments)} restarts crash until a person deletes a folder"


def _count_events(case: Case) -> int:
    counter = case.folder / "events"
    shutil.rmtree(case.out)
    run(watched(command("train", case.config), case.out, counter=counter), case.folder / "train.log")
    return int(counter.read_text())


def _kill_and_go_on(case: Case, moment: int, reference: str) -> str:
    """Kill at one file operation and run the same command to the end; return what went wrong."""
    shutil.rmtree(case.out, ignore_errors=True)
    work = watched(command("train", case.config), case.out, kill_at=moment)
    first = run(work, case.folder / "train.log")
    newest = max(published(case.out), default=0)
    second = case.run("--resume")
    if first.exit_code != -signal.SIGKILL:
        return f"operation {moment}: was not reached ({first.last_words})"
    if second.exit_code:
        return f"operation {moment}: {second.last_words}"
    if (resumed_from(second.text) or 0) < newest:
        return f"operation {moment}: went on from {resumed_from(second.text)} where checkpoint-{newest} stood"
    return "" if weights_digest(case.out) == reference else f"operation {moment}: the end differs"
