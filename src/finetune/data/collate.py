"""Samples to tensors: padded batches, or packed sequences whose samples do not see each other.

Models of transformers keep packed samples apart by ``position_ids`` that restart, and only as long as no
``attention_mask`` and no key-value cache is given; with either of them the samples see each other silently.
So packed batches carry ``use_cache: False`` and no mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from finetune.data.packing import PackingPlan
from finetune.data.store import IntArray, StoredSamples
from finetune.data.stream import Item, Sample, TokenStream
from finetune.data.tokenize import IGNORE_INDEX

Batch = dict[str, Any]
"""What the model is called with."""

PAD_TO_MULTIPLE_OF = 64
"""Padded batches have a length that is a multiple of this."""

BLANK = -1
"""Index of a row without a trained token: it fills the last batch of an epoch where several processes share it."""


def _blank() -> Sample:
    return {"input_ids": np.zeros(1, np.int32), "labels": np.full(1, IGNORE_INDEX, np.int32)}


class SampleDataset(Dataset[Sample]):
    """Prepared samples for a data loader, one sample an item."""

    def __init__(self, samples: StoredSamples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        if index == BLANK:
            return _blank()
        sample: Sample = self.samples[index]
        return sample

    @property
    def lengths(self) -> IntArray:
        """Tokens of every item, shape ``[num_samples]``."""
        return self.samples.lengths


class PackedDataset(Dataset[list[Sample]]):
    """Prepared samples for a data loader, one bin of a packing plan an item."""

    def __init__(self, samples: StoredSamples, plan: PackingPlan) -> None:
        if len(samples) != len(plan.samples):
            raise ValueError(f"the plan packs {len(plan.samples)} samples, not these {len(samples)}")
        self.samples = samples
        self.plan = plan

    def __len__(self) -> int:
        return self.plan.num_bins

    def __getitem__(self, index: int) -> list[Sample]:
        if index == BLANK:
            return [_blank()]
        return [self.samples[sample] for sample in self.plan.bin(index).tolist()]


class StreamDataset(Dataset[Item]):
    """The sequences of a stream for a data loader that asks for them in order."""

    def __init__(self, stream: TokenStream, num_sequences: int) -> None:
        self.stream = stream
        self.num_sequences = num_sequences

    def __len__(self) -> int:
        return self.num_sequences

    def __getitem__(self, index: int) -> Item:
        return self.stream.sequence(index)


@dataclass(frozen=True)
class PaddedCollator:
    """Batches of shape ``[num_samples, length]``, padded on the right.

    Padding is masked by position, never by id: where ``pad_token_id`` is the EOS token, the EOS that ends an
    answer is still trained.
    """

    pad_token_id: int
    sequence_len: int
    pad_to_sequence_len: bool = False
    """Pad to sequence_len, rounded up; otherwise to the longest sample of the batch, rounded up."""
    pad_to_multiple_of: int = PAD_TO_MULTIPLE_OF
    flatten: bool = False
    """No padding at all: the samples go in one row with their boundaries, as :class:`PackedCollator` flattens bins."""

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Return ``input_ids``, ``labels`` (-100 where padded) and ``attention_mask``, int64."""
        if self.flatten:
            flat = PackedCollator(self.pad_token_id, self.sequence_len, pad_to_sequence_len=False, flatten=True)
            return flat([[sample] for sample in samples])
        lengths = [len(sample["input_ids"]) for sample in samples]
        width = round_up(self.sequence_len if self.pad_to_sequence_len else max(lengths), self.pad_to_multiple_of)
        shape = (len(samples), width)
        input_ids = np.full(shape, self.pad_token_id, np.int64)
        labels = np.full(shape, IGNORE_INDEX, np.int64)
        attention_mask = np.zeros(shape, np.int64)
        for row, (sample, length) in enumerate(zip(samples, lengths, strict=True)):
            input_ids[row, :length] = sample["input_ids"]
            labels[row, :length] = sample["labels"]
            attention_mask[row, :length] = 1
        return _tensors(input_ids=input_ids, labels=labels, attention_mask=attention_mask)


@dataclass(frozen=True)
class PackedCollator:
    """Batches of packed samples that do not see each other.

    One row per bin, shape ``[num_bins, length]``; with ``flatten`` all bins in one row, shape
    ``[1, length]``, and the boundaries for variable-length attention.  Padding is a segment of its own at the
    end of a row.
    """

    pad_token_id: int
    sequence_len: int
    pad_to_sequence_len: bool = True
    """Fill every row to sequence_len; otherwise to the longest row of the batch."""
    flatten: bool = False

    def __call__(self, bins: Sequence[Sequence[Sample]]) -> Batch:
        """Return ``input_ids``, ``labels``, ``position_ids`` (int64) and ``use_cache``.

        ``flatten`` adds ``cu_seq_lens_q`` and ``cu_seq_lens_k`` (int32, shape ``[num_segments + 1]``) and
        ``max_length_q`` and ``max_length_k`` (int).
        """
        rows = [[sample for samples in bins for sample in samples]] if self.flatten else bins
        room = self.sequence_len * (len(bins) if self.flatten else 1)
        sizes = [sum(len(sample["input_ids"]) for sample in row) for row in rows]
        width = room if self.pad_to_sequence_len else max(sizes)
        packed = [list(self._segments(row, width - size)) for row, size in zip(rows, sizes, strict=True)]
        batch: Batch = _tensors(
            input_ids=np.stack([np.concatenate([ids for ids, _ in row]) for row in packed]),
            labels=np.stack([np.concatenate([labels for _, labels in row]) for row in packed]),
            position_ids=np.stack([np.concatenate([np.arange(len(ids)) for ids, _ in row]) for row in packed]),
        )
        batch["use_cache"] = False
        if self.flatten:
            batch |= _boundaries([len(ids) for ids, _ in packed[0]])
        return batch

    def _segments(self, row: Sequence[Sample], padding: int) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield ids and labels of each sample of a row, then of its padding."""
        for sample in row:
            labels = sample["labels"].copy()
            # Otherwise the last token of one sample would be trained to predict the first of the next.
            labels[0] = IGNORE_INDEX
            yield sample["input_ids"], labels
        while padding > 0:
            # In flat batches the padding can be many sequences long, and attention over it costs its square.
            length = min(padding, self.sequence_len)
            yield np.full(length, self.pad_token_id, np.int32), np.full(length, IGNORE_INDEX, np.int32)
            padding -= length


@dataclass(frozen=True)
class SupervisedCollator:
    """Adds to another collator's batch where the model has to predict at all.

    Most of a batch is prompt and padding, and the product with the output embedding, often the widest matrix of
    the model, is only worth its cost where a trained token follows.
    """

    collator: PaddedCollator | PackedCollator

    def __call__(self, items: Any) -> Batch:
        """Return the batch with where to predict, and what, in the words of transformers and in ours.

        ``logits_to_keep`` (``[kept]``) and ``shift_labels`` (``[rows, kept]``) are transformers' own arguments: a
        position is kept where the next token is trained in any row; labels shifted here are not shifted again.
        ``trained_positions`` (``[num_trained]``) counts through the rows laid end to end and names exactly the
        positions whose next token is trained, ``trained_targets`` (``[num_trained]``) these tokens, and
        ``trained_counts`` (``[num_items]``) how many of them each item of the batch has, in its order.
        ``trained_lengths`` are the tokens of each sample, plain numbers that no device has to be asked for.
        """
        batch = self.collator(items)
        labels = batch["labels"]
        following = labels[:, 1:]
        positions = (following != IGNORE_INDEX).any(dim=0).nonzero().squeeze(1)
        batch["logits_to_keep"] = positions
        batch["shift_labels"] = following[:, positions]
        row, column = (following != IGNORE_INDEX).nonzero(as_tuple=True)
        batch["trained_positions"] = row * labels.shape[1] + column
        batch["trained_targets"] = following[row, column]
        if len(labels) != len(items):  # a flat batch
            ends = np.cumsum([_num_tokens(item) for item in items])
            row = torch.from_numpy(np.searchsorted(ends, column.numpy(), side="right"))
        batch["trained_counts"] = torch.bincount(row, minlength=len(items))
        batch["trained_lengths"] = tuple(length for item in items for length in _lengths(item))
        return batch


def _num_tokens(item: Item) -> int:
    """Tokens of a sample, or of a bin of samples."""
    return sum(_lengths(item))


def _lengths(item: Item) -> list[int]:
    return [len(sample["input_ids"]) for sample in (item if isinstance(item, list) else [item])]


def _boundaries(lengths: list[int]) -> Batch:
    """Return where the segments of a flat batch start, named as transformers' ``FlashAttentionKwargs``."""
    starts = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    longest = max(lengths)
    return {
        "cu_seq_lens_q": starts,
        "cu_seq_lens_k": starts,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def _tensors(**arrays: npt.NDArray[Any]) -> Batch:
    return {name: torch.from_numpy(array.astype(np.int64, copy=False)) for name, array in arrays.items()}


def round_up(length: int, multiple: int) -> int:
    """Return the smallest multiple of ``multiple`` that is at least ``length``."""
    return -(-length // multiple) * multiple
