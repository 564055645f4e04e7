"""DeepSpeed's files: written by each process in the middle of what they do together."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

from finetune.training.checkpoints.publish import FAULTS, BrokenOffError


class PatientWriter(TorchCheckpointEngine):  # type: ignore[misc]
    """Keeps a failure until the others are done: they would wait two hours for a process that left in the middle."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.failure: Exception | None = None

    def save(self, state_dict: Any, path: str) -> None:
        try:
            super().save(state_dict, path)
        except FAULTS as error:
            self.failure = error
            Path(path).unlink(missing_ok=True)  # leaves the small files that follow some room


@contextmanager
def patient_writes(engine: Any) -> Iterator[None]:
    """Let DeepSpeed's ``engine`` write a whole checkpoint, and raise what went wrong afterwards.

    It also sees to it that the files are complete when this returns: DeepSpeed can be told to write behind one's back.

    Raises:
        BrokenOffError: a small file that DeepSpeed writes by itself failed, before it met the other processes again.
    """
    usual, writer = engine.checkpoint_engine, PatientWriter(engine._config)
    engine.checkpoint_engine = writer
    try:
        yield
    except FAULTS as error:
        raise BrokenOffError from error
    finally:
        engine.checkpoint_engine = usual
    if writer.failure:
        raise writer.failure
