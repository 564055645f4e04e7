"""``finetune train``."""

import os
import shlex
import sys
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune.attempt.attempt import ATTEMPT, Attempt
from finetune.cli.accelerators import count_processors
from finetune.cli.evaluate import check_tasks, evaluate_after
from finetune.cli.failure import has_reader, tell_failure
from finetune.cli.hand_over import hand_over
from finetune.cli.importing import heavy_imports, unused_packages, without
from finetune.cli.launching import launch_options, plan_processes
from finetune.cli.options import LAUNCHER_ARGUMENTS, LaunchingCommand, config_command
from finetune.cli.orphans import end_with_parent, wait_for_orphans
from finetune.errors import ConfigError, LaunchError
from finetune.launch import LaunchOptions, LaunchPlan, inside_launcher, launch_command, launch_environment
from finetune.processes import this_process

if TYPE_CHECKING:
    from finetune.config import RunConfig

ORPHANS_S = 60
"""How long a run whose launcher was killed may take to save what it has."""


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
@click.option("--skip-checks", is_flag=True, help="Do not prove at the start what the run relies on.")
@click.option("--debug", is_flag=True, help="Show tracebacks and the messages of libraries.")
@launch_options
@click.pass_context
def command(
    context: click.Context, /, config: str, overrides: tuple[str, ...], replace: bool, debug: bool, **options: Any
) -> None:
    """Train a model as CONFIG (a YAML file) says.

    Every visible GPU takes part.  What follows -- goes to the launcher.
    """
    resume = options.pop("resume")
    if resume and replace:
        raise ConfigError("command line: --resume goes on with the run in output_dir, and --replace moves it aside")
    keys = [*overrides, *(["--auto_resume_from_checkpoints=true"] if resume else [])]
    skips = ["--skip-checks"] if options.pop("skip_checks") else []
    settings = [*(["--debug=true"] if debug else []), *(["--skip_checks=true"] if skips else [])]
    with Attempt(tell_failure) as attempt:
        from finetune.config import load_config
        from finetune.config.changes import parse_allowed

        allowed = parse_allowed(options.pop("allow_changed"))
        run_config = load_config(config, [*keys, *settings])
        attempt.belong(run_config.training)
        is_measured = bool(run_config.evaluation.lm_eval_tasks) and run_config.evaluation.lm_eval_post_train
        # who started the processes measures when all have ended; of several machines, the first
        measures = is_measured and not inside_launcher(os.environ) and not options["machine_rank"]
        if measures:
            check_tasks(run_config.evaluation.lm_eval_tasks)
        plan = plan_processes(LaunchOptions(**options, launcher_arguments=context.meta.get(LAUNCHER_ARGUMENTS, ())))
        if plan:
            changed = [f"--allow-changed={','.join(sorted(allowed))}"] if allowed else []
            flags = [*(["--debug"] if debug else []), *(["--replace"] if replace else [])]
            words = [config, *keys, *skips, *flags, *changed]
            _launch(plan, words, run_config, attempt)
        else:
            _train_here(run_config, attempt, allowed, replace=replace, measured_later=measures)
    if measures:
        _evaluate_and_publish(config, overrides, run_config)


def _launch(plan: LaunchPlan, words: Sequence[str], run_config: "RunConfig", attempt: Attempt) -> None:
    """Let a launcher start the processes, and end as they ended; run.json says the same."""
    output_dir = Path(run_config.training.output_dir)
    environment = {**launch_environment(plan, os.environ, count_processors()), ATTEMPT: attempt.id}
    log_dir = None if run_config.training.debug else output_dir
    try:
        exit_code = hand_over(launch_command(plan, words), environment, log_dir=log_dir, meeting=plan.meeting)
    except LaunchError as error:
        wait_for_orphans(output_dir, ORPHANS_S)
        exit_code = attempt.settle(error.exit_code, str(error))
        if exit_code == error.exit_code:
            raise
        click.echo(f"finetune: {error}\nfinetune: run.json says how its processes ended by themselves", err=True)
    else:
        exit_code = attempt.settle(exit_code, "")
    if exit_code:
        sys.exit(exit_code)


def _train_here(
    run_config: "RunConfig", attempt: Attempt, allowed: Collection[str], *, replace: bool, measured_later: bool
) -> None:
    """Train in this process, which is one of those that a launcher started, or the only one."""
    from finetune.cli.terminal import open_terminal
    from finetune.versions import check_versions

    check_versions()
    attempt.take(this_process())
    if attempt.place.launched:
        end_with_parent()
    is_measured = bool(run_config.evaluation.lm_eval_tasks) and run_config.evaluation.lm_eval_post_train
    with open_terminal(attempt.place, debug=run_config.training.debug) as terminal, ExitStack() as stack:
        attempt.tell = partial(tell_failure, stream=terminal.errors)
        stack.callback(setattr, attempt, "tell", tell_failure)  # the stream closes with the terminal
        stack.enter_context(without(*unused_packages(run_config)))
        with heavy_imports():
            from finetune.narration import Narrator
            from finetune.train import RunOptions, run

        is_last = not (measured_later or (is_measured and has_reader()))
        narrator = Narrator(terminal.console, terminal.keep_log)
        run(run_config, narrator, RunOptions(replace=replace, allowed=allowed, publishes=is_last), attempt)
        if is_measured and is_last:
            later = f"finetune evaluate {shlex.quote(run_config.source.file)}"
            narrator.say(f"lm_eval_tasks: not run by the processes of another launcher; run them with {later}")


def _evaluate_and_publish(config: str, overrides: tuple[str, ...], run_config: "RunConfig") -> None:
    """Evaluate the result, then upload it with what was found; an evaluation that fails does not keep it back."""
    try:
        evaluate_after(config, overrides)
    finally:
        if run_config.card.hub_model_id:
            from finetune.publish import publish

            publish(run_config.card, Path(run_config.training.output_dir), click.echo)
