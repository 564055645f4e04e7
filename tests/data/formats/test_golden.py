"""Tokens and labels that Axolotl's own code gave for these rows and this tokenizer.

``golden.json`` holds our rows and the ids that Axolotl 0.9.1 (one-turn formats, completion, input_output), 0.19.0
(chat_template) and the sharegpt strategy of 0.4.1 returned for them.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.data.tokenize import Tokens, split_chunks, tokenize_samples

from .conftest import BuildFormat, build_tokenizer

CASES = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_ids_and_labels_equal_those_of_axolotl(case: dict[str, Any], build_format: BuildFormat) -> None:
    tokenizer = build_tokenizer(case["eos"])
    row_format = build_format(tokenizer, data={"sequence_len": 2048, **case["data"]}, **case["entry"])
    tokens = tokenize_samples([row_format(case["row"])], tokenizer)[0]
    samples = split_chunks(tokens, row_format.chunk_len) if row_format.chunk_len else [tokens]
    assert samples == [Tokens(**sample) for sample in case["samples"]]


def test_every_axolotl_version_is_represented() -> None:
    assert {case["axolotl"] for case in CASES} == {"0.4.1", "0.9.1", "0.19.0"}
