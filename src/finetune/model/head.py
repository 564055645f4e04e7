"""The output matrix of a model, made to give losses where it would give logits.

transformers computes logits and then the loss.  To make the loss without the logits, inside the model's own forward
pass (where DDP and DeepSpeed have their hooks and ZeRO-3 has the weights), two hooks of ``torch.nn.Module`` stand
around the output layer.  They do nothing until :class:`LossHead` is asked for the loss of a batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from transformers import PretrainedConfig, PreTrainedModel

from finetune.model.liger import liger_loss
from finetune.model.loss import (
    Head,
    LogitShape,
    Maker,
    loss_and_gradients,
    sequence_losses,
    sum_by_row,
    summed_loss,
    token_losses,
)

Batch = dict[str, Any]

LOSS_KEYS = (
    "labels",
    "logits_to_keep",
    "shift_labels",
    "trained_positions",
    "trained_targets",
    "trained_counts",
    "trained_lengths",
)
"""What a batch of :class:`finetune.data.collate.SupervisedCollator` says about the loss."""

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 1e-2}
"""Relative difference that rounding may make between a loss from here and one from logits, by compute format."""


def split_batch(batch: Batch) -> tuple[Batch, Batch]:
    """Return what the model reads, and what the loss reads."""
    inputs = {name: value for name, value in batch.items() if name not in LOSS_KEYS}
    return inputs, {name: batch[name] for name in LOSS_KEYS if name in batch}


def logit_sums(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return what :meth:`LossHead.row_sums` does, from all logits at the kept positions: for models without a head."""
    inputs, wanted = split_batch(batch)
    with torch.no_grad():
        logits = model(**inputs, logits_to_keep=wanted["logits_to_keep"]).logits
    return sequence_losses(logits, wanted["shift_labels"])


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return ``batch`` with its tensors on ``device``; numbers and tuples stay as they are."""
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


@dataclass
class Expected:
    """What the output layer has to predict in one forward pass, and the outcome."""

    positions: torch.Tensor
    """``[num_tokens]``, counted through the rows laid end to end."""
    targets: torch.Tensor
    hidden: torch.Tensor | None = None
    outcome: torch.Tensor | None = None
    """The loss sum where gradients are taken, else the loss of each token."""


class LossHead:
    """Hooks around the output layer of a model."""

    def __init__(self, layer: torch.nn.Linear, shape: LogitShape, make: Maker = loss_and_gradients) -> None:
        self.layer = layer
        self.shape = shape
        self.make = make
        self.proven = False
        """Whether the losses were compared with the model's own, and are the same."""
        self.expected: Expected | None = None
        self.handles = [
            layer.register_forward_pre_hook(self._take_hidden),
            layer.register_forward_hook(self._give_loss),
        ]

    def loss_sum(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return the summed loss of a batch's trained tokens, a float32 scalar, with its gradient if asked for."""
        outputs, outcome = self._forward(model, batch)
        # the empty logits tie the model's own outputs into the graph: engines watch those
        total: torch.Tensor = outcome.sum() + outputs.logits.sum()
        return total

    def token_losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss of each trained token, ``[num_trained]`` float32, without gradients."""
        with torch.no_grad():
            return self._forward(model, batch)[1]

    def row_sums(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss sum and the number of trained tokens of each sample, ``[num_samples, 2]`` float64."""
        return sum_by_row(self.token_losses(model, batch), batch["trained_counts"])

    def remove(self) -> None:
        """Take the hooks away: the model is as it was."""
        for handle in self.handles:
            handle.remove()

    def _forward(self, model: torch.nn.Module, batch: Batch) -> tuple[Any, torch.Tensor]:
        inputs, wanted = split_batch(batch)
        with self._expect(wanted["trained_positions"], wanted["trained_targets"]) as expected:
            outputs = model(**inputs)
        if expected.outcome is None:
            raise TypeError("the model did not call its output layer")
        return outputs, expected.outcome

    @contextmanager
    def _expect(self, positions: torch.Tensor, targets: torch.Tensor) -> Iterator[Expected]:
        self.expected = Expected(positions, targets)
        try:
            yield self.expected
        finally:
            self.expected = None

    def _take_hidden(self, layer: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Keep the hidden states of the trained tokens, and send none of them through the layer."""
        if self.expected is None:
            return None
        (hidden,) = arguments
        self.expected.hidden = hidden.reshape(-1, hidden.shape[-1]).index_select(0, self.expected.positions)
        return (self.expected.hidden[:0].unsqueeze(0),)

    def _give_loss(self, layer: torch.nn.Linear, arguments: tuple[Any, ...], output: torch.Tensor) -> Any:
        expected = self.expected
        if expected is None:
            return None
        assert expected.hidden is not None
        if not torch.is_grad_enabled():
            expected.outcome = token_losses(
                expected.hidden, Head(layer.weight, layer.bias, self.shape), expected.targets
            )
            return None
        expected.outcome, empty = summed_loss(
            expected.hidden, Head(layer.weight, layer.bias, self.shape), expected.targets, arguments[0], self.make
        )
        return empty


def attach_head(model: PreTrainedModel | PeftModel, *, liger: bool = False) -> LossHead | None:
    """Put a :class:`LossHead` on the output layer; None where that is no plain linear layer.

    An adapter on the output layer and quantized output layers compute more than one product, and keep the model's own
    way.  ``liger`` takes Liger's kernel where nothing follows the layer.  Whether the rest of the model is as it
    looks, :mod:`finetune.training.loss_check` finds out.
    """
    layer = model.get_output_embeddings()
    if isinstance(layer, ModulesToSaveWrapper):
        layer = layer.original_module if layer.disable_adapters else layer.modules_to_save[layer.active_adapters[0]]
    if type(layer) is not torch.nn.Linear:
        return None
    shape = _logit_shape(model.config)
    return LossHead(layer, shape, liger_loss if liger and shape == LogitShape() else loss_and_gradients)


def _logit_shape(config: PretrainedConfig) -> LogitShape:
    """Read what follows the output layer: Gemma's ``final_logit_softcapping``, Cohere's and Granite's scales."""
    values = config.get_text_config().to_dict()
    scale = float(values.get("logit_scale") or 1.0) / float(values.get("logits_scaling") or 1.0)
    return LogitShape(scale, values.get("final_logit_softcapping"))
