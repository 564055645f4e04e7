"""The order of training samples where it is not the Trainer's own."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class LengthGroupedSampler(Sampler[int]):
    """Samples of like length side by side, in an order that depends on seed and epoch alone.

    The sampler of transformers draws from the global generator, so a resumed run would see another order.
    """

    def __init__(self, lengths: Sequence[int], group_size: int, seed: int) -> None:
        """``group_size`` samples (one optimizer step) are alike in length."""
        self.lengths = list(lengths)
        self.group_size = group_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of ``epoch``; the data loader calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.group_size, generator=generator))
