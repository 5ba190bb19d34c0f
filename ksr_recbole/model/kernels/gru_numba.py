"""One step of the GRU (Eq. 1) without its matrix product, as fused float32 CPU kernels.

The layout of ``work`` is that of :mod:`ksr_recbole.model.kernels.gru`.  Every kernel is there
twice, for all threads and for one; both give the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ksr_recbole.model.kernels.compiling import cached_njit
from ksr_recbole.model.kernels.numba_exp import exp

_ONE, _TWO = np.float32(1), np.float32(2)

# The loops below write one array each: only then can LLVM prove cheaply that nothing overlaps,
# and use vector instructions.


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _sum(left, right, result):
    for k in range(len(result)):
        result[k] = left[k] + right[k]


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _sigmoid_of_sum(left, right, result):
    for k in range(len(result)):
        result[k] = _ONE / (_ONE + exp(-(left[k] + right[k])))


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _new(gate, r, s, result):
    for k in range(len(result)):  # tanh
        result[k] = _ONE - _TWO / (_ONE + exp(_TWO * (gate[k] + r[k] * s[k])))


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _state(n, z, before, result):
    for k in range(len(result)):
        result[k] = n[k] + z[k] * (before[k] - n[k])


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _backward_row(total, before, s, r, z, n, running, d_new):
    size = len(total)
    for k in range(size):
        d_new[k] = total[k] * (_ONE - z[k]) * (_ONE - n[k] * n[k])
    for k in range(size):
        running[k] = total[k] * z[k]
    for k in range(size):
        z[k] = total[k] * (before[k] - n[k]) * z[k] * (_ONE - z[k])
    for k in range(size):
        n[k] = d_new[k]
    for k in range(size):
        d_new[k] *= r[k]
    for k in range(size):
        r[k] = d_new[k] * s[k] * (_ONE - r[k])
    for k in range(size):
        s[k] = d_new[k]


@njit(nogil=True)
def _parts(row, size):
    return row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _forward_row(gate, product, bias, before, after, work):
    size = len(bias)
    s, r, z, n = _parts(work, size)
    _sigmoid_of_sum(gate[:size], product[:size], r)
    _sigmoid_of_sum(gate[size : 2 * size], product[size : 2 * size], z)
    _sum(product[2 * size :], bias, s)
    _new(gate[2 * size :], r, s, n)
    _state(n, z, before, after)


@cached_njit(parallel=True, fastmath={"contract"}, error_model="numpy")
def forward_step(table, product, bias, index, before, after, work):
    """Finish one step of ``n`` lanes.

    Args:
        table: the inputs' share of the gates and all biases but ``bias``, ``[m, 3 H]``.
        product: of the states and the recurrent weights, ``[>= n, 3 H]``.
        bias: recurrent bias of ``n``, ``[H]``.
        index: row of ``table`` for each lane, ``[n]``.
        before: states before, ``[>= n, H]``.
        after: states after, written, ``[n, H]``.
        work: work space, ``[n, 4 H]``.
    """
    for i in prange(len(work)):
        _forward_row(table[index[i]], product[i], bias, before[i], after[i], work[i])


@cached_njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def forward_step_by_one(table, product, bias, index, before, after, work):
    """As :func:`forward_step`, on one thread."""
    for i in range(len(work)):
        _forward_row(table[index[i]], product[i], bias, before[i], after[i], work[i])


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _backward_lane(gradient, running, before, work):
    size = len(gradient)
    total, d_new = np.empty(size, np.float32), np.empty(size, np.float32)
    s, r, z, n = _parts(work, size)
    _sum(running, gradient, total)
    _backward_row(total, before, s, r, z, n, running, d_new)


@cached_njit(parallel=True, fastmath={"contract"}, error_model="numpy")
def backward_step(gradient, running, before, work):
    """Replace one step's gates by their gradients.

    Args:
        gradient: of the states after the step, from outside the recurrence, ``[n, H]``.
        running: the same from the next step, ``[>= n, H]``; replaced by the part of the gradient
            of the states before that does not pass through the recurrent weights.
        before: states before the step, ``[>= n, H]``.
        work: work space, ``[n, 4 H]``.
    """
    for i in prange(len(work)):
        _backward_lane(gradient[i], running[i], before[i], work[i])


@cached_njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def backward_step_by_one(gradient, running, before, work):
    """As :func:`backward_step`, on one thread."""
    for i in range(len(work)):
        _backward_lane(gradient[i], running[i], before[i], work[i])
