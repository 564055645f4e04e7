"""Samples as runs of text, trained or not."""

import numpy as np
from transformers import PreTrainedTokenizerFast

from finetune.data.preview import preview


def sample(input_ids: list[int], num_masked: int) -> dict[str, np.ndarray]:
    ids = np.array(input_ids, np.int32)
    labels = ids.copy()
    labels[:num_masked] = -100
    return {"input_ids": ids, "labels": labels}


def test_runs_are_the_text_of_prompt_and_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = tokenizer("What is the capital of France? ")["input_ids"]
    answer = tokenizer("Paris, naïve café.", add_special_tokens=False)["input_ids"]
    rows = [sample([*prompt, *answer, tokenizer.eos_token_id], len(prompt))] * 3
    expected = [("<s>What is the capital of France? ", False), ("Paris, naïve café.</s>", True)]
    assert preview(rows, tokenizer, n=2) == [expected, expected]
    assert len(preview(rows, tokenizer, n=9)) == 3
