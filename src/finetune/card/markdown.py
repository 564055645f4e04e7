"""Texts that others chose, made safe to stand in Markdown: they stay text and start nothing."""

import re
from collections.abc import Sequence

from markupsafe import Markup

from finetune.card.redact import redact


def one_line(text: str) -> str:
    """Redact ``text`` and fold it to one line of printable characters."""
    return "".join(character for character in " ".join(redact(text).split()) if character.isprintable())


def inline(text: str) -> Markup:
    """Escape ``text`` for a running line: no HTML, no link, no emphasis, no table cell comes of it."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~$])", r"\\\1", text)
    # an underscore between letters is plain text to Markdown, and model names are full of them
    return Markup(re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text))  # noqa: S704 escaped above


def code(text: str) -> Markup:
    """Return ``text`` as a code span whose backticks are more than any inside."""
    text = one_line(text)
    ticks = "`" * (_longest_run_of_backticks(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return Markup(f"{ticks}{pad}{text}{pad}{ticks}")  # noqa: S704 a code span shows its text as it is


def fenced(text: str, language: str = "text") -> Markup:
    """Return ``text``, redacted and otherwise as written, in a fence that is longer than any fence inside."""
    text = redact(text)
    fence = "`" * max(3, _longest_run_of_backticks(text) + 1)
    end = "" if text.endswith("\n") else "\n"
    return Markup(f"{fence}{language}\n{text}{end}{fence}")  # noqa: S704 a fence shows its text as it is


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with centred columns, padded to the widest cell as the HF model card does."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    rule = "|".join(f":{'-' * width}:" for width in widths)
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])


def number(value: float | None) -> str:
    """Write a number as the HF model card does: at most four decimals, shorter ones as they are.

    Where four decimals would leave nothing of it the number keeps four digits: ``1.234e-05``.
    """
    if not isinstance(value, float):
        return str(value)
    _, _, decimals = str(value).partition(".")
    if len(decimals) <= 4:
        return str(value)
    return f"{value:.4f}" if abs(value) >= 5e-5 else f"{value:.4g}"


def listing(names: Sequence[str]) -> str:
    """Join names as a sentence does: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _longest_run_of_backticks(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
