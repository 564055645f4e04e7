"""The result: written beside the output folder's own files, then moved among them so that half of it never passes."""

import shutil
from pathlib import Path

from finetune.data.files import sync, write_synced
from finetune.errors import CheckpointError
from finetune.training.checkpoints.manifest import (
    MANIFEST,
    DamagedError,
    Manifest,
    installed_versions,
)
from finetune.training.checkpoints.names import staging_of
from finetune.training.checkpoints.publish import CheckpointStore, Write
from finetune.training.checkpoints.space import explain_failure

_REPLACED = f".{MANIFEST}.replaced"
"""The manifest of the result that was there, until the new one is complete."""


def publish_final(store: CheckpointStore, step: int, write: Write) -> None:
    """Put what ``write`` writes into ``output_dir`` itself.

    Every process has to call this.  The folder's ``manifest.json`` goes first and comes back last: with it the files
    are the whole result of one run, and without it a kill came between; the same command with ``--resume`` puts that
    right, from the last checkpoint.

    Raises:
        CheckpointError: a process could not write; the files in ``output_dir`` are as they were, or without manifest.
    """
    output_dir = store.output_dir
    staging = staging_of(output_dir, "final", store.facts.run)
    store.engine.only_main(lambda: _begin(store, staging))
    try:
        store.together(output_dir, staging, lambda: write(staging))
        manifest = Manifest(step, store.facts, store.sealed(output_dir, staging), installed_versions())
        store.engine.only_main(lambda: _move(store, staging, manifest))
    finally:
        if store.engine.place.is_main:
            shutil.rmtree(staging, ignore_errors=True)


def _begin(store: CheckpointStore, staging: Path) -> None:
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
    except OSError as error:
        raise CheckpointError(explain_failure(store.output_dir, staging, error, store.needed(final=True))) from error


def _move(store: CheckpointStore, staging: Path, manifest: Manifest) -> None:
    output_dir = store.output_dir
    try:
        write_synced(staging / MANIFEST, manifest.to_json().encode())
        sync(staging)
        if (output_dir / MANIFEST).exists():
            (output_dir / MANIFEST).replace(output_dir / _REPLACED)
            sync(output_dir)
        for name in sorted(manifest.files, key=lambda name: (name.endswith(".safetensors"), name)):
            (output_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).replace(output_dir / name)
        # weights in other pieces than before would be loaded beside, or in place of, the new ones
        for name in _listed(output_dir / _REPLACED) - manifest.files.keys():
            (output_dir / name).unlink(missing_ok=True)
        sync(output_dir)
        (staging / MANIFEST).replace(output_dir / MANIFEST)
        (output_dir / _REPLACED).unlink(missing_ok=True)
        sync(output_dir)
    except OSError as error:
        raise CheckpointError(explain_failure(output_dir, staging, error, store.needed(final=True))) from error


def _listed(manifest: Path) -> set[str]:
    """Return the files of an earlier result in this folder, as far as its manifest says."""
    try:
        return set(Manifest.from_json(manifest.read_text(encoding="utf-8")).files)
    except (DamagedError, OSError, UnicodeDecodeError):
        return set()
