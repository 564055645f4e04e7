"""``finetune estimate``."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finetune.cli.options import config_command
from finetune.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.estimate.devices import Device
    from finetune.estimate.memory import Estimate
    from finetune.estimate.remedies import Remedy
    from finetune.estimate.setup import Setup


@config_command("estimate")
@click.option("--device", metavar="NAME", help='A GPU by its name, such as "H100 80GB" [the one here].')
@click.option("--memory", metavar="SIZE", help="A GPU by the size of its memory, such as 24GB.")
@click.option("--num-processes", type=click.IntRange(min=1), default=1, help="On all machines together [1].")
def command(
    config: str, overrides: tuple[str, ...], device: str | None, memory: str | None, num_processes: int
) -> None:
    """Tell how much memory CONFIG needs on each device.

    Reads config.json and the headers of the weights, or config.json alone where there are no weights yet.  Exits with
    5 where the run does not fit, after naming what would make it fit.
    """
    from finetune.config import load_config
    from finetune.estimate.ask import setup_of
    from finetune.estimate.auto import asks, settle
    from finetune.estimate.memory import estimate
    from finetune.estimate.remedies import find_remedies
    from finetune.training.deepspeed import load_deepspeed

    checked = load_config(config, list(overrides))
    found = load_deepspeed(checked.distributed, Path(checked.source.file))
    settings = found[1] if found else None
    setup = setup_of(checked, settings, num_processes, _device(device, memory))
    if asks(setup.training):
        settled = settle(setup, {})
        setup = replace(setup, training=settled.training)
        for note in settled.notes:
            click.echo(note)
    needed = estimate(setup)
    _show(setup, needed)
    if needed.peak > setup.device.usable_bytes:
        _show_remedies(find_remedies(setup), setup)
        raise SystemExit(5)


def _device(name: str | None, memory: str | None) -> "Device | None":
    from finetune.estimate.devices import named_gpu, sized_gpu

    if name and memory:
        raise ConfigError("command line: --device and --memory exclude each other")
    return named_gpu(name) if name else sized_gpu(memory) if memory else None


def _show(setup: "Setup", needed: "Estimate") -> None:
    """Print the table, the peak, and whether it fits."""
    from rich.console import Console
    from rich.table import Table

    processes = f", {setup.num_processes} processes" if setup.num_processes > 1 else ""
    click.echo(f"{setup.base.name}: {needed.num_parameters:,} parameters, {needed.num_trained:,} of them trained")
    table = Table(box=None, pad_edge=False)
    table.add_column(f"memory of each device{processes}")
    table.add_column("GiB", justify="right")
    on_host = any(part.host for part in needed.parts)
    if on_host:
        table.add_column("host, GiB", justify="right")
    table.add_column("")
    for part in needed.parts:
        host = [_gib(part.host) if part.host else ""] if on_host else []
        table.add_row(part.name, _gib(part.device) if part.device or not part.host else "", *host, part.note)
    Console(width=100, highlight=False).print(table)
    click.echo(f"peak: {_gib(needed.peak)} GiB, at {needed.peak_at} (these parts are not all there at one time)")
    if needed.host:
        click.echo(f"memory of the machine: {_gib(needed.host * setup.num_processes)} GiB for all processes")
    for note in needed.notes:
        click.echo(f"note: {note}")
    click.echo(_verdict(setup, needed))


def _verdict(setup: "Setup", needed: "Estimate") -> str:
    device = setup.device
    room = f"{_gib(device.usable_bytes)} of its {_gib(device.num_bytes)} GiB may be used"
    if needed.peak <= device.usable_bytes:
        return f"fits: {device.name}, {needed.peak / device.num_bytes:.0%} of it ({room})"
    return f"does not fit: {device.name} ({room})"


def _show_remedies(remedies: "Sequence[Remedy]", setup: "Setup") -> None:
    """Print what would make it fit: alternatives, or changes to be made together."""
    if not remedies:
        click.echo("nothing that the estimate knows would make it smaller")
        return
    together = not remedies[0].fits
    click.echo("to make it fit, all of these:" if together else "to make it fit, one of these, the cheapest first:")
    for remedy in remedies:
        sign = "+" if together else "-"
        click.echo(f"  {sign} {remedy.change}   -> {_gib(remedy.needed.peak)} GiB ({remedy.costs})")
    if not remedies[-1].fits:
        click.echo(f"and even then it does not fit {setup.device.name}")


def _gib(num_bytes: int) -> str:
    gib = num_bytes / 2**30
    return f"{gib:.2f}" if gib < 100 else f"{gib:.1f}"
