"""Matrix products of 8-bit floating point numbers through torchao (``pip install finetune[fp8]``)."""

import importlib.util
import re
from dataclasses import replace
from typing import Literal

import torch

from finetune.errors import HardwareError, ModelError

Recipe = Literal["rowwise", "tensorwise"]

CAPABILITY = (8, 9)
"""Lowest CUDA compute capability with the units for it: Ada (L4, L40S, RTX 4090); Hopper (H100) has 9.0."""
MULTIPLE_OF = 16
"""Both dimensions of a weight are multiples of this (``torch._scaled_mm``)."""

_INSTEAD = "use bf16: true without it"
_IN_A_LAYER = re.compile(r"\.\d+\.")


def require_fp8() -> None:
    """Check that this machine multiplies in 8-bit floats.

    Raises:
        HardwareError: it has no GPU for it, or no torchao.
    """
    if not torch.cuda.is_available():
        raise HardwareError(f"fp8 needs a CUDA device, and none is visible; {_INSTEAD}")
    refuse_capability(torch.cuda.get_device_name(), torch.cuda.get_device_capability())
    if importlib.util.find_spec("torchao") is None:
        raise HardwareError(f"fp8 needs torchao, which is not installed: pip install 'finetune[fp8]', or {_INSTEAD}")


def refuse_capability(device: str, capability: tuple[int, int]) -> None:
    """Raise HardwareError where ``device`` has no units for 8-bit floats."""
    if capability < CAPABILITY:
        needed, found = (".".join(map(str, version)) for version in (CAPABILITY, capability))
        raise HardwareError(
            f"fp8 needs a GPU of compute capability {needed} or above (Ada, Hopper and later), and {device} has "
            f"{found}; {_INSTEAD}"
        )


def multiply_in_fp8(network: torch.nn.Module, recipe: Recipe) -> int:
    """Let the linear layers inside the decoder's layers multiply in 8-bit floats, and return their number.

    Weights stay as they are held, under their names, so that nothing that is saved is another; each product rounds its
    two matrices anew (Micikevicius 2022).  ``rowwise`` has a scale for each token and each row of a weight: what a
    token gives does not depend on what else is in the batch.  ``tensorwise`` has one scale for the whole matrix:
    faster, and samples move each other by rounding.  Left out are the output layer, the matrices of LoRA, and layers
    with a dimension that is no multiple of 16.  Without CUDA torchao computes what a GPU would, slowly: for tests.

    Raises:
        ModelError: not one layer can.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training  # noqa: PLC0415 - an extra, and slow

    names = {name for name, module in network.named_modules() if _fits(name, module)}
    if not names:
        raise ModelError(
            f"fp8: no linear layer of this model has two dimensions that are multiples of {MULTIPLE_OF}; {_INSTEAD}"
        )
    config = replace(
        Float8LinearConfig.from_recipe_name(recipe),
        pad_inner_dim=True,  # the gradient of a weight is a product over the tokens, of which there are any number
        emulate=not torch.cuda.is_available(),
    )
    convert_to_float8_training(network, config=config, module_filter_fn=lambda _, name: name in names)
    return len(names)


def _fits(name: str, module: torch.nn.Module) -> bool:
    return (
        type(module) is torch.nn.Linear
        and _IN_A_LAYER.search(name) is not None
        and "lora_" not in name
        and module.in_features % MULTIPLE_OF == 0
        and module.out_features % MULTIPLE_OF == 0
    )
