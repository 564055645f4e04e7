"""``finetune keys``."""

import json

import click

from finetune.errors import ConfigError, nearest


@click.command("keys")
@click.argument("name", required=False)
@click.option("--json-schema", "as_schema", is_flag=True, help="Print the JSON schema of the YAML file, for editors.")
def command(name: str | None, as_schema: bool) -> None:
    """Explain the keys of the YAML file, or the one called NAME."""
    from finetune.config.reference import json_schema, key_references

    if as_schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    references = key_references()
    if name is None:
        section = ""
        for reference in references:
            if reference.section != section:
                section = reference.section
                click.echo(f"\n{section}")
            click.echo(f"  {reference.name:<34} {reference.documentation}")
        return
    found = [reference for reference in references if name in (reference.name, reference.name.rsplit(".", 1)[-1])]
    if not found:
        raise ConfigError(f"there is no key '{name}'.{nearest(name, [reference.name for reference in references])}")
    for reference in found:
        click.echo(f"{reference.name}: {reference.documentation}")
        click.echo(f"  type     {reference.type}\n  default  {reference.default}")
        if reference.unit:
            click.echo(f"  unit     {reference.unit}")
        click.echo(f"  affects  {reference.affects}")
