"""Parts of a model that compute in single precision where ``enable_amp`` halves the others."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
"""What ``enable_amp`` computes in, by device."""


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A block in which nothing is halved on a device."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def in_full(values: Tensor) -> Tensor:
    """Values of any shape, in single precision where they are in half."""
    return values.float() if values.dtype in HALF else values
