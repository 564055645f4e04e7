"""Weights on one process; tests/distributed has them spread over several."""

from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from finetune.model.sharded import gathered, is_sharded, local_part, refresh, true_shape, whole_weights


def test_an_ordinary_tensor_is_whole_and_its_local_part_is_itself() -> None:
    tensor = torch.nn.Parameter(torch.zeros(2, 3))

    assert not is_sharded(tensor)
    assert true_shape(tensor) == (2, 3)
    part, first = local_part(tensor)
    part[1] = 5
    assert (tensor[0, 1].item(), first) == (5, 0)
    refresh([tensor])
    with gathered([tensor], writer=0):
        assert tensor.shape == (2, 3)


def test_the_shape_that_deepspeed_leaves_is_the_true_one() -> None:
    tensor = torch.nn.Parameter(torch.zeros(0))
    vars(tensor)["ds_shape"] = torch.Size((4, 5))

    assert is_sharded(tensor)
    assert true_shape(tensor) == (4, 5)


def test_whole_weights_take_a_format_and_tied_ones_stay_tied(tiny_llama: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_llama)
    model.lm_head.weight = model.model.embed_tokens.weight

    weights = whole_weights(model, lambda name: torch.bfloat16, keep=True)

    assert weights.keys() == model.state_dict().keys()
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert weights["lm_head.weight"] is weights["model.embed_tokens.weight"]
    assert whole_weights(model, None, keep=False) == {}
