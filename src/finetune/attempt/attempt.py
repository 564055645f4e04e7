"""One start of a run, from the first signal that may come to the last line of ``run.json``."""

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from finetune.attempt.outcome import outcome
from finetune.attempt.signals import ECHO_S, LAUNCHED_ECHO_S, SignalWatch, StopRequest
from finetune.attempt.state import RunState, fault, is_in_use, read_state, write_state
from finetune.card.redact import redact
from finetune.errors import CheckpointError, LaunchError
from finetune.processes import ProcessPlace

if TYPE_CHECKING:
    from finetune.config.training import TrainingSection

ATTEMPT = "FINETUNE_ATTEMPT"
"""Environment variable: the id that who starts a launcher gives to the start as a whole."""

FLUSH_S = 0.5
"""How long what was printed may take to leave a process that ends at once."""


class Attempt:
    """What one process knows of the start that it belongs to.

    While entered it watches signals; at its end ``run.json`` gets the outcome, whichever way it came.
    """

    def __init__(self, tell: Callable[[str, int], None] = lambda text, exit_code: None) -> None:
        """Take what says why this process ends at once; who imports the library hears exceptions."""
        self.id = os.environ.get(ATTEMPT) or uuid.uuid4().hex
        self.place = ProcessPlace()
        self.tell = tell
        self.output_dir: Path | None = None
        self.goes_on = False
        self.state: RunState | None = None
        """As this process wrote or heard it last; None before the output folder is the run's own."""
        self.note: str | None = None
        """What the start before this one left to say."""
        self.stop = StopRequest(self._leave, ECHO_S)
        self.stop.describe_kept = self._describe_kept
        self._watch = SignalWatch(self.stop.receive)
        self._lock = threading.Lock()

    def __enter__(self) -> "Attempt":
        self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write an end that came before, or outside of, :meth:`recorded`."""
        self._end_as(error)
        self._watch.__exit__()

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Write into ``run.json`` how what is done meanwhile ends: well, or with an exception."""
        try:
            yield
        except BaseException as error:
            self._end_as(error)
            raise
        if self.place.is_main:
            self.end(0)

    def _end_as(self, error: BaseException | None) -> None:
        ended = outcome(error) if error is not None else None
        if ended is not None:
            self.end(ended[0], type(error).__name__, ended[1])

    def take(self, place: ProcessPlace) -> None:
        """Be one of the processes that a launcher started, or the only one."""
        self.place = place
        self.stop.echo_s = LAUNCHED_ECHO_S if place.launched else ECHO_S

    def belong(self, training: "TrainingSection") -> None:
        """Be a start in the folder that the configuration names."""
        self.output_dir = Path(training.output_dir)
        self.goes_on = bool(training.auto_resume_from_checkpoints or training.resume_from_checkpoint)

    def begin(self, checkpoint: Path | None = None, step: int = 0, run_id: str | None = None) -> RunState:
        """Write that the run has begun, and return what every process of it has to :meth:`join`.

        To be called by the main process under the folder's lock.  ``checkpoint`` is what it goes on from.

        Raises:
            CheckpointError: the file cannot be written.
        """
        assert self.output_dir is not None, "belong() comes first"
        before = read_state(self.output_dir)
        for left in self.output_dir.glob(".run.json.*"):
            left.unlink(missing_ok=True)
        state = RunState(
            run_id=run_id or (before.run_id if before and checkpoint else uuid.uuid4().hex),
            attempt=self.id,
            step=step,
            last_checkpoint=self._name(checkpoint) if checkpoint else None,
            started=round(time.time(), 3),
            pid=os.getpid(),
            host=os.uname().nodename,
            world_size=self.place.world_size,
        )
        try:
            self._write(state)
        except OSError as error:
            raise CheckpointError(f"{self.output_dir}/run.json cannot be written ({error.strerror})") from error
        if before is not None and before.is_running:
            reached = f"after step {before.step} of {before.total_steps}" if before.total_steps else "in its beginning"
            self.note = (
                f"the last start here (process {before.pid} on {before.host}) ended without a word {reached}: "
                "killed, most often for lack of memory, or the machine went down"
            )
        return state

    def join(self, state: RunState) -> None:
        """Be one of the processes of the start that the main one began."""
        self.id, self.state = state.attempt, state

    def progress(self, step: int, total_steps: int, checkpoint: Path | None = None) -> None:
        """Note where training stands; a disk that is full now is told of where a checkpoint meets it."""
        if self.state is None:
            return
        name = self._name(checkpoint) if checkpoint else self.state.last_checkpoint
        state = replace(self.state, step=step, total_steps=total_steps, last_checkpoint=name)
        if not self.place.is_main:
            self.state = state
            return
        with suppress(OSError):
            self._write(state)

    def end(self, exit_code: int, name: str = "", text: str = "") -> None:
        """Write how the command ends, unless another process of this start has, and knew better why.

        ``name`` is the class of the error that ended it, ``text`` its message.
        """
        written = read_state(self.output_dir) if self.output_dir else None
        if self.state is None:
            state = self._unbegun(written)
        else:
            state = written if written and written.attempt == self.id else None  # None: the folder is another's now
        knew_better = state and state.exit_code not in (None, LaunchError.exit_code)
        if state is None or knew_better:
            return
        error = fault(name, redact(text), exit_code) if name else None
        with suppress(OSError):
            self._write(state.ended_with(exit_code, round(time.time(), 3), error))

    def settle(self, exit_code: int, text: str) -> int:
        """Let who called the launcher write the end where no process could, and return the exit code of the run.

        Of a process that was lost the others know less than the launcher, which has seen what ended it.
        """
        state = read_state(self.output_dir) if self.output_dir else None
        if state is not None and state.attempt == self.id:
            self.state = state
            if exit_code in (LaunchError.exit_code, 130, 143) and state.exit_code is not None:
                exit_code = state.exit_code
        self.end(exit_code, LaunchError.__name__ if exit_code == LaunchError.exit_code else "", text)
        return exit_code

    def _unbegun(self, written: RunState | None) -> RunState | None:
        """Return what an end is written into before the folder is the run's own.

        That is nothing, but for a run that was to be gone on with: a script that reads of a stop that can be resumed
        would resume for ever.
        """
        if self.output_dir is None or written is None or not self.goes_on or not self.place.is_main:
            return None
        if written.attempt == self.id:
            return written
        if is_in_use(self.output_dir):
            return None
        now = round(time.time(), 3)
        return replace(written, attempt=self.id, started=now, pid=os.getpid(), status="running", exit_code=None)

    def _write(self, state: RunState) -> None:
        assert self.output_dir is not None, "only a start in a folder has a state"
        with self._lock:
            self.state = state
            write_state(state, self.output_dir)

    def _name(self, checkpoint: Path) -> str:
        inside = self.output_dir is not None and checkpoint.parent.resolve() == self.output_dir.resolve()
        return checkpoint.name if inside else redact(str(checkpoint))

    def _describe_kept(self) -> str:
        kept = self.state.last_checkpoint if self.state else None
        if kept:
            return f"{kept} is whole. Go on with the same command and --resume"
        if self.goes_on and self.state is None:
            return "the run that it was to go on with is as it was. Start again with the same command"
        return "no checkpoint was saved yet. Start again with the same command"

    def _leave(self, text: str, exit_code: int) -> None:
        """End this process now, from the thread that hears signals, whatever the main thread waits for."""
        try:
            self.end(exit_code)
            self.tell(f"finetune: {text}", exit_code)
            flush = threading.Thread(target=_flush, daemon=True)  # the main thread may hold a stream that nobody reads
            flush.start()
            flush.join(FLUSH_S)
        finally:
            os._exit(exit_code)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
