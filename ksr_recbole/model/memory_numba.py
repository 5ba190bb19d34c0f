"""CPU kernels of the memory for frozen KB embeddings.

One pass per sequence keeps only the current value matrices; the backward pass runs the writes
again instead of storing ``B x T x A x E`` states.  Sequences are independent, so they run in
parallel and the result does not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor


@njit(inline="always")
def _write(values, entity, relations):
    for a in range(relations.shape[0]):
        agreement = np.float32(0.0)
        for k in range(entity.shape[0]):
            agreement += values[a, k] * (entity[k] + relations[a, k])
        gate = np.float32(1.0) / (np.float32(1.0) + np.exp(-agreement))  # Eq. 8
        for k in range(entity.shape[0]):
            update = entity[k] + relations[a, k]  # Eq. 7
            values[a, k] = (np.float32(1.0) - gate) * values[a, k] + gate * update  # Eq. 9


@njit(parallel=True, cache=True, fastmath={"contract", "reassoc"})
def _read(weights, entities, relations, values, read):
    for b in prange(entities.shape[0]):
        for t in range(entities.shape[1]):
            _write(values[b], entities[b, t], relations)
            for a in range(relations.shape[0]):
                for k in range(relations.shape[1]):
                    read[b, t, k] += weights[b, t, a] * values[b, a, k]  # Eq. 5


@njit(parallel=True, cache=True, fastmath={"contract", "reassoc"})
def _weight_gradient(gradient, entities, relations, values, result):
    for b in prange(entities.shape[0]):
        for t in range(entities.shape[1]):
            _write(values[b], entities[b, t], relations)
            for a in range(relations.shape[0]):
                total = np.float32(0.0)
                for k in range(relations.shape[1]):
                    total += gradient[b, t, k] * values[b, a, k]
                result[b, t, a] = total


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float32).contiguous().numpy()


class _WriteThenRead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights: Tensor, entities: Tensor, relations: Tensor, values: Tensor):
        ctx.save_for_backward(entities, relations, values)
        after = _array(values).copy()
        read = np.zeros(entities.shape, np.float32)
        _read(_array(weights), _array(entities), _array(relations), after, read)
        after_tensor = torch.from_numpy(after)
        ctx.mark_non_differentiable(after_tensor)
        return torch.from_numpy(read), after_tensor

    @staticmethod
    def backward(ctx, gradient: Tensor, _: Tensor):
        entities, relations, values = ctx.saved_tensors
        result = np.empty((*entities.shape[:2], relations.shape[0]), np.float32)
        start = _array(values).copy()
        _weight_gradient(_array(gradient), _array(entities), _array(relations), start, result)
        return torch.from_numpy(result), None, None, None


def write_then_read(
    weights: Tensor, entities: Tensor, relations: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    """As :func:`ksr_recbole.model.memory.write_then_read`, in float32 on the CPU."""
    return _WriteThenRead.apply(weights, entities, relations, values)
