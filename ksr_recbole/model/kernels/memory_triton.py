"""GPU kernels of the memory for frozen KB embeddings, in Triton.

One program keeps one lane's value matrix on the chip through all its steps; the backward pass
runs the writes again instead of storing ``P x A x E`` states.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ksr_recbole.model.kernels.memory import Updates
from ksr_recbole.model.kernels.packing import steps_of_lanes


@triton.jit
def _scan(
    factors,
    table,
    index,
    bias,
    values,
    begins,
    lengths,
    result,
    n_attributes,
    size,
    block_a: tl.constexpr,
    block_e: tl.constexpr,
    reads: tl.constexpr,
    differentiates: tl.constexpr,
):
    lane = tl.program_id(0).to(tl.int64)
    a, e = tl.arange(0, block_a), tl.arange(0, block_e)
    inside = (a[:, None] < n_attributes) & (e[None, :] < size)
    cell = a[:, None] * size + e[None, :]
    matrix = values + lane * n_attributes * size + cell
    value = tl.load(matrix, mask=inside, other=0.0)
    n_steps = tl.load(lengths + lane)
    for step in range(0, n_steps):
        row = tl.load(begins + step) + lane
        item = tl.load(index + row)
        update = tl.load(table + item * n_attributes * size + cell, mask=inside, other=0.0)
        gate = tl.sigmoid(tl.sum(value * update, axis=1) + bias)  # Eq. 8
        value += gate[:, None] * (update - value)  # Eq. 9
        if reads:
            weight = tl.load(factors + row * n_attributes + a, mask=a < n_attributes, other=0.0)
            read = tl.sum(weight[:, None] * value, axis=0)  # Eq. 5
            tl.store(result + row * size + e, read, mask=e < size)
        if differentiates:
            gradient = tl.load(factors + row * size + e, mask=e < size, other=0.0)
            of_weight = tl.sum(value * gradient[None, :], axis=1)
            tl.store(result + row * n_attributes + a, of_weight, mask=a < n_attributes)
    tl.store(matrix, value, mask=inside)


def _run(
    mode: str,
    factors: Tensor,
    updates: Updates,
    values: Tensor,
    layout: tuple[Tensor, Tensor],
    result: Tensor,
) -> Tensor:
    """Run the scan in ``mode`` and return the value matrices after it, ``[B, A, E]``."""
    after = values.detach().float().contiguous().clone()
    _, n_attributes, size = after.shape
    block_a, block_e = triton.next_power_of_2(n_attributes), triton.next_power_of_2(size)
    with torch.cuda.device_of(after):  # Triton launches on the current GPU
        _scan[(len(after),)](
            *(x.detach().float().contiguous() for x in (factors, updates.table)),
            updates.index,
            float(updates.gate_bias),
            after,
            *layout,
            result,
            n_attributes,
            size,
            block_a=block_a,
            block_e=block_e,
            reads=mode == "read",
            differentiates=mode == "differentiate",
            # 32 numbers for each thread: with more, compiling takes minutes and registers run out.
            num_warps=min(32, max(4, block_a * block_e // 1024)),
        )
    return after


def _layout(widths: Sequence[int], values: Tensor) -> tuple[Tensor, Tensor]:
    first, second = steps_of_lanes(widths, len(values))
    return first.to(values.device), second.to(values.device)


class _WriteThenRead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, updates: Updates, values: Tensor, layout):
        ctx.save_for_backward(updates.table, updates.index, values)
        ctx.layout, ctx.gate_bias = layout, updates.gate_bias
        read = values.new_empty(len(weights), values.shape[2], dtype=torch.float32)
        after = _run("read", weights, updates, values, layout, read)
        ctx.mark_non_differentiable(after)
        return read, after

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, _: Tensor):
        table, index, values = ctx.saved_tensors
        updates = Updates(table, index, ctx.gate_bias)
        result = values.new_empty(len(gradient), values.shape[1], dtype=torch.float32)
        _run("differentiate", gradient, updates, values, ctx.layout, result)
        return result, None, None, None


def write_then_read(
    weights: Tensor, updates: Updates, values: Tensor, widths: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """As :func:`ksr_recbole.model.kernels.memory.write_then_read`, in float32 on the GPU."""
    return _WriteThenRead.apply(weights, updates, values, _layout(widths, values))


def write_all(updates: Updates, values: Tensor, widths: Sequence[int]) -> Tensor:
    """As :func:`ksr_recbole.model.kernels.memory.write_all`, in float32 on the GPU."""
    unused = updates.table
    return _run("write", unused, updates, values, _layout(widths, values), unused)
