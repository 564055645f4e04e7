"""A39: a pickle that runs code, in every file that a resume reads with torch."""

import dataclasses
import os
import pickle
from pathlib import Path

from finetune.training.checkpoints.manifest import MANIFEST, content, read_manifest, seal
from reliability.corruption import NEWEST, interrupted, restore
from reliability.record import Row, joined, listed
from reliability.runs import Case, Lab


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def planted_pickles(lab: Lab) -> Row:
    """A39."""
    case, _ = interrupted(lab, "a39")
    kept = case.folder / "kept" / f"checkpoint-{NEWEST}"
    files = sorted(path.name for path in kept.iterdir() if path.suffix in (".pt", ".pth", ".bin"))
    cases = [(name, forged) for name in files for forged in (False, True)]
    failures = [said for name, forged in cases if (said := _resume(case, name, forged=forged))]
    return Row(
        "A39",
        "a pickle that runs code in each file that a resume reads, also under a manifest forged to fit",
        len(cases),
        len(cases) - len(failures),
        joined(f"{', '.join(files)}: nothing was run; named, or refused with exit 7", listed(failures)),
    )


def _resume(case: Case, name: str, *, forged: bool) -> str:
    restore(case)
    marker = case.folder / "marker"
    folder = case.out / f"checkpoint-{NEWEST}"
    (folder / name).write_bytes(pickle.dumps(Bomb(marker)))
    if forged:
        forge(folder)
    done = case.run("--resume")
    how = f"{name}{', forged' if forged else ''}"
    if marker.exists():
        marker.rmdir()
        return f"{how}: the code was run"
    if "Traceback" in done.text or done.exit_code not in (0, 7):
        return f"{how}: {done.last_words}"
    return "" if done.exit_code or name in done.text else f"{how}: it was taken in silence"


def forge(folder: Path) -> None:
    """Write the manifest anew, so that it fits what is in the folder."""
    manifest = read_manifest(folder)
    files = seal([path for path in content(folder) if path.name != MANIFEST], folder)
    (folder / MANIFEST).write_text(dataclasses.replace(manifest, files=files).to_json(), encoding="utf-8")
