"""Put samples into bins of a fixed number of tokens, as full as can be.

Best-fit-decreasing: the longest sample first, each into the fullest bin that still has room.  Samples of one
length are placed together, so the cost grows with the number of different lengths, not with samples x bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.errors import DataError


@dataclass(frozen=True)
class PackingPlan:
    """Which samples share a bin: bin ``i`` holds ``samples[offsets[i]:offsets[i + 1]]``."""

    samples: npt.NDArray[np.int64]
    """Indices of samples, shape ``[num_samples]``; inside a bin in the order of the data."""
    offsets: npt.NDArray[np.int64]
    """Shape ``[num_bins + 1]``."""
    capacity: int
    """Tokens that a bin can hold."""
    num_tokens: int

    @property
    def num_bins(self) -> int:
        """Number of bins."""
        return len(self.offsets) - 1

    @property
    def efficiency(self) -> float:
        """Tokens in the bins, as a share of what the bins can hold."""
        return self.num_tokens / (self.num_bins * self.capacity)

    def bin(self, index: int) -> npt.NDArray[np.int64]:
        """Return the samples of bin ``index``."""
        return self.samples[self.offsets[index] : self.offsets[index + 1]]


def pack(lengths: npt.NDArray[np.integer], capacity: int, seed: int) -> PackingPlan:
    """Assign every sample to one bin so that no bin holds more than ``capacity`` tokens.

    ``lengths`` are tokens, shape ``[num_samples]``, each at least 1.  The plan depends on the arguments
    alone; ``seed`` decides which of several samples of equal length goes where.  Bins stand in the order of
    their first sample.  Raises DataError for a sample that no bin can hold, or when there is nothing to pack.
    """
    if not len(lengths):
        raise DataError("sample_packing: there is no sample to pack")
    longest = int(np.argmax(lengths))
    if lengths[longest] > capacity:
        raise DataError(
            f"sample_packing: sample {longest} has {lengths[longest]} tokens, more than the {capacity} of a "
            "sequence; drop or truncate it (excess_length_strategy), or raise sequence_len"
        )
    lengths = lengths.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(lengths))
    by_length = order[np.argsort(-lengths[order], kind="stable")]
    bins, num_bins = _best_fit_decreasing(lengths[by_length], capacity)
    bin_of = np.empty(len(lengths), np.int64)
    bin_of[by_length] = bins
    return _plan(bin_of, num_bins, capacity, int(lengths.sum()))


def _plan(bin_of: npt.NDArray[np.int64], num_bins: int, capacity: int, num_tokens: int) -> PackingPlan:
    """Turn the bin of every sample into lists of samples, bins ordered by their first sample."""
    _, first_sample, bin_of = np.unique(bin_of, return_index=True, return_inverse=True)
    rank = np.empty(num_bins, np.int64)
    rank[np.argsort(first_sample)] = np.arange(num_bins)
    ranked = rank[bin_of]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(ranked, minlength=num_bins))])
    return PackingPlan(np.argsort(ranked, kind="stable"), offsets, capacity, num_tokens)


def _best_fit_decreasing(lengths: npt.NDArray[np.integer], capacity: int) -> tuple[npt.NDArray[np.int64], int]:
    """Return the bin of every sample of ``lengths``, which must fall, and the number of bins."""
    rooms = _Rooms(capacity)
    bin_of: list[int] = []
    values, counts = np.unique(-lengths, return_counts=True)
    for length, count in zip((-values).tolist(), counts.tolist(), strict=True):
        left = count
        while left:
            room = rooms.smallest(length)
            # A bin that is the best fit stays the best fit while it has room for one more of this length.
            each = room // length
            bins = rooms.take(room, -(-left // each))
            num_placed = min(left, len(bins) * each)
            num_full, rest = divmod(num_placed, each)
            bin_of.extend(bins[:num_full] if each == 1 else np.repeat(bins, each)[:num_placed].tolist())
            rooms.put(bins[:num_full], room - each * length)
            rooms.put(bins[num_full:], room - rest * length)
            left -= num_placed
    return np.array(bin_of, np.int64), rooms.num_bins


class _Rooms:
    """Bins by the room that they have left; the fullest that fits is found in one step."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._bins: dict[int, list[int]] = {}
        self._mask = 0
        """Bit ``room`` is set where a bin has exactly that room."""
        self.num_bins = 0

    def smallest(self, length: int) -> int:
        """Return the smallest room that ``length`` tokens fit in; the capacity if only a new bin has it."""
        fitting = self._mask >> length
        return length + (fitting & -fitting).bit_length() - 1 if fitting else self._capacity

    def take(self, room: int, num_wanted: int) -> list[int]:
        """Take out up to ``num_wanted`` bins that have ``room``; new ones for the capacity."""
        if room == self._capacity:
            self.num_bins += num_wanted
            return list(range(self.num_bins - num_wanted, self.num_bins))
        bins = self._bins[room]
        taken = bins[-num_wanted:]
        del bins[-num_wanted:]
        if not bins:
            self._mask ^= 1 << room
        return taken

    def put(self, bins: list[int], room: int) -> None:
        """Add bins that have ``room`` tokens left; a full bin is forgotten."""
        if bins and room:
            self._bins.setdefault(room, []).extend(bins)
            self._mask |= 1 << room
