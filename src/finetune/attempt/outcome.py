"""What an exception means for the run as a whole."""

from finetune.errors import FinetuneError, LaunchError

_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "remote process exited", "nccl")
"""What gloo and NCCL say, in lower case, when the process at the other end is gone."""


def outcome(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code that an exception leads to, and its text; None for an exit that somebody chose."""
    if isinstance(error, SystemExit):
        return None
    if isinstance(error, FinetuneError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    lost = lost_peer(error) if isinstance(error, RuntimeError) else None
    return (lost.exit_code, str(lost)) if lost else (FinetuneError.exit_code, f"{type(error).__name__}: {error}")


def lost_peer(error: RuntimeError) -> LaunchError | None:
    """Return what to say instead of ``error`` if it only means that another process of the group is gone."""
    text = str(error).lower()
    kinds = {kind.__name__ for kind in type(error).__mro__}
    of_group = "DistError" in kinds or "gloo" in text
    if not (of_group and any(mark in text for mark in _LOST)):
        return None
    return LaunchError(
        "another process of this run ended, and this one cannot go on without it. If it said nothing above, it was "
        "killed: mostly because the machine ran out of memory. The last checkpoint is whole"
    )
