"""Products into aligned rows: the same numbers and gradients as PyTorch's own layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ksr_recbole.model.gru_recommender import tanh_mlp
from ksr_recbole.model.kernels.aligned import AlignedLinear, empty_rows


@pytest.mark.parametrize("n_columns", [1, 15, 16, 17, 50, 306])
def test_rows_begin_at_cache_lines(n_columns):
    rows = empty_rows(torch.zeros(1), 5, n_columns)
    assert rows.shape == (5, n_columns)
    assert {row.data_ptr() % 64 for row in rows} == {0}


def both(n_in: int, n_out: int, *shape: int, dtype: torch.dtype = torch.float32):
    """Result and gradients of an aligned layer, and of PyTorch's with its weights."""
    torch.manual_seed(n_in)
    layer = AlignedLinear(n_in, n_out, dtype=dtype)
    found = []
    for apply in (layer, lambda x: F.linear(x, layer.weight, layer.bias)):
        torch.manual_seed(1)
        inputs = torch.randn(*shape, n_in, dtype=dtype, requires_grad=True)
        result = apply(inputs)
        given = torch.autograd.grad(result.sin().sum(), (inputs, *layer.parameters()))
        found.append((result, *given))
    return found


@pytest.mark.parametrize("sizes", [(306, 306), (256, 50), (7, 32), (32, 64)])
@pytest.mark.parametrize("shape", [(40,), (1,), (0,), (3, 4)])
def test_an_aligned_layer_is_a_linear_layer(sizes, shape):
    for found, expected in zip(*both(*sizes, *shape), strict=True):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_other_precisions_are_pytorchs():
    for found, expected in zip(*both(7, 9, 5, dtype=torch.float64), strict=True):
        torch.testing.assert_close(found, expected)
    layer = AlignedLinear(7, 9)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(5, 7)).dtype == torch.bfloat16


def test_frozen_parts_get_no_gradient():
    layer = AlignedLinear(7, 9)
    layer.weight.requires_grad_(False)
    inputs = torch.randn(5, 7)
    layer(inputs).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad.tolist() == [5.0] * 9


def test_an_mlp_keeps_the_names_of_its_weights():
    names = [name for name, _ in tanh_mlp(7, 9, 2).named_parameters()]
    plain = nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 9), nn.Tanh())
    assert names == [name for name, _ in plain.named_parameters()]
