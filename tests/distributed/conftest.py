"""One small run on disk for the whole folder."""

from pathlib import Path

import pytest
from tests.distributed.runs import write_run


@pytest.fixture(scope="session")
def run_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("distributed"))
