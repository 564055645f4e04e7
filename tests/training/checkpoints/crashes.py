"""Kills a save before each of its file operations, one after another, and looks at what is left.

Started as ``python crashes.py folder``.  Prints for each kind of save ``[operations tried, [what went wrong, ...]]``.
The child processes are forked, so that torch is imported once.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.checkpoints.saves import OTHER, RUN, make_store, names, parts, save, write_part
from tests.training.sections import ALONE, training_section

from finetune.training.checkpoints.final import publish_final
from finetune.training.checkpoints.find import Found, find_resume
from finetune.training.checkpoints.manifest import DamagedError, find_damage, read_manifest
from finetune.training.checkpoints.run import begin_run

OPERATIONS = {
    *("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate", "os.link"),
    *("os.scandir", "os.listdir", "shutil.rmtree"),
}
FOREIGN = {"checkpoint-0", "mine.txt", "linked", ".staging-3"}


def prepare(out: Path) -> None:
    """Two checkpoints, a result, and what belongs to others."""
    shutil.rmtree(out, ignore_errors=True)
    save(out, 1, 2)
    save(out, 0, run=OTHER)
    publish_final(make_store(out), 2, write_result("old"))
    (out / "mine.txt").write_text("mine")
    (out / "linked").symlink_to("checkpoint-0")
    (out / ".staging-3").mkdir()


def write_result(text: str) -> Callable[[Path], None]:
    """Return a writer of a result in two pieces, with what stands beside the weights."""

    def write(folder: Path) -> None:
        for name in ("config.json", "model-1.safetensors", "model-2.safetensors", f"only-{text}.safetensors"):
            write_part(name, text)(folder)

    return write


def resume(out: Path) -> Found | None:
    """Find what a run with ``--resume`` would go on from."""
    return find_resume(training_section(output_dir=str(out), auto_resume_from_checkpoints=True), ALONE, RUN)


def save_third(out: Path) -> None:
    make_store(out, limit=2).save(3, parts(3), best=2)


def start_at_first(out: Path) -> None:
    """Go on from the older checkpoint, which moves the newer aside and sweeps."""
    first = out / "checkpoint-1"
    begin_run(out, Found(first, 1, read_manifest(first)))


def check_checkpoint(out: Path) -> str:
    """Return what is wrong after a kill in :func:`save_third`, and after doing it again."""
    found = resume(out)
    if found is None or found.step not in (2, 3) or found.notes:
        return f"found {found}"
    begin_run(out, found)
    save_third(out)
    if names(out) != {"checkpoint-0", "checkpoint-2", "checkpoint-3", "mine.txt", "linked", "latest", "best"} | RESULT:
        return f"then {sorted(names(out))}"
    return leftovers(out)


def check_final(out: Path) -> str:
    """After a kill in the move: the old result whole, or the new, or no manifest; and whole when done again."""
    try:
        text = "old" if "only-old.safetensors" in read_manifest(out).files else "new"
        for name in read_manifest(out).files:
            if (out / name).read_text() != text:
                return f"{name} is not {text}"
    except DamagedError as fault:
        if str(fault) != "no manifest.json":
            return str(fault)
    publish_final(make_store(out), 3, write_result("new"))
    if find_damage(out, read_manifest(out)) or (out / "only-old.safetensors").exists():
        return "not whole when done again"
    return leftovers(out)


def check_start(out: Path) -> str:
    """After a kill in a start: the older checkpoint is there, the newer too under one of its names."""
    start_at_first(out)
    found = resume(out)
    if found is None or found.step != 1 or "checkpoint-2.set-aside-1" not in names(out):
        return f"found {found}, {sorted(names(out))}"
    return leftovers(out)


def leftovers(out: Path) -> str:
    missing = FOREIGN - {path.name for path in out.iterdir()}
    rest = {path.name for path in out.iterdir() if path.name.startswith((".staging", ".trash"))} - FOREIGN
    return f"lost {missing}, left {rest}" if missing or rest else ""


RESULT = {"config.json", "model-1.safetensors", "model-2.safetensors", "only-old.safetensors", "manifest.json"}
KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], str]]] = {
    "checkpoint": (save_third, check_checkpoint),
    "final": (lambda out: publish_final(make_store(out), 3, write_result("new")), check_final),
    "start": (start_at_first, check_start),
}


def killed_at(number: int, action: Callable[[Path], None], out: Path) -> bool:
    """Do ``action`` in a child that dies before its file operation ``number``; whether it had that many."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count(event: str, _: Any) -> None:
            nonlocal seen
            seen += event in OPERATIONS
            if event in OPERATIONS and seen == number:  # the kill is an event too
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            action(out)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def kill_everywhere(kind: str, folder: Path) -> tuple[int, list[str]]:
    """Kill at each operation, until there are no more."""
    action, check = KINDS[kind]
    faults, number, out = [], 0, folder / "out"
    prepare(folder / "template")
    while True:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(folder / "template", out, symlinks=True)
        number += 1
        if not killed_at(number, action, out):
            return number - 1, faults
        fault = check(out)
        if fault:
            faults.append(f"operation {number}: {fault}")


if __name__ == "__main__":
    sys.stdout.write(json.dumps({kind: kill_everywhere(kind, Path(sys.argv[1]) / kind) for kind in KINDS}) + "\n")
