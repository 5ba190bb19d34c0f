"""CPU kernels of the memory of exact values.

A share is one weight in a slot over another, so what all weights of a time scale have lost cancels:
instead of letting every weight decay at each step, a kernel lets what it adds grow.  As in
:mod:`ksr_recbole.model.kernels.memory_numba`, the backward pass runs the writes again instead of
keeping what each step read; what each value counts is never kept for more than one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ksr_recbole.model.kernels.compiling import cached_njit
from ksr_recbole.model.kernels.exact import Reads
from ksr_recbole.model.kernels.packing import steps_of_lanes

# A short time scale leaves nothing of a weight: what is then added grows to infinity in one step,
# by which the slot becomes 0.  Numba's own division would end in an error instead.
_compiled: Any = cached_njit(parallel=True, fastmath={"contract", "reassoc"}, error_model="numpy")

_LARGEST = np.float32(1e20)
"""What is added grows to this much before all weights are scaled down."""


@njit(inline="always")
def _grow(slots, decays, added):
    for s in range(slots.shape[0]):
        added[s] /= decays[s]
        if added[s] > _LARGEST:
            for v in range(slots.shape[1]):
                slots[s, v] /= added[s]
            added[s] = 1


@njit(inline="always")
def _add(slots, item, starts, columns, added):
    for k in range(starts[item], starts[item + 1]):
        for s in range(slots.shape[0]):
            slots[s, columns[k]] += added[s]


@_compiled
def _write_all(slots, items, starts, columns, decays, begins, lengths):
    for b in prange(slots.shape[0]):
        added = np.ones(slots.shape[1], np.float32)
        for t in range(lengths[b]):
            _grow(slots[b], decays, added)
            _add(slots[b], items[begins[t] + b], starts, columns, added)
        for s in range(slots.shape[1]):
            for v in range(slots.shape[2]):
                slots[b, s, v] /= added[s]


@njit(inline="always")
def _match(taste, item, starts, columns):
    total = np.float32(0)
    for k in range(starts[item], starts[item + 1]):
        total += taste[columns[k]]
    return total


@njit(inline="always")
def _unmatch(gradient, item, starts, columns, part):
    for k in range(starts[item], starts[item + 1]):
        gradient[columns[k]] += part


@_compiled
def _terms(
    weights, slots, items, starts, columns, decays, begins, lengths, bounds, counts,
    shared, own, of_shared, of_own,
):  # fmt: skip
    for b in prange(slots.shape[0]):
        added = np.ones(slots.shape[1], np.float32)
        taste = np.zeros(slots.shape[2], np.float32)
        for t in range(lengths[b]):
            row = begins[t] + b
            _grow(slots[b], decays, added)
            _add(slots[b], items[row], starts, columns, added)
            taste[:] = 0
            for s in range(slots.shape[1]):
                for a in range(len(bounds) - 1):
                    weight = weights[row, s, a] / slots[b, s, 0]
                    for v in range(bounds[a], bounds[a + 1]):
                        taste[v] += weight * slots[b, s, v]
            for v in range(slots.shape[2]):
                taste[v] *= counts[v]
            for m in range(len(shared)):
                of_shared[row, m] = _match(taste, shared[m], starts, columns)
            for c in range(own.shape[1]):
                of_own[row, c] = _match(taste, own[row, c], starts, columns)


@_compiled
def _weight_gradient(
    slots, items, starts, columns, decays, begins, lengths, bounds, counts,
    shared, own, of_shared, of_own, result,
):  # fmt: skip
    for b in prange(slots.shape[0]):
        added = np.ones(slots.shape[1], np.float32)
        taste = np.zeros(slots.shape[2], np.float32)
        for t in range(lengths[b]):
            row = begins[t] + b
            _grow(slots[b], decays, added)
            _add(slots[b], items[row], starts, columns, added)
            taste[:] = 0
            for m in range(len(shared)):
                _unmatch(taste, shared[m], starts, columns, of_shared[row, m])
            for c in range(own.shape[1]):
                _unmatch(taste, own[row, c], starts, columns, of_own[row, c])
            for v in range(slots.shape[2]):
                taste[v] *= counts[v]
            for s in range(slots.shape[1]):
                for a in range(len(bounds) - 1):
                    part = np.float32(0)
                    for v in range(bounds[a], bounds[a + 1]):
                        part += taste[v] * slots[b, s, v]
                    result[row, s, a] = part / slots[b, s, 0]


@_compiled
def _match_all(taste, items, starts, columns, result):
    for row in prange(taste.shape[0]):
        for m in range(len(items)):
            result[row, m] = _match(taste[row], items[m], starts, columns)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float32).contiguous().numpy()


def _layout(reads: Any, widths: Sequence[int], n_lanes: int) -> tuple[Any, ...]:
    layout = (part.numpy() for part in steps_of_lanes(widths, n_lanes))
    sparse = (reads.items.numpy(), reads.starts.numpy(), reads.columns.numpy())
    return *sparse, _array(reads.decays), *layout


class _Terms(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, reads: Reads, shared: Tensor, own: Tensor):
        layout = _layout(reads.updates, reads.widths, len(reads.slots))
        numbers = torch.arange(weights.shape[2] + 1)
        bounds = 1 + torch.searchsorted(reads.attributes[1:].contiguous(), numbers)
        fixed = (*layout, bounds.numpy(), _array(reads.value_weights))
        asked = (shared.numpy(), own.contiguous().numpy())
        of_shared = np.empty((len(weights), len(shared)), np.float32)
        of_own = np.empty(tuple(own.shape), np.float32)
        slots = _array(reads.slots).copy()
        _terms(_array(weights), slots, *fixed, *asked, of_shared, of_own)
        ctx.slots, ctx.given, ctx.shape = reads.slots, (*fixed, *asked), weights.shape
        return torch.from_numpy(of_shared), torch.from_numpy(of_own)

    @staticmethod
    def backward(ctx, of_shared: Tensor, of_own: Tensor):
        result = np.empty(ctx.shape, np.float32)
        slopes = (_array(of_shared), _array(of_own))
        _weight_gradient(_array(ctx.slots).copy(), *ctx.given, *slopes, result)
        return torch.from_numpy(result), None, None, None


def terms(reads: Reads, shared: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`ksr_recbole.model.kernels.exact.terms`, in float32 on the CPU."""
    return _Terms.apply(reads.weights, reads, shared, own)


def write_all(updates: Any, slots: Tensor, widths: Sequence[int]) -> Tensor:
    """As :func:`ksr_recbole.model.kernels.exact.write_all`, in float32 on the CPU."""
    after = _array(slots).copy()
    _write_all(after, *_layout(updates, widths, len(after)))
    return torch.from_numpy(after)


def match(taste: Tensor, items: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    """As :func:`ksr_recbole.model.kernels.exact.match`, in float32 on the CPU; no gradient."""
    result = np.empty((len(taste), len(items)), np.float32)
    _match_all(_array(taste), items.numpy(), starts.numpy(), columns.numpy(), result)
    return torch.from_numpy(result)
