"""Every failure that a user can cause or meet.

The tree::

    FinetuneError           exit code 1
    ├── ConfigError         2   the YAML, the command line, or the output folder
    ├── DataError           3   a data file, a row, a column
    ├── ModelError          4   weights, tokenizer, adapter, hub
    ├── HardwareError       5   a device, its memory, or a missing library for it
    ├── HealthError         6   nothing to learn, or numbers that are not finite
    ├── CheckpointError     7   saving, loading, or disk space
    ├── LaunchError         8   a process of the group
    ├── EvaluationError     1   the evaluation harness
    └── Stopped             75 or 130: stopped on request after a checkpoint was saved

A message says what happened, where, what is allowed, and what to do about it.  Only ``finetune.cli``
prints errors and turns them into exit codes; :data:`EXIT_CODES` says what each means.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ExitCode:
    """What an exit code means to the script that gets it."""

    meaning: str
    status: str
    """Of the run, in ``run.json``."""
    retryable: bool
    """Whether the same command with --resume may do better, nothing else changed."""
    hint: str
    """What to do about it."""


_GO_ON = "start the same command with --resume"
EXIT_CODES = {
    0: ExitCode("done", "finished", False, ""),
    1: ExitCode("a fault of finetune itself, or of an evaluation", "failed", False, "--debug shows the traceback"),
    2: ExitCode("the configuration, the command line or the output folder", "failed", False, "change what it names"),
    3: ExitCode("the data", "failed", False, "mend the rows that it names"),
    4: ExitCode("the model, the tokenizer or the hub", "failed", False, "check the name, the files and the access"),
    5: ExitCode("a device, its memory or a missing library", "failed", False, "ask for less, or use another machine"),
    6: ExitCode("training that learns nothing or went to NaN", "failed", False, "change what it names, then resume"),
    7: ExitCode("a checkpoint, a cache or a full disk", "failed", True, f"make room, then {_GO_ON}"),
    8: ExitCode("a process of the group ended", "failed", True, _GO_ON),
    75: ExitCode("stopped by a signal, with a new checkpoint", "stopped", True, _GO_ON),
    130: ExitCode("stopped by Ctrl-C; the message says whether a checkpoint was saved", "stopped", True, _GO_ON),
    143: ExitCode("stopped by a signal before anything new could be saved", "stopped", True, _GO_ON),
}
"""Exit code of ``finetune train`` to its meaning.  A launcher of the user's own hides it; ``run.json`` has it."""


class FinetuneError(Exception):
    """The base of every error meant for the user."""

    exit_code = 1


class ConfigError(FinetuneError):
    """The configuration or the command line asks for something that cannot be done."""

    exit_code = 2


class DataError(FinetuneError):
    """A data file or a row is missing, unreadable, or not in the promised shape."""

    exit_code = 3


class ModelError(FinetuneError):
    """Weights, tokenizer or adapter are missing or do not fit together."""

    exit_code = 4


class HardwareError(FinetuneError):
    """The machine lacks a device, memory, or a library that the run needs."""

    exit_code = 5


class HealthError(FinetuneError):
    """Training would learn nothing, or its numbers stopped being finite."""

    exit_code = 6


class CheckpointError(FinetuneError):
    """A checkpoint or an output could not be written or read."""

    exit_code = 7


class LaunchError(FinetuneError):
    """A process of the group failed, or the group was started in a way that cannot work."""

    exit_code = 8


class EvaluationError(FinetuneError):
    """The evaluation harness refused a task or failed in one."""


class Stopped(FinetuneError):  # noqa: N818 - it is a request fulfilled, not an error
    """Training was stopped by a signal after it had saved a checkpoint."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest known name, or an empty string."""
    names = list(known)
    longer = [candidate for candidate in names if name and candidate.startswith(f"{name}_")]
    matches = longer[:1] or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""
