"""Whether anything is computed in half precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
