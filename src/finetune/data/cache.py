"""Keep finished folders: built once, published by a rename, checked when they are used again.

An entry is a folder ``<root>/<key>`` with a manifest of the size and the hash of each of its files.  It is
built in ``<root>/.building-<key>`` under a lock that the kernel releases when the builder dies, so what
stands under ``<key>`` was always finished once; the manifest shows what was damaged since.
"""

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from finetune.data.files import file_digest, sync, write_synced
from finetune.disk import no_room, storage_fault
from finetune.errors import CheckpointError, DataError

MANIFEST = "manifest.json"
HASHED_BYTES = 8 * 1024**3
"""Entries up to this size are hashed when they are used again (a fraction of a second where the files are in
memory); of larger ones only the sizes are checked."""
STALE_S = 7 * 24 * 3600
"""Seconds after which an unfinished folder that nobody builds is removed."""
_STAGING = ".building-"


@dataclass(frozen=True)
class CacheEntry:
    """A sound folder."""

    path: Path
    cached: bool
    """Whether it was there before."""
    notes: tuple[str, ...] = ()
    """What was wrong with an entry that had to be replaced, and what its builder said."""


@dataclass(frozen=True)
class Built:
    """What a builder tells of the folder that it filled."""

    note: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    """File name → hash, of files that need not be read again to be hashed."""


Build = Callable[[Path], Built]


def build_once(root: Path, key: str, build: Build, *, resumes: bool = False) -> CacheEntry:
    """Return the entry ``key`` of ``root``; if it is not there, ``build(folder)`` makes it.

    Several processes may ask at once: one builds, the others wait for it.  A damaged entry is rebuilt.  A
    build that fails leaves nothing behind; with ``resumes`` one that is stopped leaves its folder, and the next
    finds it as it was.  Names that begin with a dot are the builder's own and are not published.
    Raises CheckpointError if ``root`` is full or cannot be written.
    """
    path = root / key
    if path.is_dir() and find_damage(path) is None:
        return CacheEntry(path, cached=True)
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".lock-{key}"):
            damage = find_damage(path) if path.is_dir() else None
            if path.is_dir() and damage is None:
                return CacheEntry(path, cached=True)
            built = _build(path, build, resumes)
    rebuilt = [f"{path}: was damaged ({damage}) and has been built anew"] if damage else []
    return CacheEntry(path, cached=False, notes=(*rebuilt, *([built.note] if built.note else [])))


@contextmanager
def shared_staging(root: Path, key: str, name: str) -> Iterator[Path | None]:
    """Give the folder in which the entry ``key`` is built to one of several who fill it together.

    None where the entry is there already.  ``name`` says which one; a second of the same name waits.  Meanwhile
    nobody can finish the entry.  Raises CheckpointError if ``root`` is full or cannot be written.
    """
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".lock-{key}", shared=True), _locked(root / f".lock-{key}-{name}"):
            path, staging = root / key, root / f"{_STAGING}{key}"
            sound = path.is_dir() and find_damage(path) is None
            if not sound:
                staging.mkdir(exist_ok=True)
            yield None if sound else staging


def find_damage(entry: Path) -> str | None:
    """Compare the files of ``entry`` with its manifest; return what is wrong, or None."""
    try:
        manifest = orjson.loads((entry / MANIFEST).read_bytes())
        total = sum(size for size, _ in manifest.values())
        for name, (size, digest) in manifest.items():
            found = (entry / name).stat().st_size
            if found != size:
                return f"{name} has {found} bytes instead of {size}"
            if total <= HASHED_BYTES and file_digest(entry / name) != digest:
                return f"the content of {name} changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"unreadable: {error}"
    return None


def _build(path: Path, build: Build, resumes: bool) -> Built:
    """Build beside ``path`` and rename; the caller holds the lock."""
    staging = path.with_name(f"{_STAGING}{path.name}")
    if not resumes:
        shutil.rmtree(staging, ignore_errors=True)  # what a killed builder left
    try:
        staging.mkdir(exist_ok=True)
        built = build(staging)
        _write_manifest(staging, built.digests)
        if path.exists():
            shutil.rmtree(path)
        staging.rename(path)
        sync(path.parent)
    except BaseException as error:
        # what fails again in the same way would only fill the disk; after a stop the work is wanted
        if not resumes or isinstance(error, OSError | DataError | CheckpointError):
            shutil.rmtree(staging, ignore_errors=True)
        raise
    _tidy(path)
    return built


def _tidy(path: Path) -> None:
    """Remove what the builder kept for itself, and unfinished folders that were forgotten."""
    for own in path.glob(".*"):
        shutil.rmtree(own, ignore_errors=True)
    for staging in path.parent.glob(f"{_STAGING}*"):
        key = staging.name.removeprefix(_STAGING)
        if time.time() - staging.stat().st_mtime > STALE_S and _is_free(path.with_name(f".lock-{key}")):
            shutil.rmtree(staging, ignore_errors=True)


def _write_manifest(folder: Path, known: Mapping[str, str]) -> None:
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    names = {name: path for name, path in names.items() if not name.startswith(".")}
    manifest = {name: (path.stat().st_size, known.get(name) or file_digest(path)) for name, path in names.items()}
    write_synced(folder / MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    for path in [*names.values(), folder]:
        sync(path)


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    """Say which folder could not be written."""
    try:
        yield
    except OSError as error:
        fault = storage_fault(error)
        if fault:
            remedy = "free some space, or set dataset_prepared_path to a folder that has room"
            raise no_room(root, "the prepared data", remedy, fault) from error
        raise CheckpointError(
            f"dataset_prepared_path: {root} cannot take the prepared data ({error.strerror or error}); "
            "set dataset_prepared_path to a folder that can be written"
        ) from error


@contextmanager
def _locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock; it ends with the process, however the process ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def _is_free(path: Path) -> bool:
    """Whether nobody holds the lock."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
