"""Libraries with known holes are refused by their version, before they are imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import WriteConfig

from finetune.errors import HardwareError
from finetune.versions import FLOORS, check_versions


def test_what_is_installed_here_is_new_enough() -> None:
    check_versions()


def test_the_floors_are_at_least_those_of_the_known_holes() -> None:
    needed = {"torch": (2, 10), "transformers": (5, 10), "jinja2": (3, 1, 6), "datasets": (4, 0)}
    lower = [name for name, floor in needed.items() if tuple(map(int, FLOORS[name][0].split("."))) < floor]
    assert lower == []


def test_each_library_that_is_too_old_is_named_with_the_reason() -> None:
    with pytest.raises(HardwareError) as caught:
        check_versions({"numpy": ("999", "of this test"), "pyyaml": ("1.0", "none"), "no-such-library": ("1", "none")})

    lines = str(caught.value).splitlines()
    assert lines[0] == "libraries here are too old to be safe:"
    assert lines[1].startswith("  numpy ")
    assert lines[1].endswith(": at least 999, because of this test")
    assert lines[2].startswith("Install newer ones: pip install 'numpy>=999'")


@pytest.mark.parametrize(
    ("name", "version"), [("torch", "2.6.0+cu124"), ("jinja2", "3.1.5"), ("transformers", "5.2.0")]
)
def test_a_run_with_an_old_library_ends_with_5(
    tmp_path: Path, write_config: WriteConfig, name: str, version: str
) -> None:
    old = tmp_path / "site" / f"{name}-{version}.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    paths = os.pathsep.join([str(old.parent), os.environ.get("PYTHONPATH", "")])
    finished = subprocess.run(
        [sys.executable, "-m", "finetune", "train", write_config()],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""},
    )

    assert finished.returncode == 5, finished.stderr
    assert f"  {name} {version}: at least {FLOORS[name][0]}, because older ones" in finished.stderr
