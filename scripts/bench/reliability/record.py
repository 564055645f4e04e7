"""What a row of the matrix says when it has been run."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One row of the matrix; it holds when each of the ``tried`` cases passed."""

    row: str
    """Its number, such as ``A3``."""
    what: str
    tried: int
    passed: int
    details: str = ""
    """What was seen, and of a failure which case it was and what was said."""
    stock: str = ""
    """What the stock HF Trainer did with the same; empty where that makes no sense."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Numbers for the scorecard, by name."""
    missing: str = ""
    """Why this cannot be shown, or has not been, on this machine."""

    @property
    def failed(self) -> bool:
        return self.passed < self.tried


def not_shown(row: str, what: str, why: str) -> Row:
    """Return the row of something that cannot be shown here."""
    return Row(row, what, 0, 0, missing=why)


def listed(failures: list[str], most: int = 3) -> str:
    """Put the first failures into words for a cell of a table; an empty string for none."""
    more = f" … and {len(failures) - most} more" if len(failures) > most else ""
    return "; ".join(f"FAILED {failure}" for failure in failures[:most]) + more


def joined(*parts: str) -> str:
    """Join what there is to say."""
    return "; ".join(part for part in parts if part)
