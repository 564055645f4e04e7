"""What the user wrote: a flat YAML file in the Axolotl dialect, checked and typed.  Imports no torch."""

from finetune.config.load import load_config
from finetune.config.run import RunConfig

__all__ = ["RunConfig", "load_config"]
