"""The choice of the attention backend."""

import pytest
import torch

from finetune.config.model import ModelSection
from finetune.errors import HardwareError
from finetune.model.attention import choose_attention
from finetune.model.precision import Precision

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")


def choose(**changes: object) -> tuple[str, bool, str | None]:
    attention = choose_attention(ModelSection(base_model="x", **changes), Precision(torch.bfloat16))
    return attention.implementation, attention.flatten, attention.note


@on_cpu
def test_flash_attention_that_is_missing_gives_way_and_says_so() -> None:
    assert choose(flash_attention=True) == (
        "sdpa",
        False,
        "flash_attention: there is no CUDA device; sdpa is used, which keeps packed samples apart too",
    )


@on_cpu
@pytest.mark.parametrize(
    ("changes", "name"),
    [({}, "sdpa"), ({"sdp_attention": True}, "sdpa"), ({"eager_attention": True}, "eager"),
     ({"attn_implementation": "eager"}, "eager"), ({"flash_attention": False}, "sdpa")],
)  # fmt: skip
def test_a_backend_that_is_here_is_taken(changes: dict[str, object], name: str) -> None:
    assert choose(**changes) == (name, False, None)


@on_cpu
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attn_implementation": "flash_attention_2"},
            r"flash_attention_2 is not available here \(there is no CUDA device\); install flash-attn",
        ),
        ({"flex_attention": True}, "flex attention has no backward pass on a CPU; use sdp_attention: true"),
    ],
)
def test_a_backend_asked_for_by_name_is_not_replaced(changes: dict[str, object], message: str) -> None:
    with pytest.raises(HardwareError, match=message):
        choose(**changes)
