"""Importing torch and what stands on it, a third faster."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from finetune.config import RunConfig

BYSTANDERS = ("datasets", "scipy")
"""What transformers imports with the Trainer where it is installed, for batches and losses that no run has."""

PLAIN_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")
"""Those that bitsandbytes has no part in."""


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Keep Python's garbage collector out of the imports in this block, and out of what they made ever after.

    The imports of a training run make some millions of objects and next to no garbage, through which the collector
    would go again and again: 1.1 s of 4.1 s.  :func:`gc.freeze` (its documentation has this use) then spares them the
    full collections that accelerate asks for before the first step.  BYSTANDERS (0.3 s) are left out as well, and can
    be imported afterwards.  Does nothing where transformers is imported already, so that objects of other work in this
    process stay collectable.
    """
    if "transformers" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        with without(*BYSTANDERS):
            yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Let ``packages`` look as if they were not installed, to whoever asks in this block.

    None in :data:`sys.modules` is Python's own word for that.  Libraries remember the answer, so this is for a process
    that does one thing.  What is imported already stays; nothing is hidden where transformers is, which may have asked.
    """
    modules = cast(dict[str, ModuleType | None], sys.modules)
    hidden = [] if "transformers" in modules else [name for name in packages if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]


def unused_packages(config: "RunConfig") -> tuple[str, ...]:
    """Return what peft and accelerate would import because it is installed, and this run makes no use of.

    bitsandbytes takes 0.5 s, the compiler of torch that it imports included, and DeepSpeed 0.1 s; torchao prints which
    of its libraries do not fit the machine.
    """
    quantizes = config.model.quantized or config.training.optimizer not in PLAIN_OPTIMIZERS
    is_used = {
        "bitsandbytes": quantizes,
        "deepspeed": bool(config.distributed.deepspeed),
        "torchao": bool(config.training.fp8),
    }
    return tuple(name for name, used in is_used.items() if not used)
