"""The memory's kernels agree with each other and with the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ksr_recbole.errors import UserError
from ksr_recbole.model import memory
from tests import reference


def random_inputs(dtype: torch.dtype = torch.float32, **sizes: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    n, t, a, e = (sizes.get(k, v) for k, v in {"n": 5, "t": 9, "a": 4, "e": 6}.items())

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    return {
        "weights": torch.softmax(normal(n, t, a), dim=-1),
        "entities": normal(n, t, e),
        "relations": normal(a, e),
        "values": normal(n, a, e),
    }


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_each_kernel_equals_the_reference(backend):
    inputs = random_inputs()
    read, values = memory.write_then_read(**inputs, backend=backend)
    arrays = {name: tensor.double().numpy() for name, tensor in inputs.items()}
    for user in range(5):
        matrix = arrays["values"][user]
        for step in range(9):
            updates = arrays["entities"][user, step] + arrays["relations"]  # Eq. 7
            matrix = reference.write(matrix, updates)
            expected = reference.read(arrays["weights"][user, step], matrix)
            np.testing.assert_allclose(read[user, step], expected, atol=1e-5)
        np.testing.assert_allclose(values[user], matrix, atol=1e-5)


def test_gradient_of_the_weights_is_the_same_in_both_kernels():
    gradients = {}
    for backend in ("torch", "numba"):
        inputs = random_inputs()
        inputs["weights"].requires_grad_()
        read, _ = memory.write_then_read(**inputs, backend=backend)
        (read * torch.arange(6.0)).sum().backward()
        gradients[backend] = inputs["weights"].grad
    torch.testing.assert_close(gradients["torch"], gradients["numba"], atol=1e-5, rtol=1e-5)


def test_frozen_embeddings_store_no_history_and_trained_ones_do():
    inputs = random_inputs(torch.float64)
    inputs["weights"].requires_grad_()
    _, values = memory.write_then_read(**inputs, backend="torch")
    assert not values.requires_grad
    inputs["entities"].requires_grad_()
    assert memory.write_then_read(**inputs)[1].requires_grad  # auto falls to torch
    names = ["weights", "entities", "relations", "values"]
    tensors = [inputs[name].detach().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(
        lambda *given: memory.write_then_read(*given, backend="torch")[0], tensors
    )


def test_forcing_numba_where_it_cannot_work_is_refused():
    inputs = random_inputs()
    inputs["entities"].requires_grad_()
    with pytest.raises(UserError, match="memory_backend"):
        memory.write_then_read(**inputs, backend="numba")


def test_without_numba_auto_uses_torch(monkeypatch):
    inputs = random_inputs()
    expected, _ = memory.write_then_read(**inputs, backend="torch")
    monkeypatch.setattr(memory, "memory_numba", None)
    torch.testing.assert_close(memory.write_then_read(**inputs)[0], expected)


def test_attention_is_a_softmax_scaled_by_gamma():
    keys, query = torch.randn(3, 4), torch.randn(2, 4)
    weights = memory.attention_weights(query, keys, gamma=10.0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2))
    logits = 10.0 * query @ keys.T
    torch.testing.assert_close(weights.log() - logits, (weights.log() - logits)[:, :1].expand(2, 3))
