"""The precision of matrix products, and whether anything is computed in half precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ksr_recbole.model.kernels.autocast import HALF


class HalfPrecision(TorchFunctionMode):
    """Inside the block, sees whether an operation gives numbers in half precision.

    Attributes:
        used: whether one has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.used = False

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.used = self.used or (isinstance(result, torch.Tensor) and result.dtype in HALF)
        return result


@contextmanager
def matrix_products(precision: str | None) -> Iterator[None]:
    """Inside the block, float32 matrix products are computed as precisely as told, or as before."""
    before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    of_gru = cudnn.allow_tf32
    torch.set_float32_matmul_precision(precision or before)
    if precision:  # cuDNN's GRU has a switch of its own
        cudnn.allow_tf32 = precision != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        cudnn.allow_tf32 = of_gru
