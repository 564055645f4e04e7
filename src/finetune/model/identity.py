"""Which weights a base model has, whatever its folder is called."""

import hashlib
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from finetune.model.base import BaseModelSource

WHOLE = 64 * 2**20
"""Bytes up to which a file is read whole."""
_BLOCKS = 64
_BLOCK = 256 * 2**10


def base_identity(base: BaseModelSource) -> dict[str, str]:
    """Return what tells the content of ``base`` from that of another model under the same name.

    A folder has a digest of config.json and of each file of weights; a model of the hub has the commit that lies in
    the cache, and nothing where none does.
    """
    if not base.is_local:
        cached = try_to_load_from_cache(base.name, "config.json", revision=base.revision)
        return {"commit": Path(cached).parent.name} if isinstance(cached, str) else {}
    folder = Path(base.name)
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return {file.name: sample_digest(file) for file in files if file.is_file()}


def sample_digest(file: Path) -> str:
    """Hash the size of ``file`` and its bytes: all of them up to 64 MiB, of a larger file 64 blocks from end to end.

    Other weights differ nearly everywhere, so they differ in the blocks; damage to a few bytes may lie between them.
    """
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as handle:
        if size <= WHOLE:
            while chunk := handle.read(2**20):
                digest.update(chunk)
        else:
            for index in range(_BLOCKS):
                handle.seek((size - _BLOCK) * index // (_BLOCKS - 1))
                digest.update(handle.read(_BLOCK))
    return digest.hexdigest()[:16]
