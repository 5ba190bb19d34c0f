"""Scores of a few items a user against their definition."""

from __future__ import annotations

import pytest
import torch

from ksr_recbole.model import scores
from ksr_recbole.model.scores import sampled_scores


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
