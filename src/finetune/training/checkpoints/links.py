"""``latest`` and ``best``: links for people and scripts; no decision here rests on them."""

import os
from contextlib import suppress
from pathlib import Path

LATEST, BEST = "latest", "best"


def point(output_dir: Path, name: str, target: Path) -> None:
    """Let the link ``name`` lead to ``target``, relative, at once; what is no link of this kind stays as it is.

    A file system without links has none.
    """
    link = output_dir / name
    if os.path.lexists(link) and not link.is_symlink():
        return
    fresh = output_dir / f".{name}.new"
    with suppress(OSError):
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target.name, target_is_directory=True)
        fresh.replace(link)
