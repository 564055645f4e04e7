"""4-bit layers train after an evaluation, as the same layers do that never saw one."""

import bitsandbytes as bnb
import pytest
import torch

from finetune.compat import keep_4bit_trainable_on_cpu
from finetune.errors import HardwareError


def layer() -> bnb.nn.Linear4bit:
    torch.manual_seed(0)
    made = bnb.nn.Linear4bit(
        128, 128, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", compress_statistics=True
    )
    return made.to("cpu")


def input_gradient(made: bnb.nn.Linear4bit) -> torch.Tensor:
    x = torch.randn(4, 128, generator=torch.Generator().manual_seed(1)).requires_grad_()
    made.train()(x).square().sum().backward()
    assert x.grad is not None
    return x.grad


def test_a_gradient_after_an_evaluation_is_the_gradient_before() -> None:
    """Says something on processors with AVX512-BF16 only; elsewhere the fault does not exist."""
    fresh, evaluated = layer(), layer()
    for made in (fresh, evaluated):
        keep_4bit_trainable_on_cpu(made)
    with torch.no_grad():
        evaluated.eval()(torch.randn(4, 128))

    assert torch.equal(input_gradient(evaluated), input_gradient(fresh))


def test_a_bitsandbytes_without_the_switch_is_refused() -> None:
    made = layer()
    del made.support_avx512bf16_for_cpu

    with pytest.raises(
        HardwareError, match=r"bitsandbytes \S+ is not known to train on a CPU; install bitsandbytes 0\.50\.2"
    ):
        keep_4bit_trainable_on_cpu(made)
