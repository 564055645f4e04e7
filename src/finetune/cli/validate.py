"""``finetune validate``."""

import click

from finetune.cli.options import config_command


@config_command("validate")
def command(config: str, overrides: tuple[str, ...]) -> None:
    """Check CONFIG and print it resolved, every default filled in.  Loads no model and no data."""
    from finetune.config import load_config

    checked = load_config(config, list(overrides))
    for note in checked.source.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(checked.render())
