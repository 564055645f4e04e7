"""A12, A13: a checkpoint that is not as it was written."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from reliability.aim import killed_in_save
from reliability.record import Row, joined, listed
from reliability.runs import Case, Lab, ledger, published, resumed_from, weights_digest
from reliability.stock import Stock, stock

NEWEST, OLDER = 6, 4


def truncate(file: Path) -> None:
    """Cut off the second half."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def flip(file: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {"flip a bit of": flip, "truncate": truncate, "delete": Path.unlink}


@dataclass(frozen=True)
class Damage:
    """One way to damage one file."""

    kind: str
    name: str
    """Of the file, in its folder."""

    def do(self, folder: Path) -> None:
        DAMAGES[self.kind](folder / self.name)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def damages(folder: Path, most: int) -> list[Damage]:
    """Return every damage of every file, or ``most`` of them, spread out."""
    found = [
        Damage(kind, file.relative_to(folder).as_posix())
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.stat().st_size > 1
        for kind in DAMAGES
    ]
    return found[:: max(len(found) // most, 1)][:most]


def damaged_checkpoints(lab: Lab) -> Row:
    """A12."""
    case, reference = interrupted(lab, "a12")
    found = damages(case.out / f"checkpoint-{NEWEST}", lab.count(1000, 6))
    silent, failures = 0, []
    for damage in found:
        said, was_silent = _resume_damaged(case, damage, reference)
        silent += was_silent
        failures += [said] if said else []
    detected = len(found) - len(failures)
    return Row(
        "A12",
        "flip a bit of, truncate, delete each file of the newest checkpoint",
        len(found),
        detected,
        joined(f"{detected} of {len(found)} named, and the older taken; {silent} silent", listed(failures)),
        "" if lab.short else _stock(lab),
        {"injected": len(found), "detected": len(found) - silent, "silent": silent},
    )


def interrupted(lab: Lab, name: str) -> tuple[Case, str]:
    """Return a run killed in the save of step 8, and the digest of the weights that it would have had at its end."""
    case = lab.case(name, num_epochs=1, save_total_limit=9)
    case.run()
    reference = weights_digest(case.out)
    shutil.rmtree(case.out)
    killed_in_save(case, NEWEST + 2)
    shutil.copytree(case.out, case.folder / "kept", symlinks=True)
    return case, reference


def restore(case: Case) -> None:
    """Put the folder back as the kill has left it."""
    shutil.rmtree(case.out, ignore_errors=True)
    shutil.copytree(case.folder / "kept", case.out, symlinks=True)


def _resume_damaged(case: Case, damage: Damage, reference: str) -> tuple[str, bool]:
    """Damage and resume; return what is not as it should be, and whether nothing was said."""
    restore(case)
    damage.do(case.out / f"checkpoint-{NEWEST}")
    done = case.run("--resume")
    name = Path(damage.name).name
    if done.exit_code:
        return f"{damage}: {done.last_words}", False
    if name not in done.text:
        return f"{damage}: the run went on in silence", True
    if resumed_from(done.text) != OLDER:
        return f"{damage}: went on from {resumed_from(done.text)}", False
    return ("", False) if weights_digest(case.out) == reference else (f"{damage}: the end differs", True)


def _stock(lab: Lab) -> str:
    """Do the same to the plain script."""
    script = stock(lab, "a12")
    script.run(num_train_epochs=1, save_total_limit=9)
    kept = script.out.with_name("kept")
    script.out.rename(kept)
    newest, total = published(kept)[-2:]
    shutil.rmtree(kept / f"checkpoint-{total}")
    found = damages(kept / f"checkpoint-{newest}", 1000)
    outcomes = [_resume_stock(script, kept, damage, newest) for damage in found]
    return f"{outcomes.count('crash')} of {len(found)} crash, {outcomes.count('silent')} go on in silence"


def _resume_stock(script: Stock, kept: Path, damage: Damage, newest: int) -> str:
    shutil.rmtree(script.out, ignore_errors=True)
    shutil.copytree(kept, script.out)
    damage.do(script.out / f"checkpoint-{newest}")
    done = script.run(num_train_epochs=1, save_total_limit=9)
    if done.exit_code:
        return "crash"
    return "said" if Path(damage.name).name in done.text else "silent"


def all_damaged(lab: Lab) -> Row:
    """A13."""
    case, _ = interrupted(lab, "a13")
    failures = [said for damage in _kinds(case) if (said := _resume_without_any(case, damage))]
    return Row(
        "A13",
        "every checkpoint damaged",
        len(DAMAGES),
        len(DAMAGES) - len(failures),
        joined("exit 7, nothing trained, never from step 0", listed(failures)) if not failures else listed(failures),
    )


def _kinds(case: Case) -> Iterable[Damage]:
    """Each kind of damage to the weights."""
    name = next((case.folder / "kept" / f"checkpoint-{NEWEST}").glob("*.safetensors")).name
    return [Damage(kind, name) for kind in DAMAGES]


def _resume_without_any(case: Case, damage: Damage) -> str:
    restore(case)
    for step in published(case.out):
        damage.do(case.out / f"checkpoint-{step}")
    before = ledger(case.out)
    done = case.run("--resume")
    if done.exit_code != 7 or "Traceback" in done.text:
        return f"{damage}: {done.last_words}"
    return "" if ledger(case.out) == before else f"{damage}: it trained"
