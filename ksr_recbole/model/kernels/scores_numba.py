"""CPU kernels of :mod:`ksr_recbole.model.kernels.scores`."""

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from ksr_recbole.model.kernels.bounds import check_rows
from ksr_recbole.model.kernels.compiling import cached_njit

_FAST = {"contract", "reassoc"}


@cached_njit(parallel=True, fastmath=_FAST)
def _scores(users, table, items, result):
    for p in prange(items.shape[0]):
        for n in range(items.shape[1]):
            vector, total = table[items[p, n]], np.float32(0)
            for k in range(users.shape[1]):
                total += users[p, k] * vector[k]
            result[p, n] = total


@cached_njit(parallel=True, fastmath=_FAST)
def _user_gradient(gradient, table, items, result):
    for p in prange(items.shape[0]):
        result[p] = 0
        for n in range(items.shape[1]):
            vector, factor = table[items[p, n]], gradient[p, n]
            for k in range(result.shape[1]):
                result[p, k] += factor * vector[k]


@cached_njit(parallel=True, fastmath=_FAST)
def _item_gradient(gradient, users, order, begins, result):
    # `order` lists the cells of `items` by item, so no two threads add to one row.
    width = gradient.shape[1]
    for i in prange(result.shape[0]):
        result[i] = 0
        for at in range(begins[i], begins[i + 1]):
            p, n = order[at] // width, order[at] % width
            factor = gradient[p, n]
            for k in range(result.shape[1]):
                result[i, k] += factor * users[p, k]


class _SampledScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, users: Tensor, table: Tensor, items: Tensor):
        ctx.save_for_backward(users, table, items)
        result = users.new_empty(items.shape)
        _scores(*(x.detach().contiguous().numpy() for x in (users, table, items, result)))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        users, table, items = (x.contiguous() for x in ctx.saved_tensors)
        user_gradient = torch.empty_like(users)
        g, u, v, i = (x.detach().numpy() for x in (gradient.contiguous(), users, table, items))
        _user_gradient(g, v, i, user_gradient.numpy())
        if not ctx.needs_input_grad[1]:  # frozen items without an MLP
            return user_gradient, None, None
        item_gradient = torch.empty_like(table)
        order = np.argsort(i.ravel(), kind="stable")
        begins = np.concatenate([[0], np.cumsum(np.bincount(i.ravel(), minlength=len(v)))])
        _item_gradient(g, u, order, begins, item_gradient.numpy())
        return user_gradient, item_gradient, None


def sampled_scores(users: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """As :func:`ksr_recbole.model.kernels.scores.sampled_scores`, in float32 on the CPU."""
    check_rows(items, len(table))
    return _SampledScores.apply(users, table, items)
