"""Files that must last: hashed to find damage, forced to disk before they are named, and where caches lie."""

import os
from pathlib import Path

import xxhash


def file_digest(path: Path) -> str:
    """Hash a file at the speed of memory.  It finds damage; it is no protection against intent."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Force a file or folder to disk, so that a rename never outlives its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, content: bytes) -> None:
    """Write a small file that is on disk when this returns."""
    path.write_bytes(content)
    sync(path)


def user_cache(name: str) -> Path:
    """Return where files of the kind ``name`` are kept from run to run: ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune" / name
