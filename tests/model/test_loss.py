"""The loss and its gradient, made a few rows at a time, are those of plain cross entropy."""

from collections.abc import Iterator

import pytest
import torch
from torch.nn.functional import cross_entropy

from finetune.model import loss as loss_module
from finetune.model.loss import Head, LogitShape, sequence_losses, sum_by_row, summed_loss, token_losses

VOCABULARY, WIDTH = 50, 16
SHAPES = [LogitShape(), LogitShape(scale=0.5), LogitShape(softcap=3.0), LogitShape(scale=2.0, softcap=3.0)]


@pytest.fixture(autouse=True)
def small_chunks() -> Iterator[None]:
    """Sixteen rows at a time, the fewest there are."""
    budget = dict(loss_module.CHUNK_BYTES)
    loss_module.CHUNK_BYTES["cpu"] = 0
    yield
    loss_module.CHUNK_BYTES.update(budget)


def parts(
    num_tokens: int, *, bias: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Return hidden states, weight, bias and targets."""
    random = torch.Generator().manual_seed(num_tokens)
    hidden = torch.randn(num_tokens, WIDTH, generator=random, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, generator=random, requires_grad=True)
    offset = torch.randn(VOCABULARY, generator=random, requires_grad=True) if bias else None
    return hidden, weight, offset, torch.randint(0, VOCABULARY, (num_tokens,), generator=random)


def plain(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, shape: LogitShape
) -> torch.Tensor:
    """Return the losses of each token, from all of the logits."""
    logits = torch.nn.functional.linear(hidden, weight, bias) * shape.scale
    if shape.softcap:
        logits = shape.softcap * torch.tanh(logits / shape.softcap)
    return cross_entropy(logits.float(), targets, reduction="none")


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "scaled", "capped", "both"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("num_tokens", [1, 15, 16, 17, 48, 0])
def test_loss_and_gradients_are_those_of_plain_cross_entropy(num_tokens: int, bias: bool, shape: LogitShape) -> None:
    hidden, weight, offset, targets = parts(num_tokens, bias=bias)
    leaves = [leaf for leaf in (hidden, weight, offset) if leaf is not None]

    total, empty = summed_loss(hidden, Head(weight, offset, shape), targets, hidden[:0])
    (total + empty.sum()).div(7).backward()
    ours = [leaf.grad.clone() for leaf in leaves]
    expected = plain(hidden, weight, offset, targets, shape).sum()
    theirs = torch.autograd.grad(expected / 7, leaves)

    assert empty.shape == (1, 0, VOCABULARY)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "scaled", "capped", "both"])
def test_the_losses_of_single_tokens_are_those_of_plain_cross_entropy(shape: LogitShape) -> None:
    hidden, weight, bias, targets = parts(33)
    losses = token_losses(hidden, Head(weight, bias, shape), targets)
    torch.testing.assert_close(losses, plain(hidden, weight, bias, targets, shape).detach(), rtol=0, atol=1e-5)
    assert not losses.requires_grad


def test_what_does_not_train_gets_no_gradient() -> None:
    hidden, weight, bias, targets = parts(20)
    total, _ = summed_loss(hidden, Head(weight.detach(), bias), targets, hidden[:0])
    of_hidden, of_bias = torch.autograd.grad(total, [hidden, bias])
    frozen, _ = summed_loss(hidden.detach(), Head(weight, None), targets, hidden[:0].detach())
    frozen.backward()

    assert of_hidden.abs().sum() > 0
    assert of_bias.abs().sum() > 0
    assert weight.grad.abs().sum() > 0


def test_products_run_in_the_format_of_autocast_and_sums_in_float32() -> None:
    hidden, weight, bias, targets = parts(40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = summed_loss(hidden, Head(weight, bias), targets, hidden[:0])
        expected = plain(hidden, weight, bias, targets, LogitShape()).sum()
    ours, theirs = torch.autograd.grad(total, [hidden, weight]), torch.autograd.grad(expected, [hidden, weight])

    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(expected.item(), rel=1e-4)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - other).norm() < 1e-2 * other.norm()


def test_a_wide_vocabulary_has_its_gradient_added_in_parts_and_whole() -> None:
    hidden = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(loss_module.PRODUCT_ROWS + 100, WIDTH, generator=torch.Generator().manual_seed(2))
    weight.requires_grad_()
    targets = torch.arange(0, len(weight), len(weight) // 20)[:20]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = summed_loss(hidden, Head(weight, None), targets, hidden[:0])
        expected = plain(hidden, weight, None, targets, LogitShape()).sum()
    (ours,), (theirs,) = torch.autograd.grad(total, weight), torch.autograd.grad(expected, weight)
    for part in (slice(None, loss_module.PRODUCT_ROWS), slice(loss_module.PRODUCT_ROWS, None)):
        assert (ours[part] - theirs[part]).norm() < 1e-2 * theirs[part].norm()


def test_a_second_backward_pass_is_refused() -> None:
    hidden, weight, bias, targets = parts(4)
    total, _ = summed_loss(hidden, Head(weight, bias), targets, hidden[:0])
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="the gradient of the loss was taken already"):
        total.backward()


def test_sequence_losses_match_a_sum_by_hand() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, -100, 2], [-100, 4, -100]])
    log_probabilities = logits.log_softmax(dim=-1)

    sums = sequence_losses(logits, labels)

    expected_first = -(log_probabilities[0, 0, 1] + log_probabilities[0, 2, 2])
    assert sums[:, 1].tolist() == [2, 1]
    assert sums[0, 0].item() == pytest.approx(expected_first.item(), rel=1e-6)
    assert sums[1, 0].item() == pytest.approx(-log_probabilities[1, 1, 4].item(), rel=1e-6)


def test_losses_are_summed_by_row_and_a_row_without_any_is_zero() -> None:
    sums = sum_by_row(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 1]))
    assert sums.tolist() == [[3.0, 2.0], [0.0, 0.0], [4.0, 1.0]]
