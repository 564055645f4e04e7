"""``finetune train``."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune.cli.accelerators import count_processors
from finetune.cli.evaluate import check_tasks, evaluate_after
from finetune.cli.failure import has_reader
from finetune.cli.hand_over import hand_over
from finetune.cli.launching import launch_options, plan_processes
from finetune.cli.options import LAUNCHER_ARGUMENTS, LaunchingCommand, config_command
from finetune.errors import ConfigError
from finetune.launch import LaunchOptions, inside_launcher, launch_command, launch_environment

if TYPE_CHECKING:
    from finetune.config import RunConfig


@config_command("train", LaunchingCommand)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in output_dir.")
@click.option("--replace", is_flag=True, help="Move another run in output_dir aside, then start anew.")
@click.option(
    "--allow-changed",
    is_flag=False,
    flag_value="all",
    metavar="[KEYS]",
    help="Resume although these keys (KEY,KEY) changed, or any key.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks and the messages of libraries.")
@launch_options
@click.pass_context
def command(
    context: click.Context, /, config: str, overrides: tuple[str, ...], replace: bool, debug: bool, **options: Any
) -> None:
    """Train a model as CONFIG (a YAML file) says.

    Every visible GPU takes part.  What follows -- goes to the launcher.
    """
    from finetune.config import load_config
    from finetune.config.changes import parse_allowed

    resume = options.pop("resume")
    if resume and replace:
        raise ConfigError("command line: --resume goes on with the run in output_dir, and --replace moves it aside")
    keys = [*overrides, *(["--auto_resume_from_checkpoints=true"] if resume else [])]
    allowed = parse_allowed(options.pop("allow_changed"))
    run_config = load_config(config, [*keys, *(["--debug=true"] if debug else [])])

    is_measured = bool(run_config.evaluation.lm_eval_tasks) and run_config.evaluation.lm_eval_post_train
    # who started the processes measures when all have ended; of several machines, the first
    measures = is_measured and not inside_launcher(os.environ) and not options["machine_rank"]
    if measures:
        check_tasks(run_config.evaluation.lm_eval_tasks)
    plan = plan_processes(LaunchOptions(**options, launcher_arguments=context.meta.get(LAUNCHER_ARGUMENTS, ())))
    if plan:
        changed = [f"--allow-changed={','.join(sorted(allowed))}"] if allowed else []
        words = [config, *keys, *(["--debug"] if debug else []), *(["--replace"] if replace else []), *changed]
        environment = launch_environment(plan, os.environ, count_processors())
        log_dir = None if run_config.training.debug else Path(run_config.training.output_dir)
        exit_code = hand_over(launch_command(plan, words), environment, log_dir=log_dir, meeting=plan.meeting)
        if exit_code:
            sys.exit(exit_code)
        if measures:
            _evaluate_and_publish(config, overrides, run_config)
        return

    from finetune.cli.terminal import open_terminal
    from finetune.processes import this_process
    from finetune.versions import check_versions

    check_versions()
    with open_terminal(this_process(), debug=run_config.training.debug) as terminal:
        from finetune.narration import Narrator
        from finetune.train import RunOptions, run

        is_last = not (measures or (is_measured and has_reader()))
        narrator = Narrator(terminal.console, terminal.keep_log)
        run(run_config, narrator, RunOptions(replace=replace, allowed=allowed, publishes=is_last))
        if is_measured and is_last:
            later = f"finetune evaluate {shlex.quote(config)}"
            narrator.say(f"lm_eval_tasks: not run by the processes of another launcher; run them with {later}")
    if measures:
        _evaluate_and_publish(config, overrides, run_config)


def _evaluate_and_publish(config: str, overrides: tuple[str, ...], run_config: "RunConfig") -> None:
    """Evaluate the result, then upload it with what was found; an evaluation that fails does not keep it back."""
    try:
        evaluate_after(config, overrides)
    finally:
        if run_config.card.hub_model_id:
            from finetune.publish import publish

            publish(run_config.card, Path(run_config.training.output_dir), click.echo)
