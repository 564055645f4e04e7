"""Show which tokens of a sample are trained."""

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

from finetune.data.store import IntArray


class Decoder(Protocol):
    """The part of a tokenizer that turns ids back into text."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """Return the text of ``token_ids``."""
        ...


Run = tuple[str, bool]
"""A stretch of text, and whether its tokens are trained."""


def preview(samples: Sequence[dict[str, IntArray]], tokenizer: Decoder, n: int) -> list[list[Run]]:
    """Return the first ``n`` samples as runs of text, special tokens included, each trained or not."""
    return [_runs(samples[index], tokenizer) for index in range(min(n, len(samples)))]


def _runs(sample: dict[str, IntArray], tokenizer: Decoder) -> list[Run]:
    tokens = zip(sample["input_ids"].tolist(), (sample["labels"] != -100).tolist(), strict=True)
    return [
        (
            tokenizer.decode(
                [token for token, _ in run], skip_special_tokens=False, clean_up_tokenization_spaces=False
            ),
            trained,
        )
        for trained, run in groupby(tokens, key=lambda token: token[1])
    ]
