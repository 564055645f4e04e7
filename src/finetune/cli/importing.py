"""Importing torch and what stands on it, a quarter faster."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Keep Python's garbage collector out of the imports in this block, and out of what they made ever after.

    The imports of a training run make some millions of objects and next to no garbage, through which the collector
    would go again and again: 1.1 s of 4.1 s.  :func:`gc.freeze` (its documentation has this use) then spares them the
    full collections that accelerate asks for before the first step.  Does nothing where transformers is imported
    already, so that objects of other work in this process stay collectable.
    """
    if "transformers" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
