"""What the training drivers share: the job they are given, and the line that tells of an optimizer step."""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

UNTRAINED = -100


@dataclass(frozen=True)
class Job:
    """One training, as ``job.json`` tells it."""

    model: str
    data: str
    """Folder of prepared rows (``load_from_disk``) in their order; of packed rows with ``position_ids``."""
    chats: str
    """File of raw chats instead; then ``data`` is empty and preparing them is part of the work."""
    adapter: bool
    packed: bool
    bf16: bool
    num_steps: int
    batch: int
    learning_rate: float
    sequence_len: int
    seed: int
    steps: str
    """File that gets a line of JSON for each optimizer step."""
    device: str = "cpu"
    """``cpu`` or ``cuda``."""

    @property
    def base_dtype(self) -> str:
        """A frozen base is held in the compute format, trained weights in float32."""
        return "bfloat16" if self.bf16 and self.adapter else "float32"


def read_job() -> Job:
    """Read the job that the command line names."""
    return Job(**json.loads(Path(sys.argv[1]).read_text()))


def write_step(job: Job, loss: float, total: int, trained: int, **more: float) -> None:
    """Write what one optimizer step took in, and when it ended."""
    row = {"time": time.time(), "loss": loss, "total": total, "trained": trained, **more}
    with Path(job.steps).open("a") as file:
        file.write(json.dumps(row) + "\n")
