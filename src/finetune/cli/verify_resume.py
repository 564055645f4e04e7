"""``finetune verify-resume``: kill a short run of the user's own set-up, go on with it, compare."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune.cli.launching import launch_options
from finetune.cli.options import LAUNCHER_ARGUMENTS, LaunchingCommand, config_command
from finetune.errors import ConfigError, FinetuneError, HealthError
from finetune.launch import inside_launcher

if TYPE_CHECKING:
    from finetune.training.agreement import Finding, RunTrace

_OFF = {
    "resume_from_checkpoint": "null",
    "auto_resume_from_checkpoints": "false",
    "evals_per_epoch": "null",
    "eval_steps": "null",
    "eval_strategy": "no",
    "saves_per_epoch": "null",
    "save_strategy": "steps",
    "save_total_limit": "99",
    "early_stopping_patience": "null",
    "load_best_model_at_end": "false",
    "eval_table_size": "0",
    "eval_max_new_tokens": "null",
    "logging_steps": "1",
    "lm_eval_tasks": "null",
    "hub_model_id": "null",
    "wandb_project": "null",
    "wandb_entity": "null",
    "wandb_name": "null",
    "wandb_run_id": "null",
    "wandb_watch": "null",
    "wandb_log_model": "null",
    "wandb_mode": "null",
}
"""Keys that say what happens around the steps, and how they are set for a run of a few steps."""


@dataclass(frozen=True)
class Trial:
    """The runs of one check: their words, and the folder that holds all that they write."""

    words: tuple[str, ...]
    folder: Path

    def run(self, name: str, output: str, *, resume: bool = False, killed_at: int | None = None) -> int:
        """Run ``finetune train`` to its end and return its exit code; what it says is kept in ``<name>.log``."""
        ledger = self.folder / name
        ledger.mkdir()
        environment = {**os.environ, "FINETUNE_LEDGER": str(ledger)}
        if killed_at is not None:
            environment["FINETUNE_LEDGER_KILLED_AT"] = str(killed_at)
        at = self.words.index("--") if "--" in self.words else len(self.words)
        own = [*self.words[:at], f"--output_dir={self.folder / output}", *(["--resume"] if resume else [])]
        command = [sys.executable, "-m", "finetune", "train", *own, *self.words[at:]]
        with (self.folder / f"{name}.log").open("w", encoding="utf-8") as log:
            return subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode

    def trace(self, name: str, output: str) -> "RunTrace":
        """Return what the run left to be compared."""
        from finetune.training.agreement import RunTrace

        return RunTrace(self.folder / name, self.folder / output)

    def last_words(self, name: str) -> str:
        """Return the end of what a run said."""
        return "\n".join((self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


@config_command("verify-resume", LaunchingCommand)
@click.option("--steps", type=click.IntRange(min=2), default=6, show_default=True, help="Optimizer steps of each run.")
@click.option("--at", type=click.IntRange(min=1), help="Step of the checkpoint to go on from [half of them].")
@click.option("--keep", is_flag=True, help="Keep the folder of the runs.")
@launch_options
@click.pass_context
def command(
    context: click.Context, /, config: str, overrides: tuple[str, ...], steps: int, at: int | None, **options: Any
) -> None:
    """Show that a killed run of CONFIG goes on as if nothing had happened.

    Trains a few steps without a break; then again, killed by SIGKILL one step after a checkpoint, and resumed.
    Batches, learning rates, losses, gradient norms and final weights are compared bit by bit.  output_dir is not
    touched: the runs are in a folder beside it, which is removed in the end.
    """
    from finetune.config import load_config

    at = at or steps // 2
    _refuse(at, steps, options)
    keep = options.pop("keep")
    off = [f"--{name}={value}" for name, value in _OFF.items()]
    changes = [*overrides, *off, f"--save_steps={at}", f"--max_steps={steps}"]
    output_dir = Path(load_config(config, changes).training.output_dir)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{output_dir.name}.verify-", dir=output_dir.parent))
    try:
        words = [config, *changes, *_launch_words(options), *_launcher_words(context)]
        _verify(Trial(tuple(words), folder), at, steps)
    finally:
        if keep:
            click.echo(f"kept: {folder}")
        else:
            shutil.rmtree(folder)


def _verify(trial: Trial, at: int, steps: int) -> None:
    """Run the three runs, and a fourth where it takes one to know what a difference means."""
    click.echo(f"1. {steps} steps without a break")
    _expect_end(trial, "whole", trial.run("whole", "whole-run"))
    click.echo(f"2. the same, killed by SIGKILL in step {at + 1}")
    exit_code = trial.run("killed", "killed-run", killed_at=at + 1)
    if exit_code == 0 or not (trial.folder / "killed-run" / f"checkpoint-{at}").is_dir():
        raise FinetuneError(
            f"the run that was to be killed in step {at + 1} ended with exit code {exit_code} and left no "
            f"checkpoint-{at}; it said:\n{trial.last_words('killed')}"
        )
    click.echo(f"3. gone on from checkpoint-{at} with the same command and --resume")
    _expect_end(trial, "resumed", trial.run("resumed", "killed-run", resume=True))

    from finetune.cli.console import quiet_libraries

    quiet_libraries()

    from finetune.training.agreement import compare_runs, within_spread

    whole = trial.trace("whole", "whole-run")
    found = compare_runs(whole, trial.trace("resumed", "killed-run"), at)
    _show(found)
    if all(finding.identical for finding in found):
        click.echo(f"RESUME IS EXACT: steps {at + 1} to {steps} and the final weights are the same to the last bit")
        click.echo(_covers(at, steps))
        return
    click.echo("4. without a break once more: what two runs of this set-up differ by anyhow")
    _expect_end(trial, "again", trial.run("again", "again-run"))
    spread = compare_runs(whole, trial.trace("again", "again-run"), at)
    _show(spread)
    if not within_spread(found, spread):
        first = next(finding for finding in found if not finding.identical)
        raise HealthError(f"resume is NOT exact here, and two runs without a break differ by less: {first}")
    click.echo("RESUME IS AS EXACT AS THIS DEVICE: the resumed run differs no more than two runs without a break do")
    click.echo(_covers(at, steps))


def _show(found: "Sequence[Finding]") -> None:
    for finding in found:
        click.echo(f"   {finding}")


def _covers(at: int, steps: int) -> str:
    return (
        f"This covers this machine, these processes and the {steps - at} steps after that checkpoint; not evaluation, "
        "later epochs (--steps and --at reach them), other machines or a loss of power"
    )


def _expect_end(trial: Trial, name: str, exit_code: int) -> None:
    if exit_code:
        error = FinetuneError(
            f"verify-resume: the run ({name}) ended with exit code {exit_code}:\n{trial.last_words(name)}"
        )
        error.exit_code = exit_code if exit_code > 0 else 1
        raise error


def _refuse(at: int, steps: int, options: dict[str, Any]) -> None:
    mark = inside_launcher(os.environ)
    if mark:
        raise ConfigError(
            f"verify-resume starts and kills processes itself, and a launcher has started this one ({mark} is set)"
        )
    if at >= steps:
        raise ConfigError(f"--at {at} leaves no step to compare; give at most {steps - 1}, or more --steps")
    if options["num_machines"]:
        raise ConfigError("verify-resume runs on one machine; leave --num-machines out")


def _launch_words(options: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]


def _launcher_words(context: click.Context) -> list[str]:
    words = context.meta.get(LAUNCHER_ARGUMENTS, ())
    return ["--", *words] if words else []
