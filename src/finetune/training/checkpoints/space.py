"""Room on the disk: enough for the run's checkpoints and its result, asked before the first step; and when it ends."""

import errno
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from finetune.data.files import size_text
from finetune.errors import CheckpointError
from finetune.model.sharded import true_shape
from finetune.model.stored import StoredFormat
from finetune.training.engine import Engine
from finetune.training.saving import ExpectedWeights, expect_weights

_REST = 50_000
"""Bytes of configurations, the Trainer's state and the manifest."""
_RANDOM = 20_000
"""Bytes of the random states of a process."""
_HEADER = 250
"""Bytes that torch.save takes for a tensor beside its numbers."""
_PROBE = 1 << 20
"""Bytes to try a disk with."""
_MIN_8BIT = 4096
"""bitsandbytes keeps tensors with fewer elements than this in 32 bits."""
_MOMENTS = {"ademamix": 3, "lion": 1, "sgd": 0, "adagrad": 1, "rmsprop": 1}
"""Numbers that an optimizer keeps for each weight; two where it is not named."""


@dataclass(frozen=True)
class Needs:
    """Bytes on the disk."""

    checkpoint: int
    """Of one checkpoint, of all processes together."""
    final: int
    """Of the result."""


def estimate_needs(
    model: PreTrainedModel | PeftModel,
    stored: StoredFormat,
    optimizer: str,
    tokenizer: PreTrainedTokenizerBase,
    engine: Engine,
) -> Needs:
    """Compute what is going to be saved, from the model as it is and the kind of ``optimizer``.

    DeepSpeed keeps a float32 copy of what trains beside the moments, and below stage 3 the weights once more.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = _num_bytes(expect_weights(model, None))
    rest = _tokenizer_bytes(tokenizer) + _REST + _RANDOM * engine.place.world_size
    sharded = engine.deepspeed is not None
    states = sum(_state_bytes(true_shape(p), 4 if sharded else p.element_size(), optimizer) for p in trained)
    if sharded:
        states += sum(4 * math.prod(true_shape(parameter)) for parameter in trained)
        states += weights if engine.zero_stage < 3 else 0
    return Needs(checkpoint=weights + states + rest, final=_num_bytes(expect_weights(model, stored)) + rest)


def check_room(output_dir: Path, needs: Needs, num_saves: int, standing: int, say: Callable[[str], None]) -> None:
    """Refuse a run whose first checkpoint and result do not fit; warn of one whose further checkpoints do not.

    ``num_saves`` checkpoints will be saved, and ``standing`` more than now will be there at once.

    Raises:
        CheckpointError: they do not fit.
    """
    free = shutil.disk_usage(output_dir).free
    least = needs.final + (needs.checkpoint if num_saves else 0)
    if least > max(free, _PROBE):
        first = f"a checkpoint takes about {size_text(needs.checkpoint)} and the result" if num_saves else "the result"
        without = "save_strategy: no does without checkpoints; " if num_saves and needs.final <= free else ""
        raise CheckpointError(
            f"output_dir: {output_dir} has {size_text(free)} free; {first} about {size_text(needs.final)}. "
            f"{without}free some space, or choose another output_dir"
        )
    whole = needs.final + standing * needs.checkpoint
    if num_saves and whole > free:
        say(
            f"WARNING output_dir: {output_dir} has {size_text(free)} free, and the run needs about {size_text(whole)}: "
            f"{standing} checkpoints of {size_text(needs.checkpoint)} at once, and the result. Lower save_total_limit, "
            "or free some space"
        )


def explain_failure(target: Path, staging: Path, error: Exception, needed: int | None) -> str:
    """Say why ``target`` could not be written to ``staging``, and what that means; a full disk in plain words.

    Libraries speak of unexpected positions and short writes where a disk is full, so the disk itself is asked.
    """
    before = "What was saved before is whole"
    if not is_full(staging, error):
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip().split("\n")[0]
        return f"{target} could not be saved ({reason}). {before}"
    left = sum(file.stat().st_size for file in staging.rglob("*") if file.is_file()) if staging.is_dir() else 0
    free = shutil.disk_usage(target.parent).free + left  # what was begun is removed
    need = f"it takes about {size_text(needed)}, and " if needed else ""
    quota = " or the quota on it is used up" if needed and free > needed else ""
    return (
        f"{target} could not be saved: the disk is full{quota}; {need}{size_text(free)} are free. {before}. Free some "
        "space or lower save_total_limit, then go on with the same command and --resume"
    )


def is_full(folder: Path, error: Exception) -> bool:
    """Whether ``error`` came of a full disk or a used up quota."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    probe = folder / ".probe"
    try:
        probe.write_bytes(bytes(_PROBE))
    except OSError as refused:
        return refused.errno in (errno.ENOSPC, errno.EDQUOT)
    finally:
        probe.unlink(missing_ok=True)
    return False


def _num_bytes(expected: ExpectedWeights) -> int:
    """Tensors that share memory (tied embeddings) have several names and are saved once."""
    groups = {frozenset(expected.tied.get(name, {name})): tensor for name, tensor in expected.tensors.items()}
    return sum(tensor.numel() * tensor.element_size() for tensor in groups.values())


def _tokenizer_bytes(tokenizer: PreTrainedTokenizerBase) -> int:
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        return len(tokenizer.backend_tokenizer.to_str(pretty=True).encode())
    return 40 * len(tokenizer)


def _state_bytes(shape: torch.Size, element_size: int, optimizer: str) -> int:
    """Return the bytes that ``optimizer`` keeps for a parameter; each of its tensors has a header in the file too."""
    number = math.prod(shape)
    if optimizer == "adafactor":
        # a row and a column for each matrix in place of the whole
        kept = number if len(shape) < 2 else math.prod(shape[:-1]) + math.prod(shape[:-2]) * shape[-1]
        return 4 * kept + 3 * _HEADER
    moments = next((count for name, count in _MOMENTS.items() if name in optimizer), 2)
    if "8bit" in optimizer and number >= _MIN_8BIT:
        # with the scale of each block of 256, and a table for each moment
        return moments * (number + 4 * -(-number // 256) + 4 * 256 + 3 * _HEADER)
    in_32_bits = "bit" in optimizer or "ademamix" in optimizer
    return moments * number * (4 if in_32_bits else element_size) + (moments + 1) * _HEADER
