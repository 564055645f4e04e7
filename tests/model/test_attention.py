"""The choice of the attention backend."""

from pathlib import Path

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaForCausalLM,
    PreTrainedModel,
)

from finetune.config.model import ModelSection
from finetune.errors import HardwareError, ModelError
from finetune.model.attention import FLEX, Attention, choose_attention, prefer_flex, settle_attention
from finetune.model.precision import Precision

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")


def choose(**changes: object) -> tuple[str, bool, str | None]:
    attention = choose_attention(ModelSection(base_model="x", **changes), Precision(torch.bfloat16))
    return attention.implementation, attention.flatten, attention.note


@on_cpu
def test_flash_attention_that_is_missing_gives_way_and_says_so() -> None:
    assert choose(flash_attention=True) == (
        "segments",
        True,
        "flash_attention: there is no CUDA device; segments is used, which keeps packed samples apart too",
    )


@on_cpu
@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "segments"),
        ({"flash_attention": False}, "segments"),
        ({"attn_implementation": "segments"}, "segments"),
        ({"sdp_attention": True}, "sdpa"),
        ({"eager_attention": True}, "eager"),
        ({"attn_implementation": "eager"}, "eager"),
    ],
)
def test_a_backend_that_is_here_is_taken(changes: dict[str, object], name: str) -> None:
    assert choose(**changes) == (name, name == "segments", None)


@on_cpu
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attn_implementation": "flash_attention_2"},
            r"flash_attention_2 is not available here \(there is no CUDA device\); install flash-attn",
        ),
        ({"attn_implementation": "varlen"}, "varlen needs a CUDA device of compute capability 8.0, PyTorch 2.10, and"),
        ({"flex_attention": True}, "flex attention has no backward pass on a CPU; use sdp_attention: true"),
    ],
)
def test_a_backend_asked_for_by_name_is_not_replaced(changes: dict[str, object], message: str) -> None:
    with pytest.raises(HardwareError, match=message):
        choose(**changes)


class CountsByItself(LlamaForCausalLM):
    """A model that is isolated and yet wrong side by side: positions run through, and one is learned."""

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None, **inputs: object) -> object:
        del position_ids
        offset = torch.arange(input_ids.shape[1]).unsqueeze(1)
        return super().forward(inputs_embeds=self.model.embed_tokens(input_ids) * (1 + offset), **inputs)


FLAT = Attention("segments", flatten=True)
FLOAT32 = Precision(torch.float32)


def test_a_model_that_segments_fit_is_switched_to_them(tiny_llama: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_llama, attn_implementation="sdpa").train()

    assert settle_attention(model, FLAT, FLOAT32) == FLAT
    assert model.config._attn_implementation == "segments"
    assert model.training


def test_a_model_whose_numbers_change_side_by_side_keeps_sdpa_and_it_is_said(tiny_llama: Path) -> None:
    model = CountsByItself.from_pretrained(tiny_llama, attn_implementation="sdpa")

    settled = settle_attention(model, FLAT, FLOAT32)

    assert (settled.implementation, settled.flatten) == ("sdpa", False)
    assert settled.note == "attention: sdpa, as segments does not fit: samples side by side change its numbers"
    assert model.config._attn_implementation == "sdpa"


def test_segments_asked_for_by_name_do_not_give_way() -> None:
    model = BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2))
    asked = Attention("segments", flatten=True, exact=True)

    with pytest.raises(ModelError, match="segments does not fit this model: its layers are not all plain causal"):
        settle_attention(model, asked, FLOAT32)


class CappedByItself(Gemma2ForCausalLM):
    """One that is wrong side by side."""

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None, **inputs: object) -> object:
        del position_ids
        return super().forward(input_ids=input_ids, **inputs)


def capped(kind: type[Gemma2ForCausalLM] = Gemma2ForCausalLM) -> PreTrainedModel:
    """A model that varlen does not know, and flex attention does."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 16}
    config = Gemma2Config(num_attention_heads=2, num_key_value_heads=1, attn_implementation="eager", **sizes)
    return kind(config)


def test_flex_attention_takes_a_model_that_is_no_flat_one_on_a_gpu() -> None:
    model = capped()

    taken = prefer_flex(model, "as varlen does not fit: its scores are capped", FLOAT32, on_gpu=True)

    assert taken == Attention(
        FLEX, flatten=False, note=f"attention: {FLEX}, as varlen does not fit: its scores are capped"
    )
    assert model.config._attn_implementation == FLEX


@pytest.mark.parametrize("obstacle", ["no gpu", "dropout", "not its model"])
def test_flex_attention_is_left_where_it_cannot_be_used(obstacle: str) -> None:
    model = capped()
    if obstacle == "dropout":
        model.config.attention_dropout = 0.1
    if obstacle == "not its model":
        model = BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2))
        model.set_attn_implementation("eager")

    kept = prefer_flex(model, "as it is", FLOAT32, on_gpu=obstacle != "no gpu")

    assert kept == Attention("eager", flatten=False, note="attention: eager, as it is")
    assert model.config._attn_implementation == "eager"


def test_flex_attention_that_changes_the_numbers_is_not_taken() -> None:
    model = capped(CappedByItself)
    assert prefer_flex(model, "as it is", FLOAT32, on_gpu=True).implementation == "eager"
    assert model.config._attn_implementation == "eager"
