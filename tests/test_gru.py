"""The packed GRU against ``nn.GRU``."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ksr_recbole.model.gru import run_gru


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    "lengths", [[4, 2, 4, 1], [1, 3, 2, 4], [4, 4, 4, 4], [0, 4, 0, 1], [1] * 4]
)
def test_outputs_states_and_gradients_equal_nn_gru(layers, lengths):
    torch.manual_seed(0)
    gru = nn.GRU(3, 5, layers, batch_first=True).double()
    inputs = torch.randn(4, 4, 3, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(layers, 4, 5, dtype=torch.float64, requires_grad=True)
    valid = torch.arange(4)[None, :] < torch.tensor(lengths)[:, None]
    whole = torch.tensor(lengths) == 4
    factor = torch.randn(4, 4, 5, dtype=torch.float64)
    results = []
    for run in (lambda: gru(inputs, hidden), lambda: run_gru(gru, inputs, hidden, valid.sum(1))):
        outputs, state = run()
        loss = (outputs * factor)[valid].sum() + (state[:, whole] ** 2).sum()
        gradients = torch.autograd.grad(loss, [inputs, hidden, *gru.parameters()])
        results.append([outputs[valid], state[:, whole], *gradients])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)
