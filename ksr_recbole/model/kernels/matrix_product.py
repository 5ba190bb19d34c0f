"""PyTorch's own matrix product, for fused kernels.

On x86 PyTorch's library has Intel's MKL in it.  A kernel that calls it directly can go through
many small products without coming back to Python, each thread by itself.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import llvmlite.binding
import torch
from numba import types

_GEMM, _THREADS = "sgemm_", "MKL_Set_Num_Threads_Local"

_pointer = types.voidptr

gemm = types.ExternalFunction(f"ksr_{_GEMM}", types.void(*[_pointer] * 13))
"""BLAS's ``sgemm``, by columns; every argument is a pointer."""

set_threads = types.ExternalFunction(f"ksr_{_THREADS}", types.int32(types.int32))
"""Sets the threads that products take in the thread that calls it, and returns those before."""


def link() -> bool:
    """Make both known to kernels, and whether PyTorch's library has them."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).with_name("lib") / "libtorch_cpu.so"))
        functions = {name: getattr(library, name) for name in (_GEMM, _THREADS)}
    except (OSError, AttributeError):  # Windows, macOS, or a PyTorch without MKL
        return False
    for name, function in functions.items():
        address = ctypes.cast(function, ctypes.c_void_p).value
        llvmlite.binding.add_symbol(f"ksr_{name}", address)
    return True
