"""The proof finds a leak, and passes where there is none."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, MambaConfig, MambaForCausalLM

from finetune.errors import HardwareError
from finetune.model.attention import Attention
from finetune.model.build import Hardware
from finetune.model.precision import Precision
from finetune.training.isolation import check_isolation

HARDWARE = Hardware(Precision(torch.float32), Attention("sdpa", flatten=False))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_with_restarting_positions_is_isolated(tiny_llama: Path, attention: str) -> None:
    said: list[str] = []
    model = LlamaForCausalLM.from_pretrained(tiny_llama, attn_implementation=attention)

    check_isolation(model, HARDWARE, 200, said.append)

    assert said[0].startswith("packing: samples are isolated on this model")
    assert model.training is False


class IgnoresPositions(LlamaForCausalLM):
    """A model like those that count positions by themselves."""

    def forward(self, position_ids: torch.Tensor, **inputs: object) -> object:
        del position_ids
        return super().forward(**inputs)


def test_a_model_that_ignores_positions_is_refused(tiny_llama: Path) -> None:
    model = IgnoresPositions.from_pretrained(tiny_llama)

    with pytest.raises(HardwareError, match=r"packed samples see each other .* Set sample_packing: false"):
        check_isolation(model, HARDWARE, 200, print)


def test_a_model_with_a_running_state_is_refused() -> None:
    torch.manual_seed(0)
    model = MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4))

    with pytest.raises(HardwareError, match="packed samples see each other"):
        check_isolation(model, HARDWARE, 50, print)
