"""Products whose results have rows that begin at cache lines.

A product that is written into rows of 306 numbers takes longer on a CPU than the same product
written into rows that lie 320 numbers apart, because most of those rows begin in the middle of a
cache line.  The numbers are the same, to the last bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_LINE = 16
"""Numbers in single precision in a cache line."""


def empty_rows(like: Tensor, n_rows: int, n_columns: int) -> Tensor:
    """An uninitialised matrix of the same kind, ``[n_rows, n_columns]``.

    On the CPU its rows begin at cache lines, so that it may not be contiguous.
    """
    if like.device.type != "cpu":
        return like.new_empty(n_rows, n_columns)
    return like.new_empty(n_rows, -(-n_columns // _LINE) * _LINE)[:, :n_columns]


class AlignedLinear(nn.Linear):
    """A linear layer whose results, and the gradients of its inputs, have aligned rows."""

    def forward(self, input: Tensor) -> Tensor:
        """The layer's result for ``[..., in_features]``, ``[..., out_features]``."""
        # Where a size is a multiple of a line, or another kernel computes, nothing is to be won.
        odd = self.in_features % _LINE or self.out_features % _LINE
        plain = input.device.type == "cpu" and input.dtype == torch.float32 and input.dim() == 2
        if odd and plain and self.bias is not None and not torch.is_autocast_enabled("cpu"):
            return _Linear.apply(input, self.weight, self.bias)
        return super().forward(input)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        result = empty_rows(inputs, len(inputs), len(weight))
        return torch.addmm(bias, inputs, weight.t(), out=result)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        of_inputs = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_inputs = empty_rows(inputs, *inputs.shape)
            torch.mm(gradient, weight, out=of_inputs)
        if ctx.needs_input_grad[1]:
            of_weight = gradient.t() @ inputs
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(0)
        return of_inputs, of_weight, of_bias
