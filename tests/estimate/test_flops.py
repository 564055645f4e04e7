"""Floating point operations, against published counts and against torch's own counter."""

from pathlib import Path

import pytest
import torch
from tests.tiny import save_tiny_llama
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from finetune.estimate.architecture import read_architecture
from finetune.estimate.flops import MatmulShape, Trained, attended_length, everything, flops_per_token, matmul_shape

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
LORA = Trained(adapter_parameters=41_943_040)


@pytest.fixture
def llama_8b() -> MatmulShape:
    return matmul_shape(read_architecture(LLAMA_8B, "llama"))


def test_the_matrices_of_llama_8b_have_7_5_billion_parameters(llama_8b: MatmulShape) -> None:
    assert llama_8b.layer_parameters + llama_8b.head_parameters == 7_504_658_432


@pytest.mark.parametrize(
    ("attended", "checkpointing", "lora", "gigaflops"),
    [(4096, False, True, 33.5), (4096, True, True, 48.6), (4096, False, False, 48.3), (4096, True, False, 63.3)],
)
def test_the_work_of_llama_8b(
    llama_8b: MatmulShape, attended: int, checkpointing: bool, lora: bool, gigaflops: float
) -> None:
    trained = LORA if lora else everything(llama_8b)
    flops = flops_per_token(llama_8b, attended, trained, gradient_checkpointing=checkpointing)
    assert flops / 1e9 == pytest.approx(gigaflops, abs=0.1)


def test_torch_counts_the_same_matrix_products(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_tiny_llama(tmp_path), attn_implementation="eager")
    shape = matmul_shape(read_architecture(model.config.to_dict(), "tiny"))
    ids = torch.randint(0, 300, (2, 64))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    # eager attention multiplies the masked half too, so that a token sees the whole length: twice the causal count
    expected = ids.numel() * flops_per_token(shape, 2 * 64, everything(shape))
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


def test_the_backward_pass_ends_at_the_lowest_trained_layer(llama_8b: MatmulShape) -> None:
    top = flops_per_token(llama_8b, 0, Trained(matmul_parameters=0, first_layer=31))
    forward = 2 * (llama_8b.layer_parameters + llama_8b.head_parameters)
    assert top == forward + 2 * llama_8b.head_parameters + 2 * llama_8b.layer_parameters / 32


def test_tokens_without_logits_spare_the_head(llama_8b: MatmulShape) -> None:
    whole = flops_per_token(llama_8b, 0, LORA)
    half = flops_per_token(llama_8b, 0, LORA, head_share=0.5)
    assert whole - half == 2 * llama_8b.head_parameters


def test_a_window_bounds_what_attention_sees() -> None:
    shape = matmul_shape(read_architecture({**LLAMA_8B, "model_type": "mistral", "sliding_window": 1024}, "m"))
    assert flops_per_token(shape, 4096, LORA) == flops_per_token(shape, 1024, LORA)


def test_packed_samples_count_by_themselves() -> None:
    assert attended_length([4, 4, 8]) == (16 + 16 + 64) / 16
    assert attended_length([]) == 0
