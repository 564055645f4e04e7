"""What the processor says about itself."""

import torch

from finetune.model.processor import cpu_has_bf16


def test_the_answer_is_that_of_torch() -> None:
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        assert cpu_has_bf16()
