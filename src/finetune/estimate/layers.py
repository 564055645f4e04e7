"""What of each decoder layer trains, from the tensors that are held."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from finetune.estimate.activations import LayerPlan
from finetune.estimate.architecture import Architecture
from finetune.estimate.holding import Held
from finetune.estimate.tensors import linear_shapes


def plan_layers(
    architecture: Architecture, held: Sequence[Held], *, adapter: bool, dora: bool = False, has_copies: bool = True
) -> list[LayerPlan]:
    """Return the plan of each layer.

    The layers of an unknown decoder are taken for a Llama's: wherever something of a layer trains, all its modules do.
    """
    by_layer: dict[int, list[Held]] = defaultdict(list)
    for tensor in held:
        if tensor.trained:
            layer = layer_of(tensor.name)
            by_layer[-1 if tensor.is_embedding else architecture.num_layers if layer is None else layer].append(tensor)
    lowest = min((layer for layer, tensors in by_layer.items() if tensors), default=architecture.num_layers)
    plans = [
        _plan_layer(architecture, by_layer[number], reached=number >= lowest, adapter=adapter, dora=dora)
        for number in range(architecture.num_layers)
    ]
    return plans if has_copies else [replace(plan, copied=0) for plan in plans]


def layer_of(name: str) -> int | None:
    """Return the number of the layer that a tensor is in."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _plan_layer(
    architecture: Architecture, tensors: Sequence[Held], *, reached: bool, adapter: bool, dora: bool
) -> LayerPlan:
    shapes = linear_shapes(architecture)
    leaves = frozenset(part for tensor in tensors for part in tensor.name.split(".") if part in shapes)
    if tensors and not leaves and not architecture.is_known:
        leaves = frozenset(shapes)
    ranks = tuple(
        (leaf, tensor.shape[0])
        for tensor in tensors
        for leaf in leaves.intersection(tensor.name.split("."))
        if tensor.name.endswith("lora_A")
    )
    return LayerPlan(
        inputs=leaves,
        norms=not adapter
        and any(len(tensor.shape) == 1 and not leaves & set(tensor.name.split(".")) for tensor in tensors),
        reached=reached,
        ranks=ranks,
        dora=dora and bool(ranks),
        copied=sum(tensor.num_parameters for tensor in tensors if len(tensor.shape) == 2),
    )
