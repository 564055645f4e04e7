"""Ending early: a signal, agreed on by all processes, becomes a checkpoint and an end."""

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.attempt.attempt import Attempt
from finetune.attempt.signals import Stage, saved_code
from finetune.config.training import TrainingSection
from finetune.errors import Stopped
from finetune.training.cadence import Cadence
from finetune.training.engine import Engine
from finetune.training.trainer import CausalTrainer, EvaluationStopped


class StopCallback(TrainerCallback):  # type: ignore[misc]
    """Ctrl-C, SIGTERM and their like save a checkpoint at the end of the step and stop; a second one ends at once.

    A signal to one process stops all of them at the same step.  An evaluation is left at its next batch; the run that
    goes on from the checkpoint takes it again (:class:`EvaluationCallback`).  ``run.json`` learns of each checkpoint.
    """

    def __init__(self, attempt: Attempt, engine: Engine, training: TrainingSection) -> None:
        self.attempt = attempt
        self.request = attempt.stop
        self.engine = engine
        best = training.load_best_model_at_end or training.save_strategy == "best"
        self.leaves_evaluations = not (best or training.early_stopping_patience)
        """Whether nothing but the record waits for an evaluation's loss; it is finished elsewhere."""
        self.saved: Path | None = None
        self.seconds = 0.0
        """How long the last checkpoint took since it was decided on."""
        self.stops = False
        """Whether a signal ends the run early."""
        self._trains = False
        self._decided = time.monotonic()

    def raise_if_stopped(self, last_step: int, total_steps: int) -> None:
        """Raise :class:`Stopped` (130 after Ctrl-C, else 75) if a signal ended the run early."""
        if not self.stops:
            return
        assert self.request.received is not None
        assert self.saved is not None, "a stop saves"
        raise Stopped(
            f"stopped by {self.request.received.name} after step {last_step} of {total_steps}: {self.saved} saved in "
            f"{self.seconds:.1f} s. Go on with the same command and --resume",
            saved_code(self.request.received),
        )

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.attempt.progress(state.global_step, state.max_steps)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._trains:
            return
        self.engine.largest(0, args.device)  # all begin together: before, a signal ends a process where it is
        self._trains = True
        self.request.stage = Stage.STEPS

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._decided = time.monotonic()
        if state.global_step < state.max_steps and self._all_stop(args):
            self._stop(control)
            control.should_save = True
            if self.leaves_evaluations:
                control.should_evaluate = False

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # DeepSpeed cannot take up a run whose last step is done, to evaluate it
        can_leave = self.leaves_evaluations and (state.global_step < state.max_steps or self.engine.deepspeed is None)
        if self._trains and not self.stops and can_leave and self._all_stop(args):
            self._decided = time.monotonic()
            self._stop(control)
            raise EvaluationStopped

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A signal that came during an evaluation needs no further step."""
        self._decided = time.monotonic()
        if self._trains and not self.stops and state.global_step < state.max_steps and self._all_stop(args):
            self._stop(control)
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Nor does a signal that came during a save."""
        self.saved = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self.seconds = time.monotonic() - self._decided
        self.attempt.progress(state.global_step, state.max_steps, self.saved)
        if not self.stops and state.global_step < state.max_steps and self._all_stop(args):
            self._stop(control)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trains = False
        self.request.stage = Stage.RESULT

    def _all_stop(self, args: TrainingArguments) -> bool:
        """Whether any process got a signal; each takes it as its own."""
        number = self.engine.largest(self.request.received or 0, args.device)
        if number:
            self.request.take_over(number)
        return bool(number)

    def _stop(self, control: TrainerControl) -> None:
        self.stops = True
        control.should_training_stop = True


class EvaluationCallback(TrainerCallback):  # type: ignore[misc]
    """Takes the evaluation of a checkpoint's step that a signal kept the run before from finishing."""

    def __init__(self, cadence: Cadence, trainer: CausalTrainer) -> None:
        self.cadence = cadence
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if is_owed(self.cadence, state):
            self.trainer.evaluate()


def is_owed(cadence: Cadence, state: TrainerState) -> bool:
    """Whether the log lacks the evaluation that is planned for the present step."""
    done = any("eval_loss" in row and row["step"] == state.global_step for row in state.log_history)
    return state.global_step in cadence.eval_at and not done
