"""Keep finished folders: built once, published by a rename, checked when they are used again.

An entry is a folder ``<root>/<key>`` with a manifest of the size and SHA-256 of each of its files.  It is
built in ``<root>/.building-<key>`` under a lock that the kernel releases when the builder dies, so what
stands under ``<key>`` was always finished once; the manifest shows what was damaged since.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from finetune.errors import CheckpointError

MANIFEST = "manifest.json"
HASHED_BYTES = 8 * 1024**3
"""Entries up to this size are hashed when they are used again (about a second per GB); of larger ones only
the sizes are checked."""


@dataclass(frozen=True)
class CacheEntry:
    """A sound folder."""

    path: Path
    cached: bool
    """Whether it was there before."""
    note: str | None = None
    """What was wrong with an entry that had to be replaced."""


def build_once(root: Path, key: str, build: Callable[[Path], None]) -> CacheEntry:
    """Return the entry ``key`` of ``root``; if it is not there, ``build(folder)`` makes it.

    Several processes may ask at once: one builds, the others wait for it.  A damaged entry is rebuilt.  A
    build that fails leaves nothing behind.  Raises CheckpointError if ``root`` is full or cannot be written.
    """
    path = root / key
    if path.is_dir() and find_damage(path) is None:
        return CacheEntry(path, cached=True)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".lock-{key}"):
            damage = find_damage(path) if path.is_dir() else None
            if path.is_dir() and damage is None:
                return CacheEntry(path, cached=True)
            _build(path, build)
    except OSError as error:
        raise CheckpointError(
            f"dataset_prepared_path: {root} cannot take the prepared data ({error.strerror or error}); "
            f"{_free_space(root)}set dataset_prepared_path to a folder that can be written"
        ) from error
    return CacheEntry(path, cached=False, note=damage and f"{path}: was damaged ({damage}) and has been built anew")


def find_damage(entry: Path) -> str | None:
    """Compare the files of ``entry`` with its manifest; return what is wrong, or None."""
    try:
        manifest = orjson.loads((entry / MANIFEST).read_bytes())
        total = sum(size for size, _ in manifest.values())
        for name, (size, digest) in manifest.items():
            found = (entry / name).stat().st_size
            if found != size:
                return f"{name} has {found} bytes instead of {size}"
            if total <= HASHED_BYTES and _sha256(entry / name) != digest:
                return f"the content of {name} changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"unreadable: {error}"
    return None


def _build(path: Path, build: Callable[[Path], None]) -> None:
    """Build beside ``path`` and rename; the caller holds the lock."""
    staging = path.with_name(f".building-{path.name}")
    shutil.rmtree(staging, ignore_errors=True)  # what a killed builder left
    try:
        staging.mkdir()
        build(staging)
        _write_manifest(staging)
        if path.exists():
            shutil.rmtree(path)
        staging.rename(path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _write_manifest(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {path.relative_to(folder).as_posix(): (path.stat().st_size, _sha256(path)) for path in files}
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    for path in [*files, folder / MANIFEST, folder]:
        _sync(path)


def _sync(path: Path) -> None:
    """Force a file or folder to disk, so that a rename never outlives its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _free_space(root: Path) -> str:
    return f"{shutil.disk_usage(root).free / 1e9:.1f} GB are free there; " if root.is_dir() else ""


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; it ends with the process, however the process ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
