"""Weights that ZeRO-3 has spread over the processes: their true shapes, and how to see them whole."""

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def is_sharded(parameter: torch.Tensor) -> bool:
    """Whether this process holds a part of ``parameter`` only (DeepSpeed marks it with its true shape)."""
    return "ds_shape" in vars(parameter)


def true_shape(parameter: torch.Tensor) -> torch.Size:
    """Return the shape of the whole tensor."""
    shape: torch.Size = vars(parameter).get("ds_shape", parameter.shape)
    return shape


def local_part(parameter: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return what this process has of ``parameter``, flat and writable, and the position of its first element.

    The last part of a sharded tensor is filled up beyond the tensor's end.
    """
    if not is_sharded(parameter):
        return parameter.data.view(-1), 0
    part: torch.Tensor = vars(parameter)["ds_tensor"].data
    return part, part.numel() * torch.distributed.get_rank()


def refresh(parameters: Sequence[torch.Tensor]) -> None:
    """Bring changed local parts into the whole copies that ZeRO-3 keeps of small tensors; a collective."""
    kept_whole = [p for p in parameters if is_sharded(p) and p.numel() == true_shape(p).numel()]
    if kept_whole:
        state = kept_whole[0]
        state.partition(kept_whole)  # type: ignore[attr-defined]
        state.all_gather(kept_whole)  # type: ignore[attr-defined]


def gathered(parameters: Sequence[torch.Tensor], *, writer: int | None = None) -> AbstractContextManager[Any]:
    """Hold ``parameters`` whole on every process; what process ``writer`` changes goes back to all of them.

    A collective: every process has to enter it.
    """
    sharded = [parameter for parameter in parameters if is_sharded(parameter)]
    if not sharded:
        return nullcontext()
    zero = importlib.import_module("deepspeed").zero
    context: AbstractContextManager[Any] = zero.GatheredParameters(sharded, modifier_rank=writer)
    return context


def whole_weights(
    model: torch.nn.Module, format_of: Callable[[str], torch.dtype] | None = None, *, keep: bool
) -> dict[str, torch.Tensor]:
    """Return the state of ``model`` with whole tensors, gathered one at a time if they are sharded.

    Tensors that share memory (tied embeddings) still do so.  With ``format_of`` they come to the CPU, floating point
    in the format of its name.  A process that does not ``keep`` takes part in the gathering and returns nothing.
    """
    state = model.state_dict(keep_vars=True)
    copies: dict[int, torch.Tensor] = {}
    weights = {}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            weights[name] = value
            continue
        if id(value) not in copies:
            with gathered([value]):
                # noted by every process, so that all of them gather a tied tensor once
                copies[id(value)] = _copy(value, format_of(name) if format_of else None) if keep else value
        if keep:
            weights[name] = copies[id(value)]
    return weights if keep else {}


def _copy(value: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Move a tensor off the device, where a gathered one leaves room for the next."""
    whole = value.detach()
    if is_sharded(value):
        whole = whole.to("cpu", copy=True)
    if dtype is None:
        return whole
    return whole.to("cpu", dtype if whole.is_floating_point() else whole.dtype)
