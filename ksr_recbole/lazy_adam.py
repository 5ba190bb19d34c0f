"""Adam for sparse gradients: rows without one stay as they are, and so do their means.

As PyTorch's ``SparseAdam``, in an Adam that also trains parameters with dense gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def with_rows(
    optimizer: torch.optim.Optimizer, constrain: Callable[[Tensor], Tensor] | None = None
) -> torch.optim.Optimizer:
    """Have an optimizer of PyTorch take sparse gradients; only Adam needs help.

    Args:
        optimizer: Adam, or one that takes sparse gradients by itself.
        constrain: what is made of rows ``[n, d]`` after their update by Adam.
    """
    if isinstance(optimizer, torch.optim.Adam):

        @torch.no_grad()
        def update(adam: torch.optim.Optimizer, *_: Any) -> None:
            """The step of sparse gradients, which Adam itself then does not see."""
            for group in adam.param_groups:
                for table in group["params"]:
                    if table.grad is not None and table.grad.is_sparse:
                        gradient, table.grad = table.grad.coalesce(), None
                        _step(table, gradient, adam.state[table], group, constrain)

        optimizer.register_step_pre_hook(update)
    return optimizer


def _step(
    table: Tensor,
    gradient: Tensor,
    state: dict[str, Any],
    group: dict[str, Any],
    constrain: Callable[[Tensor], Tensor] | None,
) -> None:
    """Adam's step for some rows; the state has the names, types and shapes of Adam's own."""
    if not state:
        state["step"] = torch.zeros(())
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
    state["step"] += 1
    (beta1, beta2), step = group["betas"], float(state["step"])
    rows, values = gradient.indices()[0], gradient.values()
    mean = torch.lerp(values, state["exp_avg"][rows], beta1)
    square = torch.lerp(values.square(), state["exp_avg_sq"][rows], beta2)
    state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean, square
    scale = square.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
    moved = table[rows].addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1**step))
    table[rows] = moved if constrain is None else constrain(moved)
