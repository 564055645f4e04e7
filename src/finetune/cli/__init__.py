"""The ``finetune`` command.  The only place that prints errors and sets exit codes.

Each command is a module that is imported when it is called, so that ``--help`` loads nothing heavy.
"""

import importlib
import io
import os
import sys
import traceback
from types import TracebackType
from typing import NoReturn

import click

from finetune import __version__
from finetune.attempt.outcome import lost_peer
from finetune.cli.console import DEBUG
from finetune.cli.failure import tell_failure
from finetune.cli.leaving import leaving_at_once
from finetune.errors import FinetuneError, nearest

COMMANDS = {
    "train": ("finetune.cli.train", "Train a model as a YAML file says."),
    "preprocess": ("finetune.cli.preprocess", "Tokenize the data and report what was kept, cut and masked."),
    "validate": ("finetune.cli.validate", "Check a YAML file and print it with every default."),
    "estimate": ("finetune.cli.estimate", "Tell the memory that a run needs, and what makes it fit."),
    "evaluate": ("finetune.cli.evaluate", "Measure loss and benchmark tasks, and compare with the base."),
    "card": ("finetune.cli.card", "Write the model card of a run anew from what it recorded."),
    "verify-resume": ("finetune.cli.verify_resume", "Show that a killed run goes on as if nothing had happened."),
    "merge-lora": ("finetune.cli.merge_lora", "Merge a trained adapter into its base model."),
    "chat": ("finetune.cli.chat", "Talk to a model as it was trained to be asked."),
    "push": ("finetune.cli.push", "Upload a result and its card to the hub."),
    "keys": ("finetune.cli.keys", "Explain the keys of the YAML file."),
}

ALIASES = {"inference": "chat"}
"""Further names of commands, which help does not list."""


class LazyGroup(click.Group):
    """Commands by name, their modules imported on call."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            ctx.fail(f"No such command '{cmd_name}'.{nearest(cmd_name, COMMANDS)}")
        command = vars(importlib.import_module(COMMANDS[cmd_name][0]))["command"]
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, so that help imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="finetune")
def app() -> None:
    """Fine-tune a language model from one YAML file."""


def command(*words: str) -> None:
    """Be the command ``words`` and what follows on this process's command line, and end the process with it."""
    with leaving_at_once():
        main([*words, *sys.argv[1:]])


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the code that fits the outcome (see :mod:`finetune.errors`)."""
    words = sys.argv[1:] if arguments is None else arguments
    sys.excepthook = _tell_unexpected
    try:
        app.main(args=words, prog_name="finetune", standalone_mode=False)
    except FinetuneError as error:
        _fail(error, words)
    except click.ClickException as error:
        tell_failure(_shown(error), 2)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        tell_failure("finetune: interrupted", 130)
        sys.exit(130)
    except RuntimeError as error:
        lost = lost_peer(error)
        if lost is None:
            raise
        _fail(lost, words)


def _fail(error: FinetuneError, words: list[str]) -> NoReturn:
    debug = "--debug" in words or os.environ.get(DEBUG)
    tell_failure(f"{traceback.format_exc() if debug else ''}finetune: {error}", error.exit_code)
    sys.exit(error.exit_code)


def _shown(error: click.ClickException) -> str:
    """Return what click prints for ``error``: the usage, and what is wrong."""
    text = io.StringIO()
    error.show(file=text)
    return text.getvalue()


def _tell_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Let a traceback through once: mostly all processes fail alike."""
    tell_failure("".join(traceback.format_exception(kind, error, trace)), 1)
