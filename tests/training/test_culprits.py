"""Rows of a step tried one by one, and what is said of them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny import tiny_tokenizer
from transformers import LlamaForCausalLM

from finetune.model.precision import Precision
from finetune.training.culprits import TriedRow, describe_rows, render_rows, try_rows

SAMPLES = [
    (np.arange(10, 10 + length, dtype=np.int32), np.array([-100] * 3 + list(range(13, 10 + length)), np.int32))
    for length in (8, 20, 13)
]


def test_a_row_by_itself_has_the_loss_and_the_gradient_of_a_step_of_its_own(tiny_llama: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_llama).train()
    tried = try_rows(model, Precision(torch.float32), SAMPLES, gradients=True)

    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for (ids, labels), (loss, norm) in zip(SAMPLES, tried, strict=True):
        inputs = {"input_ids": torch.tensor(ids).long()[None], "labels": torch.tensor(labels).long()[None]}
        exact = model(**inputs).loss
        exact.backward()
        assert loss == pytest.approx(exact.item(), rel=1e-6)
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert norm == pytest.approx(torch.nn.utils.get_total_norm(gradients).item(), rel=1e-5)
        model.zero_grad()
    without = try_rows(model, Precision(torch.float32), SAMPLES, gradients=False)
    assert [row[0] for row in without] == pytest.approx([row[0] for row in tried])
    assert {row[1] for row in without} == {None}


class Exhausted(LlamaForCausalLM):
    """A model that finds no memory."""

    def forward(self, **inputs: object) -> object:
        raise torch.OutOfMemoryError("no memory")


def test_a_row_that_cannot_be_tried_is_left_without_numbers(tiny_llama: Path) -> None:
    model = Exhausted.from_pretrained(tiny_llama)
    assert try_rows(model, Precision(torch.float32), SAMPLES[:1], gradients=True) == [(None, None)]
    (row,) = describe_rows(SAMPLES[:1], [(None, None)], [], tiny_tokenizer())
    assert row.line.startswith("a row: not tried: ")


def test_a_long_row_shows_its_beginning() -> None:
    ids = np.array(tiny_tokenizer().encode("What is the capital of France? " * 20), np.int32)
    (row,) = describe_rows([(ids, ids)], [(1.0, None)], [], tiny_tokenizer())
    assert row.text.startswith("<s>What is the capital of France? What")
    assert len(row.text) == 81
    assert row.text.endswith("…")


def rows(*losses: float | None) -> list[TriedRow]:
    return [TriedRow(f"a.jsonl:{number}", "text", loss) for number, loss in enumerate(losses, 1)]


def test_culprits_come_before_the_range_of_the_others() -> None:
    assert render_rows(rows(2.0, math.nan, 3.25)) == [
        "rows of the step that give it by themselves:",
        "  a.jsonl:2: loss nan: 'text'",
        "the other 2 have losses from 2 to 3.25",
    ]


def test_no_culprit_and_culprits_alone_are_told_apart() -> None:
    assert render_rows(rows(1.0, 2.0)) == [
        "no row of the step gives it by itself:",
        "  a.jsonl:1: loss 1: 'text'",
        "  a.jsonl:2: loss 2: 'text'",
    ]
    many = render_rows(rows(*[math.inf] * 9))
    assert many[0] == "every row of the step gives it by itself, so it is in the weights and not in a row:"
    assert many[-1] == "  and 4 more"
    assert render_rows(rows(None)) == ["rows of the step:", "  a.jsonl:1: not tried: 'text'"]
    assert render_rows([]) == []
    assert not TriedRow("a", "b", 1.0, math.inf).is_finite
