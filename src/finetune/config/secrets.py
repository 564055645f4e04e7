"""Values that look like credentials, which belong in the environment and not in a file."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from finetune.config.document import Fault, KeyPath

_SHAPES = {
    "Hugging Face token": (r"\bhf_(?:oauth_)?[A-Za-z0-9]{30,}", "set HF_TOKEN in the environment instead"),
    "W&B key": (r"\bwandb_v1_\w{16,}", "set WANDB_API_KEY in the environment instead"),
    "GitHub token": (r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}", "take it out"),
    "GitLab token": (r"\bglpat-[\w-]{16,}", "take it out"),
    "AWS key": (r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", "set AWS_ACCESS_KEY_ID in the environment instead"),
    "API key": (r"\bsk-(?:proj-|ant-)?[A-Za-z0-9]{20,}", "take it out"),
    "Slack token": (r"\bxox[abeprs]-[\w-]{10,}", "take it out"),
    "private key": (r"-----BEGIN [A-Z ]*PRIVATE KEY-----", "take it out"),
}
"""Kind of a credential: how it looks, and what to do instead.  Each is also known to finetune.card.redact."""


def find_secret(text: str) -> str | None:
    """Say what a text seems to hold, and what to do instead; None for a text without a credential."""
    for kind, (shape, advice) in _SHAPES.items():
        if re.search(shape, text):
            return f"looks like a {kind}, and what is in it is published with the result; {advice}"
    return None


def secret_values(value: Any, path: KeyPath = ()) -> Iterator[Fault]:
    """Yield a fault for each text in ``value``, down into it, that looks like a credential; it is not quoted."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from secret_values(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from secret_values(item, (*path, index))
    elif isinstance(value, str) and (secret := find_secret(value)):
        yield Fault(path, f"{'.'.join(map(str, path))}: {secret}")
