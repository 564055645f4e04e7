"""The proof finds a leak, and passes where there is none."""

from pathlib import Path

import pytest
import torch
from transformers import BitsAndBytesConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM

from finetune.errors import ModelError
from finetune.model.attention import Attention
from finetune.model.build import Hardware, TrainableModel
from finetune.model.precision import Precision
from finetune.model.stored import StoredFormat
from finetune.model.summary import summarize_parameters
from finetune.training.checks.isolation import check_isolation


def trainable(model: torch.nn.Module) -> TrainableModel:
    hardware = Hardware(Precision(torch.float32), Attention("sdpa", flatten=False))
    stored = StoredFormat(torch.float32, {})
    return TrainableModel(model, hardware, summarize_parameters(model), (), None, stored)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_with_restarting_positions_is_isolated(tiny_llama: Path, attention: str) -> None:
    said: list[str] = []
    model = LlamaForCausalLM.from_pretrained(tiny_llama, attn_implementation=attention)

    check_isolation(trainable(model), 200, said.append)

    assert said[0].startswith("check samples: side by side they are isolated (")
    assert model.training is False


class IgnoresPositions(LlamaForCausalLM):
    """A model like those that count positions by themselves."""

    def forward(self, position_ids: torch.Tensor, **inputs: object) -> object:
        del position_ids
        return super().forward(**inputs)


def test_a_model_that_ignores_positions_is_refused(tiny_llama: Path) -> None:
    model = IgnoresPositions.from_pretrained(tiny_llama)

    with pytest.raises(ModelError, match=r"side by side see each other .* Set attn_implementation: sdpa; if that"):
        check_isolation(trainable(model), 200, print)


def test_a_model_with_a_running_state_is_refused() -> None:
    torch.manual_seed(0)
    model = MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4))

    with pytest.raises(ModelError, match="samples side by side see each other"):
        check_isolation(trainable(model), 50, print)


@pytest.mark.parametrize("threshold", [0.5, 3.0])
def test_8_bit_products_that_share_a_scale_are_no_leak(tiny_llama: Path, threshold: float) -> None:
    quantization = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=threshold)
    model = LlamaForCausalLM.from_pretrained(tiny_llama, quantization_config=quantization, device_map={"": "cpu"})

    check_isolation(trainable(model), 200, print)
