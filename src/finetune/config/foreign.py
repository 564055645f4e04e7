"""Axolotl keys that this tool does not have: which are harmless to ignore, and what to use for the others."""

from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, TypeAdapter


class ForeignKey(BaseModel):
    """What is known of a key that is not ours."""

    effect: Literal["result", "hint", "secret"]
    """``result`` could change what is trained, ``hint`` only speed or logging, ``secret`` holds a credential."""
    advice: str
    """What to use instead, or why nothing is needed."""
    default: bool = False
    """What Axolotl takes when the key is absent, for a switch."""


def foreign_keys() -> dict[str, ForeignKey]:
    """Load the table ``axolotl_keys.yml``.  Only a file with a foreign key pays for this."""
    text = files("finetune.config").joinpath("axolotl_keys.yml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, ForeignKey]).validate_python(yaml.safe_load(text))
