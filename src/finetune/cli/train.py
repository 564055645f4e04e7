"""``finetune train``."""

import click

from finetune.cli.options import config_command
from finetune.errors import ConfigError


@config_command("train")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in output_dir.")
@click.option("--replace", is_flag=True, help="Move another run in output_dir aside, then start anew.")
@click.option("--debug", is_flag=True, help="Show tracebacks and the messages of libraries.")
def command(config: str, overrides: tuple[str, ...], resume: bool, replace: bool, debug: bool) -> None:
    """Train a model as CONFIG (a YAML file) says."""
    from finetune.config import load_config

    if resume and replace:
        raise ConfigError("command line: --resume goes on with the run in output_dir, and --replace moves it aside")
    switches = [*(["--auto_resume_from_checkpoints=true"] if resume else []), *(["--debug=true"] if debug else [])]
    run_config = load_config(config, [*overrides, *switches])

    from finetune.cli.console import open_console

    console = open_console(debug=run_config.training.debug)

    from finetune.narration import Narrator
    from finetune.train import run

    run(run_config, Narrator(console), replace=replace)
