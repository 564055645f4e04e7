"""Reading commands out of texts, and finding what is wrong with them."""

import re
import shlex
from collections.abc import Iterator

import click

from finetune.cli import COMMANDS, app
from finetune.cli.options import LaunchingCommand
from finetune.config.run import OWNERS

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")


def code_blocks(markdown: str, language: str | None = None) -> list[str]:
    """Return the fenced code blocks of a text, those of one language if it is named."""
    return [body for name, body in FENCE.findall(markdown) if language in (None, name)]


def commands_in(markdown: str) -> Iterator[str]:
    """Yield every ``finetune ...`` command in the code of a text: fenced, indented by four spaces, or inline."""
    prose = FENCE.sub("", markdown)
    indented = [line for line in prose.splitlines() if line.startswith("    ")]
    lines = [line for block in code_blocks(markdown) for line in block.splitlines()]
    for line in [*lines, *indented, *INLINE.findall(prose)]:
        text = line.strip().removeprefix("$ ").split("  #")[0]
        if text.startswith("finetune "):
            yield text


def command_faults(command: str) -> list[str]:
    """Return what is wrong with a command line: an unknown command, option or key."""
    _, *words = shlex.split(command, comments=True)
    names = [word for word in words if not word.startswith("-")]
    if not names:
        return [f"unknown option {word}" for word in words if word not in _options(app)]
    name, *rest = words
    if name not in COMMANDS:
        return [f"unknown command {name}"]
    found = app.get_command(click.Context(app), name)
    assert found is not None
    if isinstance(found, LaunchingCommand) and "--" in rest:
        rest = rest[: rest.index("--")]
    takes_keys = any(parameter.name == "overrides" for parameter in found.params)
    return [f"unknown option or key {word}" for word in rest if not _is_known(word, _options(found), takes_keys)]


def _options(command: click.Command) -> set[str]:
    options = {name for parameter in command.params for name in parameter.opts if name.startswith("-")}
    return options | {"-h", "--help"}


def _is_known(word: str, options: set[str], takes_keys: bool) -> bool:
    """Whether a word is an option, a key that can be changed, or a value."""
    name = word.partition("=")[0]
    if not word.startswith("-") and "=" not in word:
        return True
    key = re.split(r"[.\[]", name.lstrip("-"))[0].replace("-", "_")
    return name in options or (takes_keys and key in OWNERS)
