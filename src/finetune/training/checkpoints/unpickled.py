"""Reading a checkpoint runs no code that is in it."""

import importlib
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from finetune.errors import CheckpointError

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_FORBID = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextmanager
def weights_only(*, deepspeed: bool = False) -> Iterator[None]:
    """Let ``torch.load`` read tensors and plain values alone, whatever its caller asks for.

    transformers asks for that itself.  DeepSpeed does not (its TorchCheckpointEngine says ``weights_only=False``), and
    needs the few types of its own that are allowed with ``deepspeed``.

    Raises:
        CheckpointError: a file holds something else.
    """
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORBID)}
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals(_deepspeed_types() if deepspeed else []):
            yield
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "a file of the checkpoint holds more than tensors and plain values, and is not read, because that could "
            f"run code ({_reason(error)}). Go on from a checkpoint that you trust"
        ) from error
    finally:
        del os.environ[_FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _deepspeed_types() -> list[Any]:
    """What DeepSpeed pickles beside tensors: where a parameter lies in a flat one, its stage, its loss scale."""
    fragments, zero, scale = (
        importlib.import_module(f"deepspeed.{name}")
        for name in ("utils.tensor_fragment", "runtime.zero.config", "runtime.fp16.loss_scaler")
    )
    scalers = [part for part in vars(scale).values() if isinstance(part, type) and part.__module__ == scale.__name__]
    return [fragments.fragment_address, zero.ZeroStageEnum, *scalers]


def _reason(error: Exception) -> str:
    """The line of torch's long text that names what was found."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), lines[0])[:200]
