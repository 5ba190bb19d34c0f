"""The GRU (Eq. 1) as fused float32 CPU kernels: all steps, or one without its matrix product.

The layout of ``work`` is that of :mod:`ksr_recbole.model.kernels.gru`.  Kernels of the recurrence
are there twice, for all threads and for one.  Those of one step give the same bits.  Those of all
steps differ in the last bits, because MKL adds up a product in another order where a thread has few
lanes left.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from ksr_recbole.model.kernels import matrix_product
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


_COLUMNS = 128


@cached_njit(parallel=True)
def add_rows(rows, first, index, sums):
    """Add each row from its column ``first`` on to the row of ``sums`` that ``index`` names.

    Each thread has columns of its own, so no two add to one number.

    Args:
        rows: ``[P, first + n]``.
        first: column.
        index: ``int64 [P]``.
        sums: ``[m, n]``.
    """
    n = sums.shape[1]
    for block in prange((n + _COLUMNS - 1) // _COLUMNS):
        begin, end = block * _COLUMNS, min((block + 1) * _COLUMNS, n)
        for p in range(len(index)):
            added, result = rows[p, first + begin : first + end], sums[index[p], begin:end]
            for k in range(len(result)):
                result[k] += added[k]


# All steps ------------------------------------------------------------------------------------

WHOLE = matrix_product.link()
"""Whether the kernels below can be used."""

_gemm, _set_threads = matrix_product.gemm, matrix_product.set_threads


_NOT_TRANSPOSED = ord("N")
"""BLAS's letter for a matrix that is taken as it is."""


@njit(nogil=True)
def _multiply(rows, weights, beta, result, sizes, factors):
    """``result = rows @ weights + beta * result`` for row-major matrices.

    Args:
        rows: pointer to the first of ``n`` rows of ``k`` numbers.
        weights: ``[k, m]``.
        beta: pointer to the factor of ``result``, as BLAS names it.
        result: pointer to the first of ``n`` rows of ``m`` numbers.
        sizes: ``m``, ``n``, ``k``, and from one row to the next in ``weights``, ``rows`` and
            ``result``.  Only the low half of each is read where BLAS has 32 bits.
        factors: 0 and 1, and the letter for "not transposed".
    """
    one, plain = factors[0][1:].ctypes, factors[1].ctypes
    m, n, k = sizes[0:].ctypes, sizes[1:].ctypes, sizes[2:].ctypes
    between_weights, between_rows, between = sizes[3:].ctypes, sizes[4:].ctypes, sizes[5:].ctypes
    _gemm(
        plain, plain, m, n, k, one, weights.ctypes, between_weights, rows, between_rows, beta,
        result, between,
    )  # fmt: skip


@njit(nogil=True)
def _factors():
    return np.array([0, 1], np.float32), np.array([_NOT_TRANSPOSED], np.uint8)


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _forward_lanes(thread, threads, table, weights, bias, index, hidden, states, work, widths):
    """Every ``threads``-th lane from ``thread`` on: no thread waits for another between steps."""
    size, begin, before = len(bias), 0, hidden
    threads_before = _set_threads(1)
    factors = _factors()
    product = np.empty(((widths[0] - thread + threads - 1) // threads, 3 * size), np.float32)
    sizes = np.array([3 * size, 0, size, 3 * size, threads * size, 3 * size])
    for width in widths:
        sizes[1] = (width - thread + threads - 1) // threads
        if sizes[1] <= 0:
            break
        rows, beta = before[thread:].ctypes, factors[0].ctypes  # 0
        _multiply(rows, weights, beta, product.ctypes, sizes, factors)
        for i in range(sizes[1]):
            lane = thread + i * threads
            row = begin + lane
            gate = table[index[row]]
            _forward_row(gate, product[i], bias, before[lane], states[row], work[row])
        before = states[begin:]
        begin += width
    _set_threads(threads_before)


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _backward_lanes(thread, threads, gradient, running, weights, hidden, states, work, widths):
    """As :func:`_forward_lanes`."""
    size, begin = running.shape[1], len(work)
    threads_before = _set_threads(1)
    factors = _factors()
    sizes = np.array([size, 0, 3 * size, size, threads * 4 * size, threads * size])
    for t in range(len(widths) - 1, -1, -1):
        width = widths[t]
        begin -= width
        before = states[begin - widths[t - 1] :] if t else hidden
        sizes[1] = (width - thread + threads - 1) // threads
        if sizes[1] <= 0:
            continue
        for lane in range(thread, width, threads):
            row = begin + lane
            _backward_lane(gradient[row], running[lane], before[lane], work[row])
        rows, beta = work[begin + thread :].ctypes, factors[0][1:].ctypes  # 1
        _multiply(rows, weights, beta, running[thread:].ctypes, sizes, factors)
    _set_threads(threads_before)


if WHOLE:

    @cached_njit(parallel=True)
    def _forward(threads, *arrays):
        for thread in prange(threads):
            _forward_lanes(thread, threads, *arrays)

    @cached_njit(nogil=True)
    def _forward_by_one(threads, *arrays):
        _forward_lanes(0, threads, *arrays)

    @cached_njit(parallel=True)
    def _backward(threads, *arrays):
        for thread in prange(threads):
            _backward_lanes(thread, threads, *arrays)

    @cached_njit(nogil=True)
    def _backward_by_one(threads, *arrays):
        _backward_lanes(0, threads, *arrays)


ON_ONE_THREAD = 1 << 11
"""Numbers of a step's states up to which a second thread takes longer to start than it saves."""


def _threads(hidden):
    return 1 if hidden.size <= ON_ONE_THREAD else min(len(hidden), get_num_threads())


def forward(table, weights, bias, index, hidden, states, work, widths):
    """All steps.

    Args:
        table: the inputs' share of the gates and all biases but ``bias``, ``[m, 3 H]``.
        weights: the recurrent ones, ``[H, 3 H]``.
        bias: recurrent bias of ``n``, ``[H]``.
        index: row of ``table`` for each packed row, ``[P]``.
        hidden: states before the first step, ``[B, H]``.
        states: states after each step, written, ``[P, H]``.
        work: work space, written, ``[P, 4 H]``.
        widths: lanes of each step, ``int64 [T]``.
    """
    threads = _threads(hidden)
    kernel = _forward if threads > 1 else _forward_by_one
    kernel(threads, table, weights, bias, index, hidden, states, work, widths)


def backward(gradient, running, weights, hidden, states, work, widths):
    """Replace the gates of all steps by their gradients.

    Args:
        gradient: of the states after each step, from outside the recurrence, ``[P, H]``.
        running: zeros; replaced by the gradient of ``hidden``, ``[B, H]``.
        weights: the recurrent ones in the order n, r, z, ``[3 H, H]``.
        hidden: states before the first step, ``[B, H]``.
        states: states after each step, ``[P, H]``.
        work: work space, ``[P, 4 H]``.
        widths: lanes of each step, ``int64 [T]``.
    """
    threads = _threads(hidden)
    kernel = _backward if threads > 1 else _backward_by_one
    kernel(threads, gradient, running, weights, hidden, states, work, widths)
