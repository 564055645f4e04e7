"""From tokens back to the row that they came from: looked up by content, so that nothing is carried along for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.data.store import IntArray, StoredSamples, TokenBatch


def find_rows(samples: StoredSamples, wanted: Sequence[IntArray]) -> list[str | None]:
    """Return where the row of each of ``wanted`` (token ids) stands, such as ``train.jsonl:17``.

    Of rows with the very same tokens it is the first; None for tokens that no sample has.  Reads the lengths of all
    samples and the tokens of few, so it takes moments even in a large data set.
    """
    found: list[str | None] = [None] * len(wanted)
    for first, batch in samples.batches():
        for place, input_ids in enumerate(wanted):
            if found[place] is None:
                number = _find(batch, input_ids)
                found[place] = None if number is None else samples.row(first + number)
    return found


def _find(batch: TokenBatch, input_ids: IntArray) -> int | None:
    """Return the number in ``batch`` of the first sample with these tokens."""
    length = len(input_ids)
    alike = np.flatnonzero(np.diff(batch.offsets) == length)
    # a few tokens rule most samples out without a loop over them; later ones differ more often than the first
    for token in (length - 1, length // 2, length // 4):
        alike = alike[batch.input_ids[batch.offsets[alike] + token] == input_ids[token]]
    for number in alike.tolist():
        start = batch.offsets[number]
        if np.array_equal(batch.input_ids[start : start + length], input_ids):
            return int(number)
    return None
