"""Averaging a model's weights over the steps of its training.

Reference:
    Boris Polyak, Anatoli Juditsky: "Acceleration of Stochastic Approximation by Averaging", SIAM
    Journal on Control and Optimization 30(4), 1992.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def trained_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def changed_by_training(model: nn.Module) -> dict[str, Tensor]:
    """What training may change of a model's ``state_dict``: all but what is frozen or constant.

    It includes buffers of a user's own model, such as running means, and a shared weight under
    each of its names.
    """
    constant: frozenset[str] = getattr(model, "CONSTANT_BUFFERS", frozenset())
    return {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if (value.requires_grad if isinstance(value, nn.Parameter) else name not in constant)
    }


class WeightAverage:
    """An exponential moving average of the weights that are trained.

    After a step with weights ``w`` the average is ``decay * average + (1 - decay) * w``; the
    first step's weights begin it.

    Args:
        model: the model; parameters that need no gradient are left out.
        optimizers: whose steps are counted.
        decay: in [0, 1); about the last ``1 / (1 - decay)`` steps count.  ``None``: there never
            is an average.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Iterable[torch.optim.Optimizer],
        decay: float | None,
    ) -> None:
        self.weights = trained_weights(model)
        self.values: dict[str, Tensor] = {}
        if decay is not None:
            self._average = get_ema_multi_avg_fn(decay)
            for optimizer in {id(each): each for each in optimizers}.values():  # each once
                optimizer.register_step_post_hook(lambda *_: self._update())

    def _update(self) -> None:
        if not self.values:
            self.load(self.weights)
        self._average(list(self.values.values()), list(self.weights.values()), None)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take over an average, by parameter's name; an empty one is none yet."""
        self.values = {
            name: value.detach().to(self.weights[name]).clone() for name, value in values.items()
        }

    def apply(self) -> None:
        """Give the model the average as its weights, if there is one yet."""
        self._set(self.values)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the model has the average as its weights, if there is one yet."""
        before = {name: self.weights[name].detach().clone() for name in self.values}
        self.apply()
        try:
            yield
        finally:
            self._set(before)

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.weights[name].copy_(value)
