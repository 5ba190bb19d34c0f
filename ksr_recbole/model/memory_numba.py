"""CPU kernels of the memory for frozen KB embeddings.

One pass per sequence keeps only the current value matrices and, of each step, the gates; with
them the backward pass runs the writes again instead of storing ``P x A x E`` states.  Sequences
are independent, so they run in parallel and the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ksr_recbole.model.numba_exp import exp
from ksr_recbole.model.packing import steps_of_lanes


@njit(inline="always", error_model="numpy")
def _write(values, entity, relations, gates):
    for a in range(relations.shape[0]):
        agreement = np.float32(0.0)
        for k in range(entity.shape[0]):
            agreement += values[a, k] * (entity[k] + relations[a, k])
        gate = np.float32(1.0) / (np.float32(1.0) + exp(-agreement))  # Eq. 8
        gates[a] = gate
        for k in range(entity.shape[0]):
            update = entity[k] + relations[a, k]  # Eq. 7
            values[a, k] = (np.float32(1.0) - gate) * values[a, k] + gate * update  # Eq. 9


@njit(parallel=True, cache=True, fastmath={"contract", "reassoc"})
def _write_all(entities, relations, values, begins, lengths):
    for b in prange(values.shape[0]):
        gates = np.empty(relations.shape[0], np.float32)
        for t in range(lengths[b]):
            _write(values[b], entities[begins[t] + b], relations, gates)


@njit(parallel=True, cache=True, fastmath={"contract", "reassoc"})
def _read(weights, entities, relations, values, begins, lengths, read, gates):
    for b in prange(values.shape[0]):
        for t in range(lengths[b]):
            row = begins[t] + b
            _write(values[b], entities[row], relations, gates[row])
            read[row] = 0
            for a in range(relations.shape[0]):
                for k in range(relations.shape[1]):
                    read[row, k] += weights[row, a] * values[b, a, k]  # Eq. 5


@njit(parallel=True, cache=True, fastmath={"contract", "reassoc"})
def _weight_gradient(gradient, entities, relations, values, begins, lengths, gates, result):
    for b in prange(values.shape[0]):
        for t in range(lengths[b]):
            row = begins[t] + b
            for a in range(relations.shape[0]):
                total, gate = np.float32(0.0), gates[row, a]
                for k in range(relations.shape[1]):
                    update = entities[row, k] + relations[a, k]  # Eq. 7
                    value = (np.float32(1.0) - gate) * values[b, a, k] + gate * update  # Eq. 9
                    values[b, a, k] = value
                    total += gradient[row, k] * value
                result[row, a] = total


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float32).contiguous().numpy()


def _layout(widths: Sequence[int], n_lanes: int) -> tuple[np.ndarray, ...]:
    return tuple(part.numpy() for part in steps_of_lanes(widths, n_lanes))


class _WriteThenRead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, entities: Tensor, relations: Tensor, values: Tensor, layout):
        after = _array(values).copy()
        read = np.empty(entities.shape, np.float32)
        gates = np.empty(weights.shape, np.float32)
        arrays = (_array(weights), _array(entities), _array(relations))
        _read(*arrays, after, *layout, read, gates)
        ctx.save_for_backward(entities, relations, values)
        ctx.layout = (*layout, gates)
        after_tensor = torch.from_numpy(after)
        ctx.mark_non_differentiable(after_tensor)
        return torch.from_numpy(read), after_tensor

    @staticmethod
    def backward(ctx, gradient: Tensor, _: Tensor):
        entities, relations, values = ctx.saved_tensors
        result = np.empty((len(entities), len(relations)), np.float32)
        arrays = (_array(gradient), _array(entities), _array(relations), _array(values).copy())
        _weight_gradient(*arrays, *ctx.layout, result)
        return torch.from_numpy(result), None, None, None, None


def write_then_read(
    weights: Tensor, entities: Tensor, relations: Tensor, values: Tensor, widths: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """As :func:`ksr_recbole.model.memory.write_then_read`, in float32 on the CPU."""
    layout = _layout(widths, len(values))
    return _WriteThenRead.apply(weights, entities, relations, values, layout)


def write_all(entities: Tensor, relations: Tensor, values: Tensor, widths: Sequence[int]) -> Tensor:
    """As :func:`ksr_recbole.model.memory.write_all`, in float32 on the CPU."""
    after = _array(values).copy()
    _write_all(_array(entities), _array(relations), after, *_layout(widths, len(after)))
    return torch.from_numpy(after)
