"""Real parts for the data tests: a small trained tokenizer, data sections, files of rows."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from finetune.config.data import DataSection

CORPUS = [
    "What is the capital of France? The capital of France is Paris.",
    "Name a colour. Blue is a colour, and so are red, green and yellow.",
    "How many legs has a spider? A spider has eight legs.",
    "Write the number twelve. Zwölf, douze, twelve. 你好, naïve café.",
]

DataFactory = Callable[..., DataSection]
RowWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with BOS, EOS and PAD, trained here."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@pytest.fixture
def make_data(tmp_path: Path) -> DataFactory:
    """Build a data section over one or more paths; further keys as in the YAML."""

    def make(*paths: Path | str, type: Any = "alpaca", **keys: Any) -> DataSection:
        defaults = {
            "datasets": [{"path": str(path), "type": type} for path in paths],
            "dataset_prepared_path": str(tmp_path / "prepared"),
            "eval_sample_packing": False,
            "pad_to_sequence_len": False,
        }
        return DataSection(**{**defaults, **keys})

    return make


@pytest.fixture
def write_rows(tmp_path: Path) -> RowWriter:
    """Write rows as JSON lines into a file of the test's folder."""

    def write(rows: Iterable[Any], name: str = "train.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def alpaca_rows() -> list[dict[str, str]]:
    """Forty rows of different lengths, all of which are kept at the default sequence_len."""
    return [
        {
            "instruction": f"Say {'x' * (n % 7)} {n}.",
            "input": "",
            "output": f"{n} and {n + 1}, " + "y" * (n % 11),
        }
        for n in range(40)
    ]
