"""``finetune merge-lora``."""

from pathlib import Path

import click

from finetune.cli.options import config_command
from finetune.errors import ConfigError


@config_command("merge-lora")
@click.option("--lora-model-dir", "adapter_dir", help="Folder of the adapter; default lora_model_dir, else output_dir.")
@click.option("--output", help="Folder for the merged model; default output_dir/merged.")
@click.option("--debug", is_flag=True, help="Show tracebacks and the messages of libraries.")
def command(config: str, overrides: tuple[str, ...], adapter_dir: str | None, output: str | None, debug: bool) -> None:
    """Merge the adapter that CONFIG trained into its full-precision base model."""
    from finetune.config import load_config

    run_config = load_config(config, list(overrides))

    from finetune.cli.console import open_console

    console = open_console(debug=debug)

    from finetune.model.merge import merge_adapter

    if not run_config.adapter.adapter:
        raise ConfigError("merge-lora: the configuration has no adapter, so there is nothing to merge")
    output_dir = run_config.training.output_dir
    folder = Path(output or Path(output_dir) / "merged")
    merge_adapter(run_config.model, adapter_dir or run_config.adapter.lora_model_dir or output_dir, folder)
    console.print(f"merged model: {folder}", highlight=False)
