"""Averaging a model's weights over the steps of its training.

Reference:
    Boris Polyak, Anatoli Juditsky: "Acceleration of Stochastic Approximation by Averaging", SIAM
    Journal on Control and Optimization 30(4), 1992.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of the weights that are trained.

    After a step with weights ``w`` the average is ``decay * average + (1 - decay) * w``; the
    first step's weights begin it.

    Args:
        model: the model; parameters that need no gradient are left out.
        optimizer: whose steps are counted.
        decay: in [0, 1); about the last ``1 / (1 - decay)`` steps count.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, decay: float) -> None:
        self.weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.values: dict[str, Tensor] = {}
        self._decay = decay
        optimizer.register_step_post_hook(lambda *_: self._update())

    @torch.no_grad()
    def _update(self) -> None:
        if not self.values:
            self.load(self.weights)
        kept, new = list(self.values.values()), list(self.weights.values())
        torch._foreach_lerp_(kept, new, 1 - self._decay)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take over an average, by parameter's name."""
        self.values = {
            name: values[name].detach().to(w).clone() for name, w in self.weights.items()
        }

    def apply(self) -> None:
        """Give the model the average as its weights, if there is one yet."""
        self._set(self.values)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the model has the average as its weights, if there is one yet."""
        before = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.apply()
        try:
            yield
        finally:
            self._set(before)

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.weights[name].copy_(value)
