"""Masks, end tokens and text of the prepared samples, looked at in a part of them: no model is needed."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetune.config.data import DataSection
from finetune.data.audit.measures import TokenKinds
from finetune.data.prepare import PreparedData, StreamedData
from finetune.data.store import IntArray
from finetune.data.tokenize import IGNORE_INDEX
from finetune.errors import DataError

LOOKED_AT = 200
"""Samples, evenly spread over all."""
READ_BACK = 8
"""Samples whose text is tokenized again."""
SHOWN = 24
"""Characters on each side of a border."""
FEWEST = 8
"""Of fewer samples nothing is concluded."""

OWN_TOKENS = ("completion", "input_output", "pretokenized")
"""Types whose rows say themselves what is trained and how it ends."""


@dataclass(frozen=True)
class Looked:
    """The samples that are looked at."""

    samples: Sequence[tuple[IntArray, IntArray]]
    """``(input_ids, labels)``."""
    places: Sequence[str]
    num_all: int | None
    """Of how many they are; None for a stream."""


def look(data: PreparedData | StreamedData) -> Looked:
    """Take samples from the training data: some of prepared ones, of a stream the first."""
    if isinstance(data, StreamedData):
        sample = data.stream.first_sample()
        return Looked([(sample["input_ids"], sample["labels"])], ["the first row of the stream"], None)
    train = data.train
    chosen = np.unique(np.linspace(0, len(train) - 1, min(LOOKED_AT, len(train))).astype(int)).tolist()
    samples = [train[number] for number in chosen]
    pairs = [(sample["input_ids"], sample["labels"]) for sample in samples]
    return Looked(pairs, [train.row(number) for number in chosen], len(train))


def check_rows(
    looked: Looked, data: DataSection, tokenizer: PreTrainedTokenizerBase, say: Callable[[str], None]
) -> None:
    """Say what is trained in the samples that are looked at, and how it ends.

    Raises:
        DataError: a trained token is another than the one that stands there, or no answer ends with an end token.
    """
    written = any(entry.type in OWN_TOKENS or _is_function(entry.type) for entry in data.datasets)
    _check_masks(looked, tokenizer, say, own_labels=written)
    _check_ends(looked, TokenKinds.of(tokenizer, data.eot_tokens or ()), tokenizer, say, refuses=not written)
    _check_text(looked, tokenizer, say)


def _is_function(kind: object) -> bool:
    return isinstance(kind, str) and ":" in kind


def _check_masks(
    looked: Looked, tokenizer: PreTrainedTokenizerBase, say: Callable[[str], None], *, own_labels: bool
) -> None:
    for (ids, labels), place in zip(looked.samples, looked.places, strict=True):
        wrong = np.flatnonzero((labels != IGNORE_INDEX) & (labels != ids))
        if len(wrong) and not own_labels:
            raise DataError(
                f"self-check: {place}: token {wrong[0]} is {ids[wrong[0]]} and is trained to be {labels[wrong[0]]}; "
                "prepare the data anew (delete dataset_prepared_path), or leave the checks out with --skip-checks"
            )
    num_stretches = [len(stretches(labels)) for _, labels in looked.samples]
    whole = f" of {looked.num_all:,}" if looked.num_all is not None else ""
    say(
        f"check masks: {len(looked.samples)}{whole} rows, {np.mean(num_stretches):.1f} trained stretches in each; "
        f"the first: {_show_border(*looked.samples[0], tokenizer)}"
    )


def stretches(labels: IntArray) -> list[tuple[int, int]]:
    """Return where trained tokens begin and end, ``[start, stop)``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], labels != IGNORE_INDEX, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _show_border(ids: IntArray, labels: IntArray, tokenizer: PreTrainedTokenizerBase) -> str:
    """Show the text around the first trained stretch: ``'…before' [trained] 'after…'``."""
    start, stop = stretches(labels)[0]
    before, trained, after = (_decode(part, tokenizer) for part in (ids[:start], ids[start:stop], ids[stop:]))
    middle = trained if len(trained) <= 2 * SHOWN else f"{trained[:SHOWN]}…{trained[-SHOWN:]}"
    return f"{before[-SHOWN:]!r} [{middle!r}] {after[:SHOWN]!r}"


def _check_ends(
    looked: Looked,
    kinds: TokenKinds,
    tokenizer: PreTrainedTokenizerBase,
    say: Callable[[str], None],
    *,
    refuses: bool,
) -> None:
    last = [_last_token(ids[slice(*stretches(labels)[-1])], kinds, tokenizer) for ids, labels in looked.samples]
    ends = Counter(token for token in last if kinds.is_special(np.array([token], np.int32))[0])
    names = ", ".join(repr(tokenizer.convert_ids_to_tokens(token)) for token, _ in ends.most_common(3))
    if not ends and refuses and len(last) >= FEWEST:
        raise DataError(
            f"self-check: in none of {len(last)} rows the last trained token is an end token, so the model would not "
            f"learn to stop (the first, {looked.places[0]}, ends in {tokenizer.convert_ids_to_tokens(last[0])!r}). "
            "Name the template's end tokens in eot_tokens, raise sequence_len if rows are cut, or leave the checks out "
            "with --skip-checks"
        )
    shown = f" ({names})" if names else ""
    say(f"check ends: the last trained token is an end token in {ends.total()} of {len(last)} rows{shown}")


def _last_token(trained: IntArray, kinds: TokenKinds, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the last token but for blanks after a special one: some write ChatML with a trained line break there."""
    special = np.flatnonzero(kinds.is_special(trained))
    ends = len(special) > 0 and not _decode(trained[special[-1] + 1 :], tokenizer).strip()
    return int(trained[special[-1] if ends else -1])


def _check_text(looked: Looked, tokenizer: PreTrainedTokenizerBase, say: Callable[[str], None]) -> None:
    """Tokenize the text of rows again: the tokens may be others, where prompt and answer met, but not the text."""
    changed = []
    samples = list(zip(looked.samples, looked.places, strict=True))[:READ_BACK]
    for (ids, _), place in samples:
        text = _decode(ids, tokenizer)
        again = np.array(tokenizer.encode(text, add_special_tokens=False), np.int32)
        if _decode(again, tokenizer) != text:
            changed.append(place)
    say(f"check text: {len(samples) - len(changed)} of {len(samples)} rows keep their text when it is tokenized again")
    if changed:
        say(f"WARNING check text: the tokenizer cannot write the text of {changed[0]}; is it the one of this model?")


def _decode(ids: IntArray, tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False))
