"""Versions of libraries below which a model, a file or a template can run code, or a result is wrong."""

import importlib.metadata
import re
from collections.abc import Mapping

from finetune.errors import HardwareError

FLOORS: Mapping[str, tuple[str, str]] = {
    "torch": ("2.10", "older ones run code from files that are read as plain weights (CVE-2026-24747)"),
    "transformers": ("5.17", "older ones run code that a model folder names (CVE-2026-4372, CVE-2026-9856)"),
    "datasets": ("4.0", "older ones run scripts that come with a data set"),
    "jinja2": ("3.1.6", "older ones let a chat template out of its sandbox (CVE-2025-27516)"),
    "peft": ("0.18", "older ones do not fit this transformers"),
    "safetensors": ("0.5", "older ones do not fit this transformers"),
}
"""Library to its lowest version, and why; the bounds of the package say the same to an installer."""


def check_versions(floors: Mapping[str, tuple[str, str]] = FLOORS) -> None:
    """Compare what is installed with the floors; nothing is imported.

    Raises:
        HardwareError: a library is older, named with its reason.
    """
    old = []
    for name, (floor, reason) in floors.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # its import will say so
        if _numbers(version) < _numbers(floor):
            old.append(f"  {name} {version}: at least {floor}, because {reason}")
    if old:
        wanted = " ".join(f"'{name}>={floor}'" for name, (floor, _) in floors.items())
        raise HardwareError(
            "libraries here are too old to be safe:\n" + "\n".join(old) + f"\nInstall newer ones: pip install {wanted}"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """``2.13.0+cpu`` is (2, 13, 0); what follows the numbers does not count."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", version)[0]))
