"""Cross entropy of the next token, from the hidden states, at the trained positions, without ever all of the logits.

A row of logits is as wide as the vocabulary, often the widest tensor of the model.  Here the output matrix is applied
to a few rows at a time, and their gradient is taken in the same pass, while their logits are at hand: three products
per row where the head trains and two where it is frozen, as in the plain computation, and none again in the backward
pass.  Liger's kernel (Hsu et al. 2024) does it in this order too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import torch

CHUNK_BYTES = {"cpu": 32 * 2**20, "cuda": 512 * 2**20}
"""Bytes of float32 logits at a time, by device: small enough for a cache, large enough for full matrix units."""
PRODUCT_ROWS = 8192
"""Rows of the output matrix whose gradient is added at one time in 16 bits."""


@dataclass(frozen=True)
class LogitShape:
    """What a model makes of the product with its output matrix: ``softcap * tanh(scale * x / softcap)``.

    Cohere and Granite scale their logits, Gemma caps them.
    """

    scale: float = 1.0
    softcap: float | None = None

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Scale and cap float32 logits in place."""
        if self.scale != 1.0:
            logits.mul_(self.scale)
        return logits.div_(self.softcap).tanh_().mul_(self.softcap) if self.softcap else logits

    def slope(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Return the derivative at logits that were made by :meth:`apply`; None where it is 1 everywhere."""
        if self.softcap:
            return (logits / self.softcap).square_().neg_().add_(1).mul_(self.scale)
        return None if self.scale == 1.0 else logits.new_full((), self.scale)


@dataclass(frozen=True)
class Head:
    """The output matrix ``[vocabulary, width]``, its bias ``[vocabulary]``, and what follows it."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    shape: LogitShape = LogitShape()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of ``[rows, width]`` in float32, a new tensor."""
        product = torch.nn.functional.linear(hidden, self.weight, self.bias)
        return self.shape.apply(product.float() if product.dtype != torch.float32 else product)

    def computing(self, hidden: torch.Tensor) -> "Head":
        """Return the head in the format in which products are taken here: autocast's, or its own."""
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        bias = None if self.bias is None else self.bias.detach().to(dtype)
        return Head(self.weight.detach().to(dtype), bias, self.shape)

    def chunks(self, num_rows: int) -> list[slice]:
        """Return the rows whose logits are made together."""
        budget = CHUNK_BYTES["cpu" if self.weight.device.type == "cpu" else "cuda"]
        step = max(budget // (4 * len(self.weight)), 16)
        return [slice(start, start + step) for start in range(0, num_rows, step)]


def token_losses(hidden: torch.Tensor, head: Head, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of each token, without gradients.

    Args:
        hidden: ``[num_tokens, width]``, any float type.
        head: the model's output matrix.
        targets: ``[num_tokens]``, the token that each row has to predict.

    Returns:
        ``[num_tokens]`` float32, in nats.
    """
    with torch.no_grad():
        head = head.computing(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            losses = hidden.new_empty(len(hidden), dtype=torch.float32)
            for chunk in head.chunks(len(hidden)):
                logits = head.logits(hidden[chunk].to(head.weight.dtype))
                losses[chunk] = torch.nn.functional.cross_entropy(logits, targets[chunk], reduction="none")
        return losses


class Gradients(NamedTuple):
    """A summed loss and its gradients, each None where nothing trains."""

    total: torch.Tensor
    """Float32 scalar, in nats."""
    of_hidden: torch.Tensor | None
    of_weight: torch.Tensor | None
    of_bias: torch.Tensor | None


Maker = Callable[[torch.Tensor, Head, torch.Tensor, tuple[bool, bool, bool]], Gradients]
"""Makes the gradients of hidden states, head and targets; the flags say which of the three kinds are wanted."""


def loss_and_gradients(
    hidden: torch.Tensor, head: Head, targets: torch.Tensor, wanted: tuple[bool, bool, bool]
) -> Gradients:
    """Sum the losses of ``[num_tokens, width]`` hidden states, and take the gradients chunk by chunk."""
    total = torch.zeros((), device=hidden.device)
    of_hidden = torch.empty_like(hidden) if wanted[0] else None
    of_weight = torch.zeros_like(head.weight, dtype=torch.float32) if wanted[1] else None
    of_bias = torch.zeros_like(head.bias, dtype=torch.float32) if wanted[2] and head.bias is not None else None
    head = head.computing(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        for chunk in head.chunks(len(hidden)):
            rows = hidden[chunk].to(head.weight.dtype)
            losses, gradient = _loss_and_gradient(head, rows, targets[chunk])
            total += losses.sum()
            if of_bias is not None:
                of_bias += gradient.sum(dim=0)
            gradient = gradient.to(rows.dtype)
            if of_hidden is not None:
                of_hidden[chunk] = gradient @ head.weight
            if of_weight is not None:
                _add_product(of_weight, gradient, rows)
            del gradient  # or it would be there beside the next chunk's logits
    return Gradients(total, of_hidden, of_weight, of_bias)


def summed_loss(
    hidden: torch.Tensor,
    head: Head,
    targets: torch.Tensor,
    empty_input: torch.Tensor,
    make: Maker = loss_and_gradients,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed cross entropy of ``[num_tokens, width]`` hidden states, with its gradient.

    Returns:
        The sum, a float32 scalar, and an empty ``[1, 0, vocabulary]`` tensor, which stands for the logits.
    """
    outcome: tuple[torch.Tensor, torch.Tensor] = _SummedLoss.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, targets, (head.shape, make), empty_input
    )
    return outcome


class _SummedLoss(torch.autograd.Function):
    """The gradient is made in the forward pass, and only scaled in the backward pass.

    Both outputs hang on this function, and ``empty_input`` goes in for that alone: whoever watches the head's output
    or its input for the backward pass, as ZeRO-3 does to gather the weight and let it go, is called before and after.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        way: tuple[LogitShape, Maker],
        empty_input: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum the losses and keep the gradients of what trains."""
        shape, make = way
        made = make(hidden, Head(weight, bias, shape), targets, ctx.needs_input_grad[:3])
        ctx.gradients = made[1:]
        ctx.formats = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        ctx.empty = empty_input
        return made.total, hidden.new_empty(1, 0, len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outgoing: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Scale what the forward pass kept; once, since it is scaled in place."""
        if ctx.gradients is None:
            _refuse_second_pass()
        scaled = [
            None if gradient is None else gradient.mul_(outgoing[0]).to(dtype)
            for gradient, dtype in zip(ctx.gradients, ctx.formats, strict=True)
        ]
        ctx.gradients = None
        return (*scaled, None, None, torch.zeros_like(ctx.empty))


def _loss_and_gradient(head: Head, rows: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the losses ``[rows]`` and their gradients by the product with the matrix ``[rows, vocabulary]``."""
    logits = head.logits(rows)
    slope = head.shape.slope(logits)
    log_probabilities = torch.log_softmax(logits, dim=-1)
    column = targets.unsqueeze(1)
    losses = -log_probabilities.gather(1, column).squeeze(1)
    gradient = log_probabilities.exp_()
    gradient.scatter_add_(1, column, gradient.new_full(column.shape, -1.0))
    return losses, gradient if slope is None else gradient.mul_(slope)


def _add_product(total: torch.Tensor, gradient: torch.Tensor, rows: torch.Tensor) -> None:
    """Add ``gradient.T @ rows`` to a float32 sum."""
    if rows.dtype == torch.float32:
        total.addmm_(gradient.T, rows)
    else:  # in parts, since the product and its float32 copy would be as large as the matrix
        for start in range(0, len(total), PRODUCT_ROWS):
            part = slice(start, start + PRODUCT_ROWS)
            total[part] += gradient[:, part].T @ rows


def _refuse_second_pass() -> NoReturn:
    raise RuntimeError("the gradient of the loss was taken already, and is kept for one backward pass only")


def sequence_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum the cross entropy of each sequence over its trained tokens, from logits at hand.

    Args:
        logits: ``[batch, kept, vocabulary]``, any float type.
        labels: ``[batch, kept]``, the token that each position has to predict, -100 where untrained.

    Returns:
        ``[batch, 2]`` float64: the loss sum in nats and the number of trained tokens.
    """
    rows = []
    for row_logits, row_labels in zip(logits, labels, strict=True):
        kept = row_labels != -100
        loss = torch.nn.functional.cross_entropy(row_logits[kept].float(), row_labels[kept], reduction="sum")
        rows.append(torch.stack([loss.double(), kept.sum().double()]))
    return torch.stack(rows)


def sum_by_row(losses: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Sum the losses of single tokens by the row that each is in.

    Args:
        losses: ``[num_tokens]``, those of the first row first.
        counts: ``[num_rows]`` int64, how many tokens each row has.

    Returns:
        ``[num_rows, 2]`` float64: the loss sum in nats and the number of tokens of each row.
    """
    rows = torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=len(losses))
    sums = losses.new_zeros(len(counts), dtype=torch.float64).index_add_(0, rows, losses.double())
    return torch.stack([sums, counts.double()], dim=1)
