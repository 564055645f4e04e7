"""Weights & Biases.  Tracking never stops a run: what fails is said once, and training goes on."""

import netrc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

import yaml
from transformers import TrainerCallback

from finetune.config.tracking import TrackingSection

Mode = Literal["online", "offline", "disabled", "shared"]


@contextmanager
def open_trackers(
    tracking: TrackingSection, output_dir: Path, config: str, say: Callable[[str], None]
) -> Iterator[list[TrainerCallback]]:
    """Yield the callbacks of the trackers that are asked for, and close them with the outcome."""
    if not tracking.wandb_project:
        yield []
        return
    from finetune.training.weights_and_biases import WandbCallback  # noqa: PLC0415 - not before it is asked for

    tracker = WandbCallback(tracking, output_dir, yaml.safe_load(config), say)
    exit_code = 1
    try:
        yield [tracker]
        exit_code = 0
    finally:
        tracker.finish(exit_code)


def tracking_mode(tracking: TrackingSection) -> Mode:
    """``wandb_mode``, else ``WANDB_MODE``, else online where a key is known and offline where none is.

    Without a key the client would ask for one at the terminal, and a run on a server would wait for an answer.
    """
    if tracking.wandb_mode:
        return tracking.wandb_mode
    mode = os.environ.get("WANDB_MODE")
    if mode in ("online", "offline", "disabled", "shared"):
        return cast("Mode", mode)
    return "online" if os.environ.get("WANDB_API_KEY") or _key_in_netrc() else "offline"


def _key_in_netrc() -> bool:
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
