"""What a run tells the person at the terminal, step by step."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from finetune.card.redact import redact
from finetune.data.prepare import PreparedData, StreamedData
from finetune.data.report import render
from finetune.model.build import TrainableModel
from finetune.training.cadence import Cadence
from finetune.training.checkpoints.find import Found
from finetune.training.engine import Engine
from finetune.training.fit import FitResult
from finetune.training.samples import SampleAnswers


class Narrator:
    """Says what is being done, and what was found, in plain lines and small tables."""

    def __init__(self, console: Console, keep_log: Callable[[Path], None] = lambda output_dir: None) -> None:
        """Take the console, and what is to be done with the output folder once it is this run's own."""
        self.console = console
        self.keep_log = keep_log

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, highlight=False, markup=False)

    def note(self, text: str | None) -> None:
        """Print one line, if there is one to print."""
        if text:
            self.say(text)

    def data(self, data: PreparedData | StreamedData, engine: Engine) -> None:
        """Say what became of the rows, whichever process prepared them; a collective."""
        if isinstance(data, StreamedData):
            self.say("data: a stream, read while training")
        else:
            told = engine.gather((data.cached, data.notes))
            for note in dict.fromkeys(note for _, notes in told for note in notes if note not in data.notes):
                self.say(note)
            self.say(f"data: {'found prepared' if all(cached for cached, _ in told) else 'prepared'} in {data.path}")
        self.say(render(data.report))
        if data.validation_report:
            self.say("validation data:\n" + render(data.validation_report))

    def output(self, output_dir: Path, moved: Path | None, resume: Found | None, notes: Sequence[str]) -> None:
        """Say where results go and where the run starts from; from here on the log is kept there."""
        self.keep_log(output_dir)
        if moved:
            self.say(f"output_dir: the run that was there is now in {moved}")
        for note in (*(resume.notes if resume else ()), *notes):
            self.say(note)
        if resume:
            self.say(f"resuming from {resume.path}")
        self.say(f"output: {output_dir}")

    def model(self, trainable: TrainableModel, warning: str | None) -> None:
        """Show what trains, in which format, and what is to be said of the model's positions."""
        hardware = trainable.hardware
        self.note(warning)
        self.note(hardware.precision.note)
        self.note(hardware.attention.note)
        compute = str(hardware.precision.compute_dtype).removeprefix("torch.")
        self.say(f"compute: {compute}, attention {hardware.attention.implementation}")
        self._matches(trainable)
        table = Table("weights", "bits", "tensors", "parameters", "MB", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for group in trainable.summary.groups:
            name = "trained" if group.trained else "frozen"
            size = f"{group.num_bytes / 1e6:,.1f}"
            table.add_row(name, str(group.bits), f"{group.num_tensors:,}", f"{group.num_parameters:,}", size)
        self.console.print(table)
        share = trainable.summary.num_trained / trainable.summary.num_parameters
        counts = f"{trainable.summary.num_trained:,} of {trainable.summary.num_parameters:,}"
        self.say(f"training {counts} parameters ({share:.2%})")

    def steps(self, cadence: Cadence, engine: Engine, *, streamed: bool = False) -> None:
        """Say how long the run is, and who takes part in it."""
        if engine.connected:
            self.say(f"processes: {engine.place.world_size}, {engine.name}")
        if cadence.warmup_steps and cadence.total_steps == 1:
            self.say("WARNING nothing is learned: the one step of this run is of warm-up, which begins at 0")
        elif cadence.warmup_steps >= cadence.total_steps:
            self.say("WARNING warm-up is as long as the run: the learning rate never reaches its peak")
        epoch = "" if streamed else f"{cadence.steps_per_epoch} an epoch, "
        self.say(f"steps: {cadence.total_steps} ({epoch}{cadence.warmup_steps} of warm-up)")

    def result(self, output_dir: Path, result: FitResult, samples: Sequence[SampleAnswers]) -> None:
        """Show the change on samples, and say where everything is."""
        for sample in samples:
            self.say(redact(f"\n> {sample.prompt}\n  before: {sample.before}\n  after:  {sample.after}"))
        self.say(
            f"\ndone: {result.last_step} steps in {result.runtime_s:.0f} s; the card is {output_dir / 'README.md'}"
        )

    def _matches(self, trainable: TrainableModel) -> None:
        if not trainable.matches:
            return
        table = Table("unfrozen pattern", "tensors", "parameters", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for match in trainable.matches:
            table.add_row(match.pattern.replace("[", r"\["), f"{match.num_tensors:,}", f"{match.num_parameters:,}")
        self.console.print(table)
