"""Rows found again by their tokens."""

from pathlib import Path

import numpy as np
import pytest

from finetune.data.chosen import ChosenSamples
from finetune.data.store import SampleWriter, StoredSamples, TokenBatch
from finetune.data.whereabouts import find_rows


@pytest.fixture
def samples(tmp_path: Path) -> StoredSamples:
    """Sixty samples of 1 to 6 tokens in several batches and shards; row 7 has the tokens of row 1 once more."""
    generator = np.random.default_rng(0)
    ids = [generator.integers(0, 40, 1 + n % 6).tolist() for n in range(60)]
    ids[7] = ids[1]
    with SampleWriter(tmp_path / "data", shard_bytes=200) as writer:
        for start in range(0, 60, 13):
            part = ids[start : start + 13]
            rows = [f"rows.jsonl:{start + n + 1}" for n in range(len(part))]
            writer.write(TokenBatch.of([(tokens, tokens) for tokens in part], rows))
    return StoredSamples(tmp_path / "data")


def test_every_sample_is_found_where_its_tokens_first_stand(samples: StoredSamples) -> None:
    wanted = [sample["input_ids"] for sample in samples]
    seen: dict[bytes, str] = {}
    for index, ids in enumerate(wanted):
        seen.setdefault(ids.tobytes(), samples.row(index))
    assert find_rows(samples, wanted) == [seen[ids.tobytes()] for ids in wanted]
    assert find_rows(samples, wanted)[7] == "rows.jsonl:2"


def test_a_part_and_a_choice_of_samples_are_looked_through_alone(samples: StoredSamples) -> None:
    last = samples[59]["input_ids"]
    assert find_rows(samples.between(0, 59), [last]) == [None]
    assert find_rows(samples.between(30, 60), [last]) == ["rows.jsonl:60"]
    assert find_rows(ChosenSamples.of(samples, np.array([59, 3])), [last]) == ["rows.jsonl:60"]


def test_tokens_of_no_sample_are_found_nowhere(samples: StoredSamples) -> None:
    assert find_rows(samples, [np.array([99], np.int32), np.arange(50, dtype=np.int32)]) == [None, None]
