"""What this process is among those of a run: read from the environment that launchers set, no library needed."""

import os
from dataclasses import dataclass

from finetune.errors import LaunchError


@dataclass(frozen=True)
class ProcessPlace:
    """Where one process stands in its group."""

    rank: int = 0
    """Number of the process in the whole group, counted from 0."""
    world_size: int = 1
    """Processes of the group, on all machines."""
    local_rank: int = 0
    """Number of the process on its machine: the accelerator that it uses."""
    launched: bool = False
    """Whether a launcher started it (torchrun, accelerate, srun with the same variables)."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0


def this_process() -> ProcessPlace:
    """Read ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``, as torchrun and accelerate set them.

    Raises:
        LaunchError: they are not whole, not numbers, or contradict each other.
    """
    given = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if os.environ.get(name)}
    if not given or given == {"WORLD_SIZE": "1"}:
        return ProcessPlace()
    if len(given) < 3:
        missing = {"RANK", "WORLD_SIZE", "LOCAL_RANK"} - given.keys()
        raise LaunchError(
            f"{', '.join(sorted(given))} set in the environment and {', '.join(sorted(missing))} not; "
            "a launcher sets all three (torchrun, accelerate launch), and outside of one unset them"
        )
    shown = ", ".join(f"{name}={value}" for name, value in given.items())
    try:
        rank, world_size, local_rank = (int(value) for value in given.values())
    except ValueError:
        raise LaunchError(f"{shown}: not all of these are numbers; unset them, or start with torchrun") from None
    if not 0 <= rank < world_size or not 0 <= local_rank < world_size:
        raise LaunchError(f"{shown}: ranks are counted from 0 and below WORLD_SIZE")
    return ProcessPlace(rank, world_size, local_rank, launched=True)
