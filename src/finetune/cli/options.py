"""What the commands that take a configuration share."""

from collections.abc import Callable
from typing import Any

import click

OVERRIDES = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"]}
EPILOG = "Any key of the file can be changed here: --learning_rate 1e-4, or datasets[0].path=rows.jsonl."


LAUNCHER_ARGUMENTS = "finetune.launcher_arguments"
"""Under which key of a command's context the words after ``--`` lie."""


class LaunchingCommand(click.Command):
    """A command whose words after ``--`` are for a launcher; click alone would mix them with its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the launcher's words aside and parse the others; ``--num_processes`` is ``--num-processes``."""
        ctx.token_normalize_func = _dashed
        own = args[: args.index("--")] if "--" in args else args
        ctx.meta[LAUNCHER_ARGUMENTS] = tuple(args[len(own) + 1 :])
        return super().parse_args(ctx, own)


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def config_command(
    name: str, cls: type[click.Command] = click.Command
) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a command that takes CONFIG and overrides of its keys."""

    def declare(function: Callable[..., Any]) -> click.Command:
        command = click.command(name, cls=cls, context_settings=OVERRIDES, epilog=EPILOG)
        arguments = click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
        return command(click.argument("config")(arguments(function)))

    return declare
