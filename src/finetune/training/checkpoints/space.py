"""Room on the disk."""

from pathlib import Path


def explain_failure(target: Path, error: Exception) -> str:
    return f"{target} could not be saved: {error}"
