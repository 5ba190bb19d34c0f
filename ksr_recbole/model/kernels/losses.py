"""Softmax over all items, in pieces that stay in the processor's cache."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.nn import functional as F

PIECE = 1 << 20
"""Scores held at a time."""


def softmax_loss(users: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """RecBole's ``CE``: cross entropy of the targets among all items, summed.

    Args:
        users: user vectors, ``[P, d]``.
        items: item vectors, ``[m, d]``.
        targets: row of ``items`` for each user, ``int64 [P]``.

    Returns:
        A scalar.
    """
    if users.device.type != "cpu":
        return F.cross_entropy(users @ items.T, targets, reduction="sum")
    return _SoftmaxLoss.apply(users, items, targets)


class _SoftmaxLoss(torch.autograd.Function):
    """Finds the gradients while the scores of a piece are at hand, so no scores are kept."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx, users: Tensor, items: Tensor, targets: Tensor):
        user_gradient, item_gradient = torch.empty_like(users), torch.zeros_like(items)
        loss = users.new_zeros(())
        piece = max(1, PIECE // len(items))
        for start in range(0, len(users), piece):
            rows = slice(start, start + piece)
            scores, wanted = users[rows] @ items.T, targets[rows, None]
            scores -= scores.amax(dim=1, keepdim=True)
            loss -= scores.gather(1, wanted).sum()
            totals = scores.exp_().sum(dim=1, keepdim=True)
            loss += totals.log().sum()
            scores /= totals
            scores.scatter_add_(1, wanted, scores.new_full(wanted.shape, -1))
            torch.mm(scores, items, out=user_gradient[rows])
            item_gradient.addmm_(scores.T, users[rows])
        ctx.save_for_backward(user_gradient, item_gradient)
        return loss

    @staticmethod
    @custom_bwd(device_type="cpu")
    def backward(ctx, gradient: Tensor):
        return *(part * gradient for part in ctx.saved_tensors), None
