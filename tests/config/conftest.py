"""What the tests of the configuration share: the faults of a file, as a list."""

from pathlib import Path

import pytest

from finetune.config import load_config
from finetune.errors import ConfigError


def faults(path: Path, *arguments: str) -> list[str]:
    """Return one ``place: message`` for each fault of the file at ``path``, which is called c.yml in them."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, list(arguments))
    return [line.strip().replace(str(path), "c.yml") for line in str(caught.value).splitlines()[1:]]
