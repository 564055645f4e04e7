"""Faults of other packages that are worked around here, each guarded by what it needs and loud when that is gone."""

import importlib.metadata

import bitsandbytes as bnb
import torch

from finetune.errors import HardwareError

_INFERENCE_PACKING = "support_avx512bf16_for_cpu"


def keep_4bit_trainable_on_cpu(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for inference.

    On processors with AVX512-BF16, ``Linear4bit`` (0.50.2) repacks its weights in the first forward pass in
    evaluation mode and never unpacks them.  Training passes that follow take a product without a backward pass: the
    gradient through every such layer is lost, with no error.  One evaluation before the last step is enough.

    Raises:
        HardwareError: this bitsandbytes has no such switch, so that nobody knows whether it trains here.
    """
    layers = [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    for layer in layers:
        if layer.weight.device.type != "cpu":
            continue
        if _INFERENCE_PACKING not in vars(layer):
            raise HardwareError(
                f"load_in_4bit: bitsandbytes {importlib.metadata.version('bitsandbytes')} is not known to train on "
                "a CPU; install bitsandbytes 0.50.2, or train on a GPU"
            )
        setattr(layer, _INFERENCE_PACKING, False)
