"""CPU kernels of the memory of exact values.

A share is one weight in a slot over another, so what all weights of a time scale have lost cancels:
instead of letting every weight decay at each step, a kernel lets what it adds grow.  As in
:mod:`ksr_recbole.model.kernels.memory_numba`, the backward pass runs the writes again instead of
keeping what each step read; what each value counts is never kept for more than :data:`BLOCK` steps.

Items that all steps are matched with are matched with a block of a lane's steps at a time.  So one
look at an item's values serves all of them, and what is added are neighbours in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from ksr_recbole.model.kernels.bounds import check_rows
from ksr_recbole.model.kernels.compiling import cached_njit
from ksr_recbole.model.kernels.exact import Reads
from ksr_recbole.model.kernels.memory_numba import float32_array, lanes_layout

# A short time scale leaves nothing of a weight: what is then added grows to infinity in one step,
# by which the slot becomes 0.  Numba's own division would end in an error instead.
_compiled: Any = cached_njit(parallel=True, fastmath={"contract", "reassoc"}, error_model="numpy")

_LARGEST = np.float32(1e20)
"""What is added grows to this much before all weights are scaled down."""

BLOCK = 8
"""Steps that are matched at a time; their numbers for all values should fit into the L2 cache."""


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


@njit(inline="always")
def _transpose(rows, columns):
    for v in range(columns.shape[0]):
        for j in range(BLOCK):
            columns[v, j] = rows[j, v]


@njit(inline="always")
def _transpose_back(columns, rows):
    for v in range(columns.shape[0]):
        for j in range(BLOCK):
            rows[j, v] = columns[v, j]


@njit(inline="always")
def _match_block(tastes, item, starts, columns, sums):
    for j in range(BLOCK):
        sums[j] = 0
    for k in range(starts[item], starts[item + 1]):
        v = columns[k]
        for j in range(BLOCK):
            sums[j] += tastes[v, j]


@njit(inline="always")
def _unmatch_block(gradients, item, starts, columns, parts):
    for k in range(starts[item], starts[item + 1]):
        v = columns[k]
        for j in range(BLOCK):
            gradients[v, j] += parts[j]


@njit(inline="always")
def _read(slots, weights, bounds, counts, taste):
    taste[:] = 0
    for s in range(slots.shape[0]):
        for a in range(len(bounds) - 1):
            weight = weights[s, a] / slots[s, 0]
            # Slices, because only what is counted from 0 becomes vector instructions.
            held, read = slots[s, bounds[a] : bounds[a + 1]], taste[bounds[a] : bounds[a + 1]]
            for v in range(len(held)):
                read[v] += weight * held[v]
    for v in range(len(taste)):
        taste[v] *= counts[v]


@njit(inline="always")
def _unread(slots, gradient, bounds, counts, result):
    for v in range(len(gradient)):
        gradient[v] *= counts[v]
    for s in range(slots.shape[0]):
        for a in range(len(bounds) - 1):
            held, slope = slots[s, bounds[a] : bounds[a + 1]], gradient[bounds[a] : bounds[a + 1]]
            part = np.float32(0)
            for v in range(len(held)):
                part += slope[v] * held[v]
            result[s, a] = part / slots[s, 0]


@_compiled
def _terms(
    weights, slots, items, starts, columns, decays, begins, lengths, bounds, counts,
    shared, own, of_shared, of_own,
):  # fmt: skip
    for b in prange(slots.shape[0]):
        added = np.ones(slots.shape[1], np.float32)
        rows = np.zeros((BLOCK, slots.shape[2]), np.float32)
        tastes = np.zeros((slots.shape[2], BLOCK), np.float32)
        sums = np.zeros(BLOCK, np.float32)
        for t in range(lengths[b]):
            row, j = begins[t] + b, t % BLOCK
            taste = rows[j]
            _grow(slots[b], decays, added)
            _add(slots[b], items[row], starts, columns, added)
            _read(slots[b], weights[row], bounds, counts, taste)
            for c in range(own.shape[1]):
                of_own[row, c] = _match(taste, own[row, c], starts, columns)
            if len(shared) == 0 or (j < BLOCK - 1 and t < lengths[b] - 1):
                continue
            _transpose(rows, tastes)
            for m in range(len(shared)):
                _match_block(tastes, shared[m], starts, columns, sums)
                for i in range(j + 1):
                    of_shared[begins[t - j + i] + b, m] = sums[i]


@_compiled
def _weight_gradient(
    slots, items, starts, columns, decays, begins, lengths, bounds, counts,
    shared, own, of_shared, of_own, result,
):  # fmt: skip
    for b in prange(slots.shape[0]):
        added = np.ones(slots.shape[1], np.float32)
        rows = np.zeros((BLOCK, slots.shape[2]), np.float32)
        gradients = np.zeros((slots.shape[2], BLOCK), np.float32)
        parts = np.zeros(BLOCK, np.float32)
        for t in range(lengths[b]):
            row, j = begins[t] + b, t % BLOCK
            if j == 0 and len(shared):
                gradients[:] = 0
                for m in range(len(shared)):
                    for i in range(min(BLOCK, lengths[b] - t)):
                        parts[i] = of_shared[begins[t + i] + b, m]
                    _unmatch_block(gradients, shared[m], starts, columns, parts)
                _transpose_back(gradients, rows)
            elif j == 0:
                rows[:] = 0
            gradient = rows[j]
            _grow(slots[b], decays, added)
            _add(slots[b], items[row], starts, columns, added)
            for c in range(own.shape[1]):
                _unmatch(gradient, own[row, c], starts, columns, of_own[row, c])
            _unread(slots[b], gradient, bounds, counts, result[row])


@_compiled
def _match_all(taste, items, starts, columns, result):
    n_users = taste.shape[0]
    for block in prange((n_users + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        rows = np.zeros((BLOCK, taste.shape[1]), np.float32)
        rows[: n_users - first] = taste[first : first + BLOCK]
        tastes = np.zeros((taste.shape[1], BLOCK), np.float32)
        sums = np.zeros(BLOCK, np.float32)
        _transpose(rows, tastes)
        for m in range(len(items)):
            _match_block(tastes, items[m], starts, columns, sums)
            for i in range(min(BLOCK, n_users - first)):
                result[first + i, m] = sums[i]


def _layout(reads: Any, widths: Sequence[int], n_lanes: int) -> tuple[Any, ...]:
    sparse = (reads.items.numpy(), reads.starts.numpy(), reads.columns.numpy())
    return *sparse, float32_array(reads.decays), *lanes_layout(widths, n_lanes)


class _Terms(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, reads: Reads, shared: Tensor, own: Tensor):
        layout = _layout(reads.updates, reads.widths, len(reads.slots))
        numbers = torch.arange(weights.shape[2] + 1)
        bounds = 1 + torch.searchsorted(reads.attributes[1:].contiguous(), numbers)
        fixed = (*layout, bounds.numpy(), float32_array(reads.value_weights))
        asked = (shared.numpy(), own.contiguous().numpy())
        of_shared = np.empty((len(weights), len(shared)), np.float32)
        of_own = np.empty(tuple(own.shape), np.float32)
        slots = float32_array(reads.slots).copy()
        _terms(float32_array(weights), slots, *fixed, *asked, of_shared, of_own)
        ctx.save_for_backward(reads.slots)
        ctx.given, ctx.shape = (*fixed, *asked), weights.shape
        return torch.from_numpy(of_shared), torch.from_numpy(of_own)

    @staticmethod
    @once_differentiable
    def backward(ctx, of_shared: Tensor, of_own: Tensor):
        result = np.empty(ctx.shape, np.float32)
        slopes = (float32_array(of_shared), float32_array(of_own))
        [slots] = ctx.saved_tensors
        _weight_gradient(float32_array(slots).copy(), *ctx.given, *slopes, result)
        return torch.from_numpy(result), None, None, None


def _check_items(items: Tensor, starts: Tensor) -> None:
    check_rows(items, len(starts) - 1)


def terms(reads: Reads, shared: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`ksr_recbole.model.kernels.exact.terms`, in float32 on the CPU."""
    for items in (reads.updates.items, shared, own):
        _check_items(items, reads.updates.starts)
    return _Terms.apply(reads.weights, reads, shared, own)


def write_all(updates: Any, slots: Tensor, widths: Sequence[int]) -> Tensor:
    """As :func:`ksr_recbole.model.kernels.exact.write_all`, in float32 on the CPU."""
    _check_items(updates.items, updates.starts)
    after = float32_array(slots).copy()
    _write_all(after, *_layout(updates, widths, len(after)))
    return torch.from_numpy(after)


def match(taste: Tensor, items: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    """As :func:`ksr_recbole.model.kernels.exact.match`, in float32 on the CPU; no gradient."""
    _check_items(items, starts)
    result = np.empty((len(taste), len(items)), np.float32)
    _match_all(float32_array(taste), items.numpy(), starts.numpy(), columns.numpy(), result)
    return torch.from_numpy(result)
