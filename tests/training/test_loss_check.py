"""The loss of the output layer is compared with the model's own before it is used."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedModel

from finetune.model.attention import Attention
from finetune.model.build import Hardware, TrainableModel
from finetune.model.head import attach_head
from finetune.model.precision import Precision
from finetune.model.stored import StoredFormat
from finetune.model.summary import summarize_parameters
from finetune.training.loss_check import check_loss


def trainable(model: PreTrainedModel) -> TrainableModel:
    hardware = Hardware(Precision(torch.float32), Attention("sdpa", flatten=False))
    stored = StoredFormat(torch.float32, {})
    return TrainableModel(model, hardware, summarize_parameters(model), (), None, stored, attach_head(model))


def test_a_plain_model_is_found_right_without_a_word(tiny_llama: Path) -> None:
    said: list[str] = []
    candidate = trainable(LlamaForCausalLM.from_pretrained(tiny_llama).train())

    check_loss(candidate, said.append)

    assert said == []
    assert candidate.head.proven
    assert candidate.model.training


class Halved(LlamaForCausalLM):
    """A model that does something with its logits that nothing in its config names."""

    def forward(self, **inputs: object) -> object:
        outputs = super().forward(**inputs)
        outputs.logits = outputs.logits / 2
        outputs.loss = None if outputs.loss is None else outputs.loss / 2
        return outputs


def router() -> PreTrainedModel:
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
        output_router_logits=True,
        router_aux_loss_coef=0.5,
    )
    return MixtralForCausalLM(config)


@pytest.mark.parametrize("other", ["logits", "router"])
def test_a_model_that_adds_something_keeps_its_own_loss_and_it_is_said(tiny_llama: Path, other: str) -> None:
    said: list[str] = []
    candidate = trainable(Halved.from_pretrained(tiny_llama) if other == "logits" else router())

    check_loss(candidate, said.append)

    assert not candidate.head.proven
    assert said[0].startswith("loss: this model's own differs from the cross entropy of its output layer (by ")
    assert said[0].endswith("so it is made from full logits, as the model makes it")
