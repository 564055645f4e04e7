"""The local copy of an address: downloaded once, used again while the server states the same size and version.

A copy lies in ``$XDG_CACHE_HOME/finetune/downloads`` (``~/.cache/finetune/downloads``).  A file takes its name only
when it is whole.  No name and no content there holds the address, which may hold credentials.
"""

import fcntl
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.data.files import user_cache
from finetune.errors import DataError

VERSION_FIELDS = (
    *("ETag", "etag", "md5", "md5Hash", "Content-MD5", "content_md5"),
    *("mtime", "LastModified", "last_modified", "Last-Modified", "created"),
)
"""What file systems call the things that change with a file's content."""


@dataclass(frozen=True)
class Fetched:
    """The local copy of an address."""

    folder: Path
    files: tuple[Path, ...]
    is_folder: bool
    """Whether the address is a folder, of which the data files are still to be chosen."""
    stale: bool
    """Whether the server did not answer, so that the copy is that of an earlier run."""


@dataclass(frozen=True)
class RemoteFile:
    """One file behind an address."""

    path: str
    """Path in its file system."""
    size: int | None
    """Bytes, where the server states it."""
    version: str | None
    """Text that changes with the content, where the server states one."""

    @classmethod
    def of(cls, path: str, info: dict[str, Any]) -> "RemoteFile":
        """Read what a file system says of ``path``."""
        stated = {name: str(info[name]) for name in VERSION_FIELDS if info.get(name)}
        return cls(path, info.get("size"), json.dumps(stated, sort_keys=True) if stated else None)


@dataclass(frozen=True)
class Listing:
    """The files behind an address."""

    system: Any
    """fsspec's file system, ready to read."""
    files: dict[str, RemoteFile]
    """Name under the local folder to file."""
    is_folder: bool


@dataclass(frozen=True)
class LocalCopy:
    """The local copy of one address: ``files/``, and ``state.json`` with the size and version of each."""

    folder: Path

    @classmethod
    def of(cls, url: str) -> "LocalCopy":
        """Return the place of the copy of ``url``."""
        return cls(user_cache("downloads") / hashlib.sha256(url.encode()).hexdigest()[:24])

    @property
    def files(self) -> Path:
        """Folder of the files."""
        return self.folder / "files"

    @property
    def state(self) -> dict[str, Any]:
        """``{"is_folder": ..., "files": {name: [size, version]}}`` of the last download; empty where there is none."""
        path = self.folder / "state.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    @property
    def is_whole(self) -> bool:
        """Whether each file of a finished download is there in its size."""
        kept = self.state.get("files", {})
        return bool(kept) and all(_has_size(self.files / name, size) for name, (size, _) in kept.items())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes away.  Raises DataError where the folder cannot be made."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("w")
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot take the download ({error.strerror}); set XDG_CACHE_HOME to a folder that can"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def update(self, listing: Listing) -> None:
        """Download what is not here yet in this version, and remove what is no longer there.

        Raises:
            DataError: a file came in another size than its server states.
        """
        kept = self.state.get("files", {})
        for name, file in listing.files.items():
            size, version = kept.get(name, (None, None))
            current = version is not None and version == file.version and file.size in (None, size)
            if not current or not _has_size(self.files / name, size):
                kept.pop(name, None)
                kept[name] = [self._download(listing.system, name, file), file.version]
                self._write_state(kept, listing.is_folder)
        for name in kept.keys() - listing.files.keys():
            (self.files / name).unlink(missing_ok=True)
        self._write_state({name: kept[name] for name in listing.files}, listing.is_folder)

    def _download(self, system: Any, name: str, file: RemoteFile) -> int:
        """Download one file under another name first; return its size in bytes."""
        target = self.files / name
        part = target.with_name(f".{target.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        system.get_file(file.path, str(part))
        size = part.stat().st_size
        if file.size is not None and size != file.size:
            raise DataError(
                f"{hide_secrets(name)}: came with {size} bytes of {file.size}; it changed or the connection was cut; "
                "try again"
            )
        part.replace(target)
        return size

    def _write_state(self, files: dict[str, Any], is_folder: bool) -> None:
        part = self.folder / ".state.part"
        part.write_text(json.dumps({"is_folder": is_folder, "files": files}), encoding="utf-8")
        part.replace(self.folder / "state.json")

    def fetched(self, *, stale: bool) -> Fetched:
        """Return what lies here."""
        state = self.state
        files = tuple(self.files / name for name in state["files"])
        return Fetched(self.files, files, bool(state["is_folder"]), stale)


def _has_size(path: Path, size: int | None) -> bool:
    return path.is_file() and path.stat().st_size == size


def hide_secrets(text: str) -> str:
    """Replace user, password and query of each address in ``text``."""
    text = re.sub(r"(://)[^/\s'\"]*@", r"\1[redacted]@", text)
    return re.sub(r"(://[^\s?'\"]*)\?[^\s'\"]+", r"\1?[redacted]", text)
