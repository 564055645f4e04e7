"""Counting what is trained: the table that each run prints."""

from dataclasses import asdict, dataclass

import torch

from finetune.model.sharded import true_shape


@dataclass(frozen=True)
class ParameterGroup:
    """Tensors that share a role and a storage format."""

    trained: bool
    bits: int
    """Bits of one parameter as stored."""
    num_tensors: int
    num_parameters: int
    num_bytes: int


@dataclass(frozen=True)
class ParameterSummary:
    """All parameters of a model, by role and format."""

    groups: tuple[ParameterGroup, ...]

    @property
    def num_trained(self) -> int:
        return sum(group.num_parameters for group in self.groups if group.trained)

    @property
    def num_parameters(self) -> int:
        return sum(group.num_parameters for group in self.groups)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def summarize_parameters(model: torch.nn.Module) -> ParameterSummary:
    """Count tensors, parameters, bits and bytes, trained and frozen.

    A 4-bit tensor of bitsandbytes packs two parameters in a byte; its own record of the original shape is counted.
    Tensors that ZeRO-3 has spread over processes count whole.
    """
    totals: dict[tuple[bool, int], list[int]] = {}
    for parameter in model.parameters():
        state = vars(parameter).get("quant_state")
        stored = true_shape(parameter).numel()
        count = state.shape.numel() if state is not None else stored
        num_bytes = stored * parameter.element_size()
        bits = round(8 * num_bytes / count) if count else 8 * parameter.element_size()
        group = totals.setdefault((parameter.requires_grad, bits), [0, 0, 0])
        for position, amount in enumerate((1, count, num_bytes)):
            group[position] += amount
    ordered = sorted(totals.items(), key=lambda item: (not item[0][0], item[0][1]))
    return ParameterSummary(tuple(ParameterGroup(trained, bits, *amounts) for (trained, bits), amounts in ordered))
