"""Prompts cut from validation samples, and the answers file."""

from pathlib import Path

import torch
from tests.tiny import tiny_tokenizer
from transformers import LlamaForCausalLM

from finetune.model.precision import Precision
from finetune.training.samples import SampleAnswers, answer, choose_prompts, render_samples


def test_a_prompt_ends_where_the_first_trained_stretch_begins() -> None:
    tokenizer = tiny_tokenizer()
    question, reply = (
        tokenizer("What is blue?")["input_ids"],
        tokenizer("A colour", add_special_tokens=False)["input_ids"],
    )
    ids = [*question, *reply, 1, *question]
    labels = [-100] * len(question) + [*reply, 1] + [-100] * len(question)

    prompts = choose_prompts([(ids, ids), (ids, labels), (ids, labels)], tokenizer, 1)

    assert [(prompt.input_ids, prompt.text, prompt.reference) for prompt in prompts] == [
        (question, "What is blue?", "A colour")
    ]


def test_answers_do_not_depend_on_the_other_prompts(tiny_llama: Path) -> None:
    tokenizer, model = tiny_tokenizer(), LlamaForCausalLM.from_pretrained(tiny_llama)
    rows = [tokenizer(text)["input_ids"] for text in ("Blue", "What is the capital of France?")]
    prompts = choose_prompts([([*ids, 7], [-100] * len(ids) + [7]) for ids in rows], tokenizer, 2)
    precision = Precision(torch.float32)

    together = answer(model, tokenizer, prompts, precision, 6)

    assert together == [answer(model, tokenizer, [prompt], precision, 6)[0] for prompt in prompts]
    assert answer(model, tokenizer, [], precision, 6) == []


def test_the_file_shows_prompt_before_after_and_reference() -> None:
    text = render_samples([SampleAnswers("Who?\nYou?", "Wick", "", "Ahoy")])

    assert "> Who?\n> You?" in text
    assert "**Before**\n\n> (nothing)" in text
    assert "**After**\n\n> Ahoy" in text
    assert "**In the data**\n\n> Wick" in text
