"""CPU kernels of the memory for frozen KB embeddings.

One pass per sequence keeps only the current value matrices and, of each step, the gates; with
them the backward pass runs the writes again instead of storing ``P x A x E`` states.  Sequences
are independent, so they run in parallel and the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from ksr_recbole.model.kernels.compiling import cached_njit
from ksr_recbole.model.kernels.memory import Updates
from ksr_recbole.model.kernels.numba_exp import exp
from ksr_recbole.model.kernels.packing import steps_of_lanes

_compiled: Any = cached_njit(parallel=True, fastmath={"contract", "reassoc"})
"""Of no type, because that which Numba declares for its functions takes no arguments."""


# Compiled by itself, because `exp` rounds by adding a number and taking it away again, which the
# kernels' "reassoc" would allow to leave out.
@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _sigmoid(x):
    return np.float32(1.0) / (np.float32(1.0) + exp(-x))


@njit(inline="always", error_model="numpy")
def _write(values, updates, bias, gates):
    for a in range(values.shape[0]):
        agreement = bias
        for k in range(values.shape[1]):
            agreement += values[a, k] * updates[a, k]
        gate = _sigmoid(agreement)  # Eq. 8
        gates[a] = gate
        for k in range(values.shape[1]):
            values[a, k] += gate * (updates[a, k] - values[a, k])  # Eq. 9


@_compiled
def _write_all(table, index, bias, values, begins, lengths):
    for b in prange(values.shape[0]):
        gates = np.empty(values.shape[1], np.float32)
        for t in range(lengths[b]):
            _write(values[b], table[index[begins[t] + b]], bias, gates)


@_compiled
def _read(weights, table, index, bias, values, begins, lengths, read, gates):
    for b in prange(values.shape[0]):
        for t in range(lengths[b]):
            row = begins[t] + b
            _write(values[b], table[index[row]], bias, gates[row])
            read[row] = 0
            for a in range(values.shape[1]):
                for k in range(values.shape[2]):
                    read[row, k] += weights[row, a] * values[b, a, k]  # Eq. 5


@_compiled
def _weight_gradient(gradient, table, index, values, begins, lengths, gates, result):
    for b in prange(values.shape[0]):
        for t in range(lengths[b]):
            row = begins[t] + b
            updates = table[index[row]]
            for a in range(values.shape[1]):
                total, gate = np.float32(0.0), gates[row, a]
                for k in range(values.shape[2]):
                    value = values[b, a, k] + gate * (updates[a, k] - values[b, a, k])  # Eq. 9
                    values[b, a, k] = value
                    total += gradient[row, k] * value
                result[row, a] = total


def float32_array(tensor: Tensor) -> np.ndarray:
    """A tensor as a contiguous array, without its gradient."""
    return tensor.detach().to(torch.float32).contiguous().numpy()


def lanes_layout(widths: Sequence[int], n_lanes: int) -> tuple[np.ndarray, ...]:
    """As :func:`~ksr_recbole.model.kernels.packing.steps_of_lanes`."""
    return tuple(part.numpy() for part in steps_of_lanes(widths, n_lanes))


def _arrays(updates: Updates) -> tuple[Any, ...]:
    return float32_array(updates.table), updates.index.numpy(), np.float32(updates.gate_bias)


class _WriteThenRead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, updates: Updates, values: Tensor, layout):
        after = float32_array(values).copy()
        read = np.empty((len(weights), values.shape[2]), np.float32)
        gates = np.empty(weights.shape, np.float32)
        _read(float32_array(weights), *_arrays(updates), after, *layout, read, gates)
        ctx.save_for_backward(updates.table, updates.index, values)
        ctx.layout = (*layout, gates)
        after_tensor = torch.from_numpy(after)
        ctx.mark_non_differentiable(after_tensor)
        return torch.from_numpy(read), after_tensor

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, _: Tensor):
        table, index, values = ctx.saved_tensors
        result = np.empty((len(index), table.shape[1]), np.float32)
        written = (float32_array(table), index.numpy(), float32_array(values).copy())
        _weight_gradient(float32_array(gradient), *written, *ctx.layout, result)
        return torch.from_numpy(result), None, None, None


def write_then_read(
    weights: Tensor, updates: Updates, values: Tensor, widths: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """As :func:`ksr_recbole.model.kernels.memory.write_then_read`, in float32 on the CPU."""
    return _WriteThenRead.apply(weights, updates, values, lanes_layout(widths, len(values)))


def write_all(updates: Updates, values: Tensor, widths: Sequence[int]) -> Tensor:
    """As :func:`ksr_recbole.model.kernels.memory.write_all`, in float32 on the CPU."""
    after = float32_array(values).copy()
    _write_all(*_arrays(updates), after, *lanes_layout(widths, len(after)))
    return torch.from_numpy(after)
