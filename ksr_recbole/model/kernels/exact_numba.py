"""CPU kernels of the memory of exact values.

As in :mod:`ksr_recbole.model.kernels.memory_numba`, the backward pass runs the writes again
instead of keeping what each step read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ksr_recbole.model.kernels.exact import SMALLEST, ExactUpdates
from ksr_recbole.model.kernels.packing import steps_of_lanes

_compiled: Any = njit(parallel=True, cache=True, fastmath={"contract", "reassoc"})

_LEAST = np.float32(SMALLEST)


@njit(inline="always")
def _add(slots, item, starts, columns):
    for k in range(starts[item], starts[item + 1]):
        for s in range(slots.shape[0]):
            slots[s, columns[k]] += np.float32(1)


@_compiled
def _write_all(slots, items, starts, columns, decays, begins, lengths):
    for b in prange(slots.shape[0]):
        for t in range(lengths[b]):
            for s in range(slots.shape[1]):
                for v in range(slots.shape[2]):
                    slots[b, s, v] *= decays[s]
            _add(slots[b], items[begins[t] + b], starts, columns)


@_compiled
def _read(weights, slots, items, starts, columns, decays, begins, lengths, bounds, counts, result):
    for b in prange(slots.shape[0]):
        for t in range(lengths[b]):
            row = begins[t] + b
            for s in range(slots.shape[1]):
                for v in range(slots.shape[2]):
                    slots[b, s, v] *= decays[s]
            _add(slots[b], items[row], starts, columns)
            result[row] = 0
            for s in range(slots.shape[1]):
                total = max(slots[b, s, 0], _LEAST)
                for a in range(len(bounds) - 1):
                    weight = weights[row, s, a] / total
                    for v in range(bounds[a], bounds[a + 1]):
                        result[row, v] += weight * slots[b, s, v]
            for v in range(slots.shape[2]):
                result[row, v] *= counts[v]


@_compiled
def _weight_gradient(
    gradient, slots, items, starts, columns, decays, begins, lengths, bounds, counts, result
):
    for b in prange(slots.shape[0]):
        scaled = np.empty(slots.shape[2], np.float32)
        for t in range(lengths[b]):
            row = begins[t] + b
            for v in range(slots.shape[2]):
                scaled[v] = gradient[row, v] * counts[v]
            for s in range(slots.shape[1]):
                for v in range(slots.shape[2]):
                    slots[b, s, v] *= decays[s]
            _add(slots[b], items[row], starts, columns)
            for s in range(slots.shape[1]):
                total = max(slots[b, s, 0], _LEAST)
                for a in range(len(bounds) - 1):
                    part = np.float32(0)
                    for v in range(bounds[a], bounds[a + 1]):
                        part += scaled[v] * slots[b, s, v]
                    result[row, s, a] = part / total


@_compiled
def _match(taste, items, starts, columns, result):
    for row in prange(taste.shape[0]):
        for m in range(len(items)):
            total = np.float32(0)
            for k in range(starts[items[m]], starts[items[m] + 1]):
                total += taste[row, columns[k]]
            result[row, m] = total


@_compiled
def _match_gradient(gradient, items, starts, columns, result):
    for row in prange(gradient.shape[0]):
        result[row] = 0
        for m in range(len(items)):
            part = gradient[row, m]
            for k in range(starts[items[m]], starts[items[m] + 1]):
                result[row, columns[k]] += part


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float32).contiguous().numpy()


def _arguments(updates: ExactUpdates, widths: Sequence[int], n_lanes: int) -> tuple[Any, ...]:
    layout = (part.numpy() for part in steps_of_lanes(widths, n_lanes))
    sparse = (updates.items.numpy(), updates.starts.numpy(), updates.columns.numpy())
    return *sparse, _array(updates.decays), *layout


class _WriteThenRead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, slots: Tensor, arguments, bounds, counts):
        after = _array(slots).copy()
        result = np.empty((len(weights), slots.shape[2]), np.float32)
        _read(_array(weights), after, *arguments, bounds, counts, result)
        ctx.slots, ctx.fixed, ctx.shape = slots, (*arguments, bounds, counts), weights.shape
        after_tensor = torch.from_numpy(after)
        ctx.mark_non_differentiable(after_tensor)
        return torch.from_numpy(result), after_tensor

    @staticmethod
    def backward(ctx, gradient: Tensor, _: Tensor):
        result = np.empty(ctx.shape, np.float32)
        _weight_gradient(_array(gradient), _array(ctx.slots).copy(), *ctx.fixed, result)
        return torch.from_numpy(result), None, None, None, None


def write_then_read(
    weights: Tensor,
    updates: ExactUpdates,
    slots: Tensor,
    widths: Sequence[int],
    attributes: Tensor,
    value_weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """As :func:`ksr_recbole.model.kernels.exact.write_then_read`, in float32 on the CPU."""
    arguments = _arguments(updates, widths, len(slots))
    numbers = torch.arange(weights.shape[2] + 1)
    bounds = 1 + torch.searchsorted(attributes[1:].contiguous(), numbers)  # of each attribute
    return _WriteThenRead.apply(weights, slots, arguments, bounds.numpy(), _array(value_weights))


def write_all(updates: ExactUpdates, slots: Tensor, widths: Sequence[int]) -> Tensor:
    """As :func:`ksr_recbole.model.kernels.exact.write_all`, in float32 on the CPU."""
    after = _array(slots).copy()
    _write_all(after, *_arguments(updates, widths, len(after)))
    return torch.from_numpy(after)


class _Match(torch.autograd.Function):
    @staticmethod
    def forward(ctx, taste: Tensor, items: Tensor, starts: Tensor, columns: Tensor):
        result = np.empty((len(taste), len(items)), np.float32)
        ctx.arrays, ctx.shape = (items.numpy(), starts.numpy(), columns.numpy()), taste.shape
        _match(_array(taste), *ctx.arrays, result)
        return torch.from_numpy(result)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        result = np.empty(ctx.shape, np.float32)
        _match_gradient(_array(gradient), *ctx.arrays, result)
        return torch.from_numpy(result), None, None, None


def match(taste: Tensor, items: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    """As :func:`ksr_recbole.model.kernels.exact.match`, in float32 on the CPU."""
    return _Match.apply(taste, items, starts, columns)
