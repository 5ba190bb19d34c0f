"""One step of the GRU (Eq. 1) beside its matrix product, as fused float32 CPU kernels.

What a step saves for the backward pass stands in one row of ``4 H``: ``r | z | n | s``, where
``s`` is the state's share of ``n``.  The backward kernel puts the gradients in their place:
``n * r`` (for the recurrent weights' block of ``n``), ``r``, ``z``, ``n``.  So the first ``3 H``
columns are the gradient of the recurrent product and the last ``3 H`` that of the gates, and no
second buffer is needed.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_ONE, _TWO = np.float32(1), np.float32(2)
_LOG2E = np.float32(1.44269504088896341)
# ln 2 in two parts, so that the reduction loses no digit (Cephes, expf).
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Far enough for float32 to see 0 or 1, and near enough to keep slow denormal numbers away.
_LOWEST, _HIGHEST = np.float32(-30), np.float32(30)
_P0, _P1, _P2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_P3, _P4, _P5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(0.5)
# Added to a number it rounds it, and the sum's lowest bits are the whole number itself.
_ROUND = np.float32(1.5 * 2**23)
_MANTISSA_BITS, _BITS_OF_ONE = np.int32(23), np.int32(0x3F800000)


@intrinsic
def _as_int(typing_context, number):
    """The bits of a float32."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), codegen


@intrinsic
def _as_float(typing_context, bits):
    """The float32 of given bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@njit(inline="always", error_model="numpy")
def _exp(x):
    # A call to the C library would keep the compiler from using vector instructions.
    x = _LOWEST if x < _LOWEST else x  # in this form NaN stays NaN
    x = _HIGHEST if x > _HIGHEST else x
    rounded = x * _LOG2E + _ROUND
    n = rounded - _ROUND
    x = x - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_P0 * x + _P1) * x + _P2) * x + _P3) * x + _P4) * x + _P5
    power = _as_float(np.int32((_as_int(rounded) << _MANTISSA_BITS) + _BITS_OF_ONE))
    return (p * x * x + x + _ONE) * power


# The loops below write one array each: only then can LLVM prove cheaply that nothing overlaps,
# and use vector instructions.


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _sum(left, right, result):
    for k in range(len(result)):
        result[k] = left[k] + right[k]


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _sigmoid_of_sum(left, right, result):
    for k in range(len(result)):
        result[k] = _ONE / (_ONE + _exp(-(left[k] + right[k])))


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _new(gates, r, s, result):
    for k in range(len(result)):
        # tanh
        result[k] = _ONE - _TWO / (_ONE + _exp(_TWO * (gates[k] + r[k] * s[k])))


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _state(n, z, before, result):
    for k in range(len(result)):
        result[k] = n[k] + z[k] * (before[k] - n[k])


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _backward_row(total, before, r, z, n, s, running, d_new):
    size = len(total)
    for k in range(size):
        d_new[k] = total[k] * (_ONE - z[k]) * (_ONE - n[k] * n[k])
    for k in range(size):
        n[k] = total[k] * (before[k] - n[k]) * z[k] * (_ONE - z[k])
    for k in range(size):
        running[k] = total[k] * z[k]
    for k in range(size):
        z[k] = d_new[k] * s[k] * r[k] * (_ONE - r[k])
    for k in range(size):
        r[k] *= d_new[k]
    for k in range(size):
        s[k] = d_new[k]


@njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")
def forward_step(gates, recurrent, bias, previous, outputs, saved):
    """Finish one step of ``n`` lanes.

    Args:
        gates: from the input, with the recurrent bias of ``r`` and ``z``, ``[n, 3 H]``.
        recurrent: product of the states and the recurrent weights, ``[>= n, 3 H]``.
        bias: recurrent bias of ``n``, ``[H]``.
        previous: states before, ``[>= n, H]``.
        outputs: states after, written, ``[n, H]``.
        saved: written, ``[n, 4 H]``; or ``[0, 4 H]`` when there will be no backward pass.
    """
    size = bias.shape[0]
    scratch = np.empty(4 * size, np.float32)
    for i in range(outputs.shape[0]):
        row = saved[i] if saved.shape[0] else scratch
        r, z, n, s = row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]
        gate, product = gates[i], recurrent[i]
        _sigmoid_of_sum(gate[:size], product[:size], r)
        _sigmoid_of_sum(gate[size : 2 * size], product[size : 2 * size], z)
        _sum(product[2 * size :], bias, s)
        _new(gate[2 * size :], r, s, n)
        _state(n, z, previous[i], outputs[i])


@njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")
def backward_step(gradient, running, previous, saved):
    """Turn what a step saved into its gradients.

    Args:
        gradient: of the states after the step, from outside the recurrence, ``[n, H]``.
        running: the same from the next step; replaced by the part of the gradient of
            the states before that does not pass through the recurrent weights, ``[>= n, H]``.
        previous: states before the step, ``[>= n, H]``.
        saved: replaced by the gradients as described above, ``[n, 4 H]``.
    """
    size = previous.shape[1]
    total = np.empty(size, np.float32)
    d_new = np.empty(size, np.float32)
    for i in range(saved.shape[0]):
        row = saved[i]
        r, z, n, s = row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]
        _sum(running[i], gradient[i], total)
        _backward_row(total, previous[i], r, z, n, s, running[i], d_new)
