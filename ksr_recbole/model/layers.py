"""Building blocks shared by the models."""

from __future__ import annotations

from torch import nn


def tanh_mlp(n_in: int, n_out: int, n_layers: int) -> nn.Sequential:
    """Multilayer perceptron whose every layer ends in *tanh* (Sec. 4.3, under Eq. 10).

    Args:
        n_in: size of the input.
        n_out: size of every layer's output.
        n_layers: number of layers; with none the input is the output.
    """
    layers: list[nn.Module] = []
    for k in range(n_layers):
        layers += [nn.Linear(n_in if k == 0 else n_out, n_out), nn.Tanh()]
    return nn.Sequential(*layers)
