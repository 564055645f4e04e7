"""The terminal, and the noise that libraries make on it."""

import logging
import os
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

DEBUG = "FINETUNE_DEBUG"
"""Environment variable that says that tracebacks are wanted."""

LIBRARIES = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "DeepSpeed",
    "huggingface_hub",
    "lm_eval",
    "peft",
    "torch",
    "transformers",
)
"""Names of the loggers of heavy libraries."""


def open_console(*, debug: bool) -> "Console":
    """Return the console that a command talks to, with libraries quiet unless ``debug``.

    To be called before a heavy library is imported: several read their settings on import, and one that is too old is
    refused here.
    """
    from rich.console import Console

    from finetune.versions import check_versions

    check_versions()
    if debug:
        os.environ[DEBUG] = "1"
    else:
        quiet_libraries()
    return Console(soft_wrap=True)


def quiet_libraries() -> None:
    """Keep warnings that say nothing to a user off the terminal; errors still come through."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    warnings.simplefilter("ignore")
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        # DeepSpeed sets its own level when it is imported; a filter outlives that
        logger.addFilter(lambda record: record.levelno >= logging.ERROR)
