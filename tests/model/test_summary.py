"""Counting parameters as they are stored."""

import bitsandbytes as bnb
import torch

from finetune.model.summary import ParameterGroup, summarize_parameters


def test_four_bit_weights_count_their_original_parameters() -> None:
    layer = bnb.nn.Linear4bit(128, 64, bias=True, compute_dtype=torch.float32).to("cpu")
    layer.bias.requires_grad_(True)

    summary = summarize_parameters(layer)

    assert summary.groups == (
        ParameterGroup(trained=True, bits=32, num_tensors=1, num_parameters=64, num_bytes=256),
        ParameterGroup(trained=False, bits=4, num_tensors=1, num_parameters=8192, num_bytes=4096),
    )
    assert (summary.num_trained, summary.num_parameters) == (64, 8256)
