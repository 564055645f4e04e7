"""Which of several failing processes speaks: the first one, once."""

import os
from pathlib import Path


def speaks_for_all() -> bool:
    """Whether no other process of this run on this machine has reported a failure yet; asking claims the turn.

    torchrun (and accelerate, which uses it) gives each process a folder of its own in one folder of the run.  Where
    there is no such folder every process speaks.
    """
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not place:
        return True
    try:
        os.close(os.open(Path(place).parent.parent / "finetune-failed", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    except OSError:
        return True
    return True
