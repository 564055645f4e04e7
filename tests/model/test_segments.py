"""Attention over flat batches: each sample as if it were alone, whatever the model does with windows and groups."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from finetune.data.collate import PackedCollator, PaddedCollator, SupervisedCollator
from finetune.errors import ModelError
from finetune.model.head import attach_head
from finetune.model.segments import SHORT, knows_segments, register, segment_attention, varlen_attention

register()
SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
MODELS: dict[str, tuple[Any, Any]] = {
    "grouped": (LlamaForCausalLM, LlamaConfig(**SMALL)),
    "one head each": (LlamaForCausalLM, LlamaConfig(**{**SMALL, "num_key_value_heads": 4})),
    "sliding window": (MistralForCausalLM, MistralConfig(**SMALL, sliding_window=4)),
    "learned positions": (GPT2LMHeadModel, GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
}


def make(name: str, attention: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model_class, config = MODELS[name]
    model: PreTrainedModel = model_class(config).double().eval()
    model.set_attn_implementation(attention)
    return model


def samples() -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    ids = [random.integers(1, 60, length).astype(np.int32) for length in (9, 1, 14, 5)]
    return [{"input_ids": row, "labels": row} for row in ids]


def losses_and_gradients(model: PreTrainedModel, batches: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad()
    head = attach_head(model)
    losses = torch.cat([head.token_losses(model, batch) for batch in batches])
    sum(head.loss_sum(model, batch) for batch in batches).backward()
    head.remove()
    return losses, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


FLAT = {
    "packed": lambda: SupervisedCollator(PackedCollator(0, 20, flatten=True))([samples()[:2], samples()[2:]]),
    "padding-free": lambda: SupervisedCollator(PaddedCollator(0, 20, flatten=True))(samples()),
}


@pytest.mark.parametrize("layout", FLAT)
@pytest.mark.parametrize("name", MODELS)
def test_flat_samples_have_the_losses_and_gradients_of_single_ones(name: str, layout: str) -> None:
    alone = [SupervisedCollator(PaddedCollator(0, 20))([sample]) for sample in samples()]
    expected_losses, expected_gradients = losses_and_gradients(make(name, "sdpa"), alone)
    losses, gradients = losses_and_gradients(make(name, "segments"), [FLAT[layout]()])

    torch.testing.assert_close(losses, expected_losses, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_padded_rows_and_generated_tokens_are_those_of_sdpa(name: str) -> None:
    ids = torch.tensor([[0, 0, 7, 8, 9], [3, 4, 5, 6, 7]])
    mask = (ids != 0).long()
    outputs = []
    for attention in ("sdpa", "segments"):
        model = make(name, attention)
        answer = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False, use_cache=True, eos_token_id=None
        )
        outputs.append((answer, model(input_ids=ids[1:], use_cache=False).logits))

    assert torch.equal(outputs[0][0], outputs[1][0])
    torch.testing.assert_close(outputs[0][1], outputs[1][1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_samples_attend_alike_by_products_and_by_the_fused_kernel(window: int | None, autocast: bool) -> None:
    """Short samples take another way than long ones; both have the numbers of float64, within bfloat16's rounding."""
    lengths = [SHORT, 1, 70, SHORT + 1]
    options = {"cu_seq_lens_q": torch.tensor([0, *np.cumsum(lengths)]), "scaling": 0.3, "sliding_window": window}
    torch.manual_seed(0)
    exact = [torch.randn(1, heads, sum(lengths), 8).bfloat16().double().requires_grad_() for heads in (4, 2, 2)]
    rounded = [tensor.detach().to(torch.float32 if autocast else torch.bfloat16).requires_grad_() for tensor in exact]
    outputs = []
    for tensors in (exact, rounded):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast and tensors is rounded):
            output, _ = segment_attention(torch.nn.Module(), *tensors, None, **options)
        (output.double() ** 2).sum().backward()
        outputs.append(output)
    pairs = [(outputs[0], outputs[1]), *((ours.grad, other.grad) for ours, other in zip(exact, rounded, strict=True))]
    for wanted, found in pairs:
        for one, other in zip(*(_pieces(tensor, lengths) for tensor in (wanted, found)), strict=True):
            assert (one - other.double()).norm() < 0.015 * one.norm() + 1e-9
    assert outputs[1].dtype == torch.bfloat16


def _pieces(tensor: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, ...]:
    """Split by sample, where the tokens are: outputs have them in dimension 1, gradients of the inputs in 2."""
    return torch.split_with_sizes(tensor, lengths, dim=1 if tensor.shape[1] == sum(lengths) else 2)


def test_attention_of_another_kind_is_refused() -> None:
    query = torch.zeros(1, 2, 3, 4)
    ends = torch.tensor([0, 3])
    with pytest.raises(ModelError, match="segments does not know this model's softcap; use eager"):
        segment_attention(torch.nn.Module(), query, query, query, None, softcap=30.0, cu_seq_lens_q=ends)
    with pytest.raises(ModelError, match="segments does not know this model's attention to later tokens"):
        segment_attention(torch.nn.Module(), query, query, query, None, is_causal=False, cu_seq_lens_q=ends)
    with pytest.raises(ModelError, match="varlen has no dropout, and this model has attention_dropout; use sdpa"):
        varlen_attention(torch.nn.Module(), query, query, query, None, 0.1, cu_seq_lens_q=ends)


@pytest.mark.parametrize(
    ("model", "fits"),
    [
        (lambda: make("grouped", "sdpa"), True),
        (lambda: make("sliding window", "sdpa"), True),
        (lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL)), False),
        (lambda: BloomForCausalLM(BloomConfig(vocab_size=60, hidden_size=32, n_layer=1, n_head=4)), False),
        (lambda: Qwen3NextForCausalLM(Qwen3NextConfig(**SMALL, num_experts=2, num_experts_per_tok=1)), False),
    ],
    ids=["llama", "mistral", "gemma 2 caps scores", "bloom biases them", "qwen 3 next has a running state"],
)
def test_only_plain_causal_attention_is_taken_over(model: Any, fits: bool) -> None:
    assert knows_segments(model()) is fits
