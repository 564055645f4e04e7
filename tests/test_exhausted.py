"""Memory that runs out is told from other failures, and every command words it alike."""

import errno

import pytest
import torch

from finetune.errors import HardwareError, ModelError
from finetune.exhausted import describe_exhausted, explained_memory, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_memory_is_told_from_other_failures(error: Exception, answer: bool) -> None:
    assert is_out_of_memory(error) is answer


def test_what_was_done_and_what_helps_is_said() -> None:
    with (
        pytest.raises(HardwareError) as caught,
        explained_memory(lambda: describe_exhausted("merging", ["--no-verify  (the same files)"], "A fact.", "")),
    ):
        raise MemoryError
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("memory ran out in merging; this process had taken ")
    assert rest == ["  A fact.", "  What helps, the cheapest first:", "    --no-verify  (the same files)"]


def test_weights_that_no_memory_is_left_for_are_not_called_damaged() -> None:
    def load() -> None:
        try:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        except RuntimeError as error:
            raise ModelError("m: the weights cannot be loaded") from error

    with (
        pytest.raises(HardwareError, match="in loading the weights"),
        explained_memory(lambda: describe_exhausted("loading the weights", [])),
    ):
        load()


def test_other_failures_keep_their_own_words() -> None:
    with pytest.raises(ModelError, match=r"^damaged$"), explained_memory(lambda: "not called"):
        raise ModelError("damaged")
