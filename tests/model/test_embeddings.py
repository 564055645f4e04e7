"""Rows of added tokens."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from finetune.model.embeddings import add_token_rows


def llama(vocab_size: int, *, tie: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=tie,
        )
    )


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
def test_new_rows_are_the_mean_of_the_old_in_both_matrices(tie: bool) -> None:
    model = llama(50, tie=tie)
    old_in, old_out = (
        layer.weight.detach().clone() for layer in (model.get_input_embeddings(), model.get_output_embeddings())
    )

    grew = add_token_rows(model, 52, [50, 51])

    assert grew
    for old, layer in ((old_in, model.get_input_embeddings()), (old_out, model.get_output_embeddings())):
        assert layer.weight.shape == (52, 8)
        assert torch.equal(layer.weight[:50], old)
        assert torch.allclose(layer.weight[50:], old.mean(dim=0).expand(2, 8))
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tie


def test_spare_rows_are_used_where_there_are_some() -> None:
    model = llama(64, tie=False)
    old = model.get_input_embeddings().weight.detach().clone()

    grew = add_token_rows(model, 52, [50, 51])

    weight = model.get_input_embeddings().weight
    assert not grew
    assert weight.shape == (64, 8)
    assert torch.allclose(weight[50:52], old[:50].mean(dim=0).expand(2, 8))
    assert torch.equal(weight[52:], old[52:])


def test_without_added_tokens_nothing_changes() -> None:
    model = llama(50, tie=False)

    assert not add_token_rows(model, 40, [])
    assert model.get_input_embeddings().weight.shape == (50, 8)
