"""Will the prepared data fit on the disk: estimated from the first rows, before hours of work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import orjson

from finetune.data.rows import LocatedRow
from finetune.data.sources import FileSource, Source
from finetune.disk import refuse_small_disk

MIN_BYTES = 10**6
"""Less than this is not worth a refusal that may be wrong."""


def estimate_bytes(source: Source, rows: Iterable[LocatedRow], num_tokens: int) -> int:
    """Estimate what the whole of ``source`` takes when prepared, from the tokens that its first ``rows`` gave.

    A token takes 8 bytes, id and label; a sample keeps its row's place and 16 bytes more.  Rows are measured as
    JSON, so the estimate is near for text and too low for compressed files.  0 where the size of the source is not
    known.
    """
    if not isinstance(source, FileSource):
        return 0
    size = sum(path.stat().st_size for path in source.files)
    measured = prepared = 0
    for row, where in rows:
        measured += len(orjson.dumps(row, default=str))
        prepared += len(where) + 16
    return int(size / max(measured, 1) * (prepared + num_tokens * 8))


def refuse_full_disk(root: Path, needed: int) -> None:
    """Raise CheckpointError if ``needed`` bytes of prepared data do not fit into the folder ``root``."""
    if needed > MIN_BYTES:
        remedy = "free some space, or set dataset_prepared_path to a folder that has room"
        refuse_small_disk(root, "the prepared data", remedy, needed=needed)
