"""A36: an output folder that is somebody else's, in part or whole."""

import shutil
import time
from pathlib import Path

from reliability.corruption import interrupted, restore
from reliability.record import Row, joined, listed
from reliability.runs import Case, Lab, published, weights_digest


def foreign_content(lab: Lab) -> Row:
    """A36."""
    case, reference = interrupted(lab, "a36")
    other = lab.case("a36-other", num_epochs=1, seed=5, save_total_limit=9)
    other.run()
    precious = lab.folder / "a36-precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    failures = _twice_at_once(lab)
    for name, plant in {
        "a folder of somebody's named checkpoint-1": lambda out: shutil.copytree(precious, out / "checkpoint-1"),
        "a link to somebody's folder": lambda out: (out / "checkpoint-1").symlink_to(precious),
        "an older checkpoint of another run": lambda out: shutil.copytree(
            other.out / "checkpoint-4", out / "checkpoint-3"
        ),
        "a newer checkpoint of another run": lambda out: shutil.copytree(
            other.out / "checkpoint-8", out / "checkpoint-99"
        ),
        "a taken name of a checkpoint to come": lambda out: shutil.copytree(precious, out / "checkpoint-10"),
    }.items():
        restore(case)
        before = set(published(case.out))
        plant(case.out)
        (step,) = set(published(case.out)) - before
        said = _go_on(case, step, reference)
        failures += [f"{name}: {said}"] if said else []
    if (precious / "thesis.txt").read_text() != "years of work":
        failures.append("a file outside of the run is gone")
    return Row(
        "A36",
        "an output folder in use by another run, or with folders and links of others in it",
        6,
        6 - len(failures),
        joined("nothing foreign touched; the run went on, or was refused by name", listed(failures)),
    )


def _go_on(case: Case, step: int, reference: str) -> str:
    """Resume with rotation beside a foreign folder; return what went wrong."""
    foreign = case.out / f"checkpoint-{step}"
    content = _content(foreign)
    done = case.run("--resume", "--save_total_limit=2")
    kept = [path.name for path in case.out.glob(f"checkpoint-{step}*") if _content(path) == content]
    if not kept or not (kept[0] == foreign.name or kept[0] in done.text):
        return "it was changed, deleted, or moved without a word"
    if done.exit_code:
        named = done.exit_code in (2, 7) and foreign.name in done.text and "Traceback" not in done.text
        return "" if named else done.last_words
    return "" if weights_digest(case.out) == reference else "the end differs"


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _twice_at_once(lab: Lab) -> list[str]:
    """Start a second run on the folder of one that is training."""
    case = lab.case("a36-twice", num_epochs=10, save_steps=100)
    first = case.start(name="train")
    while first.running() and not (case.out / "metrics.jsonl").is_file():
        time.sleep(0.005)
    second = Case(case.folder, case.config).start("--resume", name="train")
    end = second.wait()
    alive = first.running()
    first.wait()
    failures = []
    if end.exit_code != 2 or "another process" not in end.text:
        failures.append(f"a second run at once: {end.last_words}")
    if not alive or _codes(first.codes):
        failures.append(f"the first run did not go on beside the second: {first.codes}")
    return failures


def _codes(codes: dict[int, int]) -> list[int]:
    return [code for code in codes.values() if code]
