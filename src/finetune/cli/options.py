"""What the commands that take a configuration share."""

from collections.abc import Callable
from typing import Any

import click

OVERRIDES = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"]}
EPILOG = "Any key of the file can be changed here: --learning_rate 1e-4, or datasets[0].path=rows.jsonl."


def config_command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a command that takes CONFIG and overrides of its keys."""

    def declare(function: Callable[..., Any]) -> click.Command:
        command = click.command(name, context_settings=OVERRIDES, epilog=EPILOG)
        arguments = click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
        return command(click.argument("config")(arguments(function)))

    return declare
