"""One run at Weights & Biases.  Imported for runs that name a project: the library takes a fifth of a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import wandb
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.config.tracking import TrackingSection
from finetune.training.output import is_debug_log
from finetune.training.tracking import tracking_mode

Failure = (wandb.Error, OSError, RuntimeError, ValueError)


class WandbCallback(TrainerCallback):  # type: ignore[misc]
    """Logs every row of metrics, and the weights if asked, to one W&B run."""

    def __init__(
        self, tracking: TrackingSection, output_dir: Path, config: dict[str, Any], say: Callable[[str], None]
    ) -> None:
        self.tracking = tracking
        self.output_dir = output_dir
        self.config = config
        self.say = say
        self.run: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        section, mode = self.tracking, tracking_mode(self.tracking)
        if mode == "offline":
            self.say(f"W&B: offline, the run is kept in {self.output_dir / 'wandb'} (wandb sync uploads it)")
        try:
            self.run = wandb.init(
                project=section.wandb_project,
                entity=section.wandb_entity,
                name=section.wandb_name or section.wandb_run_id,
                id=section.wandb_run_id,
                resume="allow" if section.wandb_run_id else None,
                dir=str(self.output_dir),
                config=self.config,
                mode=mode,
                settings=wandb.Settings(init_timeout=30, console="off", silent=True),
            )
            if section.wandb_watch not in (None, "false", False):
                self.run.watch(kwargs["model"], log=section.wandb_watch, log_freq=max(args.logging_steps, 1))
        except Failure as error:
            self._give_up(error)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if self.run is not None:
            names = {name: f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}" for name in logs}
            self._try(self.run.log, {names[name]: value for name, value in logs.items()}, step=state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.run is not None and self.tracking.wandb_log_model == "checkpoint":
            self._upload(Path(args.output_dir) / f"checkpoint-{state.global_step}", f"checkpoint-{state.global_step}")

    def finish(self, exit_code: int) -> None:
        """Upload the final folder if asked, and close the run."""
        if self.run is None:
            return
        if self.tracking.wandb_log_model in ("end", "checkpoint", "true", True) and exit_code == 0:
            self._upload(self.output_dir, "model")
        if self.run is not None:
            self._try(self.run.finish, exit_code=exit_code)

    def _upload(self, folder: Path, alias: str) -> None:
        try:
            artifact = wandb.Artifact(f"model-{self.run.id}", type="model")
            for file in sorted(folder.glob("*")):
                if file.is_file() and not is_debug_log(file):
                    artifact.add_file(str(file))
            self.run.log_artifact(artifact, aliases=[alias])
        except Failure as error:
            self._give_up(error)

    def _try(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            call(*args, **kwargs)
        except Failure as error:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        self.run = None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        self.say(f"W&B: tracking stopped ({reason}); training goes on")
