"""``finetune merge-lora``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune.cli.options import config_command
from finetune.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.progress import Progress
    from transformers import PreTrainedTokenizerBase

    from finetune.config import RunConfig
    from finetune.model.merge import Merged, MergeRequest
    from finetune.model.merging.probe import HeldOut
    from finetune.model.merging.verify import Agreement

DTYPES = ("base", "float32", "bfloat16", "float16")


@config_command("merge-lora")
@click.option("--lora-model-dir", "adapter_dir", help="Folder of the adapter; default lora_model_dir, else output_dir.")
@click.option("--output", help="Folder for the merged model; default output_dir/merged.")
@click.option(
    "--into",
    type=click.Choice(["dequantized", "full"]),
    default="dequantized",
    help="Of a base trained in 4 or 8 bits: its dequantized weights, which the adapter knows, or the full-precision "
    "ones [dequantized].",
)
@click.option("--dtype", type=click.Choice(DTYPES), default="base", help="Format of the merged weights [base].")
@click.option("--no-verify", is_flag=True, help="Do not compare the result with base and adapter.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier merge in the output folder.")
@click.option("--debug", is_flag=True, help="Show tracebacks and the messages of libraries.")
def command(config: str, overrides: tuple[str, ...], debug: bool, no_verify: bool, **options: Any) -> None:
    """Merge the adapter that CONFIG trained into its base model, and check the result."""
    from finetune.config import load_config

    run_config = load_config(config, list(overrides))
    if not run_config.adapter.adapter:
        raise ConfigError("merge-lora: the configuration has no adapter, so there is nothing to merge")
    if options["into"] == "full" and not run_config.model.quantized:
        raise ConfigError("merge-lora: --into full has no effect: the base was not quantized; leave it out")

    from finetune.cli.console import open_console

    console = open_console(debug=debug)

    from finetune.exhausted import describe_exhausted, explained_memory
    from finetune.model.merge import merge_adapter

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    request = _request(run_config, **options)
    compared = None if no_verify else _held_out(run_config)
    with _bar(console) as bar, explained_memory(lambda: describe_exhausted("merging", _helpful(no_verify=no_verify))):
        task = bar.add_task("merging", total=None)
        merged = merge_adapter(
            request, compared, say, lambda done, total: bar.update(task, completed=done, total=total)
        )
    _report(merged, request, say)


def _held_out(config: "RunConfig") -> "Callable[[PreTrainedTokenizerBase], HeldOut]":
    from finetune.held_out import held_out_rows

    return held_out_rows(config)


def _helpful(*, no_verify: bool) -> list[str]:
    """Return what to change where memory runs out, the cheapest first: a merge streams, its verification does not."""
    skip = ["--no-verify  (the same files, which nobody has compared; the comparison holds whole models)"]
    return [*([] if no_verify else skip), "a machine with more memory"]


def _request(config: "RunConfig", **options: Any) -> "MergeRequest":
    import torch

    from finetune.model.merge import MergeRequest
    from finetune.model.precision import trained_dtype

    output_dir = config.training.output_dir
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return MergeRequest(
        model=config.model,
        adapter_dir=Path(options["adapter_dir"] or config.adapter.lora_model_dir or output_dir),
        folder=Path(options["output"] or Path(output_dir) / "merged"),
        compute_dtype=trained_dtype(config.training),
        into_full=options["into"] == "full",
        dtype=dtypes.get(options["dtype"]),
        overwrite=options["overwrite"],
    )


def _bar(console: "Console") -> "Progress":
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(None), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True)


def _report(merged: "Merged", request: "MergeRequest", say: "Callable[[str], None]") -> None:
    """Say what came out, and what it cost."""
    result = merged.verification
    if result is None:
        say("not verified: --no-verify was given; nobody has compared the result with base and adapter")
    else:
        say(f"verified on {result.num_rows} rows ({result.num_positions} positions): {result.source}")
        say(f"  merged against base + adapter: {_agreement(result.merged)}")
        say(
            f"  (bounds: {result.bound:.3g} and {result.mean_bound:.3g}; the adapter itself moves a logit by up to "
            f"{result.effect.max_difference:.3g}, {result.effect.mean_difference:.3g} on average)"
        )
    if result and result.full_precision:
        other = "this base" if request.into_full else "the full-precision base (--into full)"
        say(f"  what the adapter was trained on against {other}: {_agreement(result.full_precision)}")
    say(f"merged model: {merged.folder} ({merged.seconds:.1f} s)")


def _agreement(agreement: "Agreement") -> str:
    return (
        f"a logit differs by at most {agreement.max_difference:.3g}, {agreement.mean_difference:.3g} on average; "
        f"KL {agreement.kl:.2g}; same first choice at {agreement.top1:.1%} of the positions"
    )
