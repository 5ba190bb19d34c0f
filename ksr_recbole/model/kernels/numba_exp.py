"""The exponential function in float32 for kernels that are to use vector instructions."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_ONE = np.float32(1)
_LOG2E = np.float32(1.44269504088896341)
# ln 2 in two parts, so that the reduction loses no digit (Cephes, expf).
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Far enough for float32 to see 0 or 1, and near enough to keep slow denormal numbers away.
_LOWEST, _HIGHEST = np.float32(-30), np.float32(30)
_P0, _P1, _P2 = (
    np.float32(1.9875691500e-4),
    np.float32(1.3981999507e-3),
    np.float32(8.3334519073e-3),
)
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
def exp(x):
    """e to the power of one float32 number; Numba makes vector instructions of it."""
    # A call to the C library would keep the compiler from using vector instructions.
    x = _LOWEST if x < _LOWEST else x  # in this form NaN stays NaN
    x = _HIGHEST if x > _HIGHEST else x
    rounded = x * _LOG2E + _ROUND
    n = rounded - _ROUND
    x = x - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_P0 * x + _P1) * x + _P2) * x + _P3) * x + _P4) * x + _P5
    power = _as_float(np.int32((_as_int(rounded) << _MANTISSA_BITS) + _BITS_OF_ONE))
    return (p * x * x + x + _ONE) * power
