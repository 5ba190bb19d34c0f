"""Scores of a few items a user, and the softmax over all, against their definitions."""

from __future__ import annotations

import pytest
import torch

from ksr_recbole.model.kernels import losses, scores
from ksr_recbole.model.kernels.losses import softmax_loss
from ksr_recbole.model.kernels.scores import sampled_scores


@pytest.mark.parametrize("kernel", ["fused", "plain"])
def test_scores_and_gradients_equal_the_definition(kernel, monkeypatch):
    if kernel == "plain":
        monkeypatch.setattr(scores, "fused", lambda *_: None)
    else:
        pytest.importorskip("numba")
    generator = torch.Generator().manual_seed(0)
    users = torch.randn(7, 5, generator=generator, requires_grad=True)
    table = torch.randn(4, 5, generator=generator, requires_grad=True)
    items = torch.randint(0, 3, (7, 6), generator=generator)  # repeats; the fourth is unused
    factor = torch.randn(7, 6, generator=generator)
    expected = torch.stack([(users[p] * table[items[p]]).sum(-1) for p in range(7)])
    got = sampled_scores(users, table, items)
    torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad((s * factor).sum(), [users, table]) for s in (expected, got)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one)


@pytest.mark.parametrize("piece", [1, 13, 10_000])
def test_softmax_in_pieces_is_the_cross_entropy(piece, monkeypatch):
    monkeypatch.setattr(losses, "PIECE", piece)
    generator = torch.Generator().manual_seed(0)
    users = (30 * torch.randn(7, 5, generator=generator)).double().requires_grad_()
    items = torch.randn(4, 5, generator=generator).double().requires_grad_()
    targets = torch.randint(0, 4, (7,), generator=generator)
    expected = torch.nn.functional.cross_entropy(users @ items.T, targets, reduction="sum")
    got = softmax_loss(users, items, targets)
    torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad(3 * loss, [users, items]) for loss in (expected, got)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one)
