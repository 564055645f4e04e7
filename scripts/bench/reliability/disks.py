"""A9, A10, A11: a disk that is full, or fills up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.tiny import save_tiny_llama

from reliability.aim import save_of
from reliability.corruption import NEWEST
from reliability.forks import command, run
from reliability.record import Row, joined, listed, not_shown
from reliability.runs import COLUMNS, LORA, Case, Lab, ledger, published, resumed_from, weights_digest
from reliability.small_disk import Disk, on_small_disk, why_not
from reliability.stock import Stock, last_error, stock

MB = 10**6
ROOM = 40 * MB
FINAL = "final"
"""The save of the result."""


def full_in_a_save(lab: Lab) -> Row:
    """A9."""
    what = "the disk fills up in a save: what is left of it runs from nothing to a whole checkpoint"
    reason = why_not(lab.folder / "a9-try")
    if reason:
        return not_shown("A9", what, reason)
    whole = lab.case("a9", num_epochs=1, save_total_limit=9)
    whole.run()
    size = sum(file.stat().st_size for file in (whole.out / f"checkpoint-{NEWEST}").rglob("*") if file.is_file())
    count = lab.count(20, 3)
    moments = [(str(NEWEST), size * k // count) for k in range(count)]
    moments += [(FINAL, size // 3 * k // 4) for k in range(lab.count(4, 1))]
    failures = [said for save, leave in moments if (said := _fill_in_save(lab, whole, save, leave))]
    return Row(
        "A9",
        what,
        len(moments),
        len(moments) - len(failures),
        joined(
            f"{len(moments)} sizes: exit 7, path and free space named, no half save left, nothing lost"
            if not failures
            else f"{len(moments)} sizes",
            listed(failures),
        ),
        _stock(lab, size // 3),
        {"sizes": len(moments), "lost": len(failures)},
    )


def _fill_in_save(lab: Lab, whole: Case, what: str, leave: int) -> str:
    """Fill the disk when a save begins; return what is not as it should be."""
    label = f"{'the last save' if what == FINAL else 'a checkpoint'}, {leave:,} bytes left"

    def script(disk: Disk) -> str:
        out = disk.path / "out"
        words = ("train", whole.config, f"--output_dir={out}")
        log = whole.folder / "full.log"
        first = run(disk.filled_at(save_of(what), leave, command(*words)), log)
        if first.exit_code != 7 or "Traceback" in first.text:
            return first.last_words
        if str(disk.path) not in first.text or "free" not in first.text:
            return f"path or free space not named: {first.last_words}"
        left = [path.name for path in out.glob(".staging*")]
        before = max(published(out), default=0)
        disk.empty()
        second = run(command(*words, "--resume"), log)
        if left:
            return f"left {left[0]} behind"
        if second.exit_code or resumed_from(second.text) != before:
            return f"then {second.last_words}"
        return "" if weights_digest(out) == weights_digest(whole.out) else "the end differs"

    said: str = on_small_disk(whole.folder / "disk", ROOM, script)
    return f"{label}: {said}" if said else ""


def _stock(lab: Lab, leave: int) -> str:
    """Fill the disk of the plain script in the save of step 6."""
    script = stock(lab, "a9")

    def fill(disk: Disk) -> list[Any]:
        full = Stock(script.model, script.rows, disk.path / "out")
        first = run(
            disk.filled_at(save_of(NEWEST), leave, full.work(num_train_epochs=1)), script.out.with_suffix(".log")
        )
        disk.empty()
        second = run(full.work(num_train_epochs=1), script.out.with_suffix(".log"))
        return [first.exit_code, last_error(first), second.exit_code]

    code, said, again = on_small_disk(script.out.with_name("disk"), ROOM, fill)
    return f"exit {code}, `{said}`; with room again the restart {'crashes' if again else 'goes on'}"


def full_at_start(lab: Lab) -> Row:
    """A10."""
    what = "a disk that cannot hold the first checkpoint and the result"
    reason = why_not(lab.folder / "a10-try")
    if reason:
        return not_shown("A10", what, reason)
    sizes = [3 * MB, 8 * MB, 13 * MB]
    model = save_tiny_llama(lab.folder / "deep-llama", num_layers=100)
    case = lab.case("a10", num_epochs=1, base_model=str(model))

    def script(disk: Disk) -> str:
        out = disk.path / "out"
        done = run(command("train", case.config, f"--output_dir={out}"), case.folder / "full.log")
        if done.exit_code != 7 or "free" not in done.text:
            return done.last_words
        return "it trained first" if ledger(out) else ""

    failures = [
        f"{size:,} bytes: {said}" for size in sizes if (said := on_small_disk(case.folder / "disk", size, script))
    ]
    return Row(
        "A10",
        what,
        len(sizes),
        len(sizes) - len(failures),
        joined("exit 7 before the first step" if not failures else "", listed(failures)),
    )


def full_elsewhere(lab: Lab) -> Row:
    """A11."""
    what = "the disk is full in preprocess and in merge-lora"
    reason = why_not(lab.folder / "a11-try")
    if reason:
        return not_shown("A11", what, reason)
    case = lab.case("a11", **LORA, max_steps=4, datasets=[{"path": str(_many_rows(lab)), "type": COLUMNS}])
    case.run()
    cases: list[tuple[str, int, Callable[[Disk], str]]] = [
        *[("preprocess", size, _preprocess(case)) for size in (50_000, 200_000, 400_000)[: lab.count(3, 2)]],
        *[("merge-lora", size, _merge(case)) for size in (4_096, 50_000, 100_000)[: lab.count(3, 2)]],
    ]
    failures = [
        f"{name}, {size:,} bytes: {said}"
        for name, size, script in cases
        if (said := on_small_disk(case.folder / "disk", size, script))
    ]
    return Row(
        "A11",
        what,
        len(cases),
        len(cases) - len(failures),
        joined("exit 7, and nothing half done is left" if not failures else "", listed(failures)),
    )


def _many_rows(lab: Lab) -> Path:
    """Write enough rows to fill a small disk."""
    path = lab.folder / "many.jsonl"
    path.write_text("".join(f'{{"instruction": "Number {n}?", "output": "It is {n}."}}\n' for n in range(2000)))
    return path


def _preprocess(case: Case) -> Callable[[Disk], str]:
    def script(disk: Disk) -> str:
        words = ("preprocess", case.config, f"--dataset_prepared_path={disk.path}")
        done = run(command(*words), case.folder / "full.log")
        left = [path.name for path in disk.path.iterdir() if path.is_dir()]
        return _judge(done.exit_code, done.text, done.last_words, left)

    return script


def _merge(case: Case) -> Callable[[Disk], str]:
    def script(disk: Disk) -> str:
        words = ("merge-lora", case.config, f"--output={disk.path / 'merged'}", "--no-verify")
        done = run(command(*words), case.folder / "full.log")
        left = [path.name for path in disk.path.iterdir()]
        return _judge(done.exit_code, done.text, done.last_words, left)

    return script


def _judge(exit_code: int, text: str, last_words: str, left: list[str]) -> str:
    if exit_code != 7 or "Traceback" in text or "free" not in text:
        return last_words
    return f"left {', '.join(left)} behind" if left else ""
