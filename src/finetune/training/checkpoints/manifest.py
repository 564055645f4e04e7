"""``manifest.json``: what a folder has to hold, to the last bit, and which run it belongs to."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from finetune.data.files import sync

MANIFEST = "manifest.json"
_FORMAT = 1
_PACKAGES = ("finetune", "torch", "transformers", "accelerate", "peft", "bitsandbytes", "deepspeed")
_LOADED = {".safetensors", ".bin", ".pt", ".pth"}
"""Endings of files that a library may load because they are there."""


class DamagedError(Exception):
    """A folder is not what its manifest says; the text is the reason."""


@dataclass(frozen=True)
class SealedFile:
    """What is known of a file."""

    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class RunFacts:
    """What every checkpoint of a run says of it."""

    run: str
    """The run's own id; a resumed run keeps it."""
    config: str
    """The resolved configuration (YAML), redacted."""
    data_digest: str = ""
    """Digest of the samples that it trains on; empty for a stream."""
    num_samples: int = 0
    world_size: int = 1
    """Processes that share the work."""
    engine: str = "no distribution"
    """How they share it, in words."""
    surroundings: str = ""
    """What the run depends on besides its configuration (JSON)."""


@dataclass(frozen=True)
class Manifest:
    """The content of a sealed folder, and what it is."""

    step: int
    """Optimizer steps that are behind it."""
    facts: RunFacts
    files: Mapping[str, SealedFile]
    """By path relative to the folder."""
    versions: Mapping[str, str]
    """Of the packages that wrote it."""

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files.values())

    def to_json(self) -> str:
        """Return the only text that :meth:`from_json` takes for this manifest; its last value is its own hash."""
        values = {"format": _FORMAT, **dataclasses.asdict(self)}
        body = json.dumps(values, indent=1, ensure_ascii=False)
        return json.dumps({**values, "sha256": _hash(body)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Raise :class:`DamagedError` for everything that :meth:`to_json` did not write."""
        try:
            values = json.loads(text)
            if values["format"] != _FORMAT:
                raise DamagedError(f"{MANIFEST} has the format {values['format']}, which this version does not know")
            files = {name: SealedFile(**file) for name, file in values["files"].items()}
            manifest = cls(values["step"], RunFacts(**values["facts"]), files, values["versions"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"{MANIFEST} is damaged ({type(error).__name__})") from None
        if manifest.to_json() != text:
            raise DamagedError(f"{MANIFEST} is damaged (its own hash is another)")
        return manifest


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages whose behaviour is in a checkpoint."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # DeepSpeed is not there on every system
            continue
    return found


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of ``folder``.  Raises :class:`DamagedError`."""
    try:
        return Manifest.from_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamagedError(f"no {MANIFEST}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"{MANIFEST} cannot be read ({type(error).__name__})") from None


def content(folder: Path) -> list[Path]:
    """Return all files under ``folder``, the manifest excepted, largest first."""
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST]
    return sorted(files, key=lambda path: (-path.stat().st_size, path))


def seal(files: Iterable[Path], folder: Path) -> dict[str, SealedFile]:
    """Force ``files`` to disk and hash them, several at once; a disk waits while a processor hashes."""
    paths = list(files)
    with ThreadPoolExecutor(_num_threads()) as pool:
        sealed = list(pool.map(_seal, paths))
    return {path.relative_to(folder).as_posix(): file for path, file in zip(paths, sealed, strict=True)}


def find_damage(folder: Path, manifest: Manifest) -> str | None:
    """Compare the files of ``manifest`` with those in ``folder``; return what is wrong with which one, or None."""
    for name, file in manifest.files.items():  # the sizes first: they cost nothing
        try:
            size = (folder / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if size != file.size:
            return f"{name} has {size:,} bytes instead of {file.size:,}"
    with ThreadPoolExecutor(_num_threads()) as pool:
        faults = pool.map(lambda name: _fault(folder, name, manifest), manifest.files)
        return next((fault for fault in faults if fault), None)


def find_added(folder: Path, manifest: Manifest) -> str | None:
    """Return what is wrong if ``folder`` holds a file that a library may load and ``manifest`` does not know."""
    names = (path.relative_to(folder).as_posix() for path in content(folder) if path.suffix in _LOADED)
    return next((f"{name} was added" for name in sorted(names) if name not in manifest.files), None)


def dealt(files: Sequence[Path], rank: int, world_size: int) -> list[Path]:
    """Return the part of ``files`` that one of several processes seals; sorted by size they come out about even."""
    return list(files[rank::world_size])


def _fault(folder: Path, name: str, manifest: Manifest) -> str | None:
    try:
        digest = _digest(folder / name)
    except OSError as error:
        return f"{name} cannot be read ({error.strerror or error})"
    return None if digest == manifest.files[name].sha256 else f"the content of {name} changed"


def _seal(path: Path) -> SealedFile:
    sync(path)
    return SealedFile(path.stat().st_size, _digest(path))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _num_threads() -> int:
    return min(os.cpu_count() or 1, 4)
