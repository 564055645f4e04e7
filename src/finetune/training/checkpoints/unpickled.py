"""Reading a checkpoint runs no code that is in it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_FORBID = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextmanager
def weights_only() -> Iterator[None]:
    """Let ``torch.load`` read tensors and plain values alone, whatever its caller asks for.

    transformers asks for that itself.  DeepSpeed does not (``weights_only=False`` in its TorchCheckpointEngine), and
    needs the few types of its own that are allowed here.  A file with anything else raises ``pickle.UnpicklingError``.
    """
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORBID)}
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals(_deepspeed_types()):
            yield
    finally:
        del os.environ[_FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _deepspeed_types() -> list[Any]:
    return []
