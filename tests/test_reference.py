"""The reference model against hand-computed values, PyTorch's GRU cell and itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import reference as ref

ITEMS = [1, 4, 2, 2]
NEGATIVES = [[3, 5], [1, 3], [5, 3]]


def tiny_parameters() -> ref.ReferenceParameters:
    """All weights zero but those the hand computation below uses: H = E = A = 2."""
    zeros = np.zeros
    return ref.ReferenceParameters(
        item_embedding=np.array([[0.0, 0.0], [0.3, 0.0], [0.0, 0.2]]),
        gru_weight_ih=np.vstack([zeros((4, 2)), np.eye(2)]),
        gru_weight_hh=zeros((6, 2)),
        gru_bias_ih=zeros(6),
        gru_bias_hh=zeros(6),
        query_mlp=[(np.eye(2), zeros(2))],
        entity=np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
        relation=np.array([[1.0, 0.0], [0.0, 1.0]]),
        key=np.array([[1.0, 0.0], [0.0, 1.0]]),
        user_mlp=[(np.eye(4), zeros(4))],
        item_mlp=[(np.eye(4), zeros(4))],
        gamma=10.0,
    )


def test_gru_step_is_torch_gru_cell() -> None:
    params = ref.random_parameters(0, hidden=4)
    cell = torch.nn.GRUCell(4, 4).double()
    with torch.no_grad():
        cell.weight_ih.copy_(torch.from_numpy(params.gru_weight_ih))
        cell.weight_hh.copy_(torch.from_numpy(params.gru_weight_hh))
        cell.bias_ih.copy_(torch.from_numpy(params.gru_bias_ih))
        cell.bias_hh.copy_(torch.from_numpy(params.gru_bias_hh))
        q, h = np.random.default_rng(1).normal(size=(2, 4))
        wanted = cell(torch.from_numpy(q)[None], torch.from_numpy(h)[None])[0].numpy()
    np.testing.assert_allclose(ref.gru_step(params, h, q), wanted, rtol=0, atol=1e-14)


def test_attention_is_a_distribution_even_of_huge_logits() -> None:
    params = ref.random_parameters(0, attributes=5, gamma=1e5)
    weights = ref.attention(params, np.array([1.0, -2.0, 0.5]))
    assert np.all(weights >= 0)
    assert weights.sum() == pytest.approx(1.0, abs=1e-14)


def test_attention_without_scale_is_even() -> None:
    params = ref.random_parameters(0, attributes=5, gamma=0.0)
    np.testing.assert_allclose(ref.attention(params, np.ones(3)), 0.2)


def test_first_write_moves_empty_memory_half_way() -> None:
    params = ref.random_parameters(0)
    updates = ref.update_vectors(params, 4)
    np.testing.assert_array_equal(updates, params.entity[4] + params.relation)
    empty = np.zeros_like(updates)
    np.testing.assert_array_equal(ref.gate(empty, updates), 0.5)
    np.testing.assert_allclose(ref.write(empty, updates), updates / 2)


def test_projection_applies_to_what_is_written_and_not_to_the_score() -> None:
    plain = ref.random_parameters(0)
    mapped = ref.random_parameters(0)
    mapped.projection = np.array([[0.0, 2.0], [1.0, 0.0]])
    x, y = plain.entity[3]
    wanted = np.array([2 * y, x]) + plain.relation
    np.testing.assert_allclose(ref.update_vectors(mapped, 3), wanted)
    p = np.ones(5)
    assert ref.score(mapped, p, 3) == ref.score(plain, p, 3)
    mapped.projection = np.eye(2)
    assert ref.loss(mapped, ITEMS, NEGATIVES) == ref.loss(plain, ITEMS, NEGATIVES)


def test_one_step_by_hand() -> None:
    params = tiny_parameters()
    (step,) = ref.run(params, [1])
    # Eq. 1: r = z = 1/2 and n = tanh(q), so h = n / 2
    h = np.tanh(0.3) / 2
    np.testing.assert_allclose(step.h, [h, 0.0])
    # Eq. 7 to 9: updates (2, 0) and (1, 1), half of each
    np.testing.assert_array_equal(step.gate, [0.5, 0.5])
    np.testing.assert_allclose(step.values, [[1.0, 0.0], [0.5, 0.5]])
    # Eq. 6: logits 10 tanh(h) and 0
    w = 1 / (1 + np.exp(-10 * np.tanh(h)))
    np.testing.assert_allclose(step.attention, [w, 1 - w])
    # Eq. 5
    m = [w + (1 - w) / 2, (1 - w) / 2]
    np.testing.assert_allclose(step.m, m)
    np.testing.assert_allclose(step.p, [h, 0.0, *m])
    # Eq. 10 with item 2: q-tilde = (0, 0.2, 0, 1)
    wanted = np.tanh(0.0) * np.tanh(0.2) + np.tanh(m[1]) * np.tanh(1.0)
    assert ref.score(params, step.p, 2) == pytest.approx(wanted, abs=1e-14)
    assert ref.gru_score(params, step.h, 1) == pytest.approx(0.3 * h)


def test_second_write_by_hand() -> None:
    params = tiny_parameters()
    _, step = ref.run(params, [1, 2])
    # item 2: updates (1, 1) and (0, 2) on values (1, 0) and (1/2, 1/2): both products are 1
    z = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(step.gate, [z, z])
    np.testing.assert_allclose(step.values, [[1.0, z], [0.5 - 0.5 * z, 0.5 + 1.5 * z]])


def test_the_state_at_t_is_independent_of_later_items() -> None:
    params = ref.random_parameters(3)
    for short, long in zip(ref.run(params, ITEMS[:2]), ref.run(params, ITEMS), strict=False):
        np.testing.assert_array_equal(short.p, long.p)


def test_memory_carries_on_from_given_values() -> None:
    params = ref.random_parameters(3)
    whole = ref.run(params, ITEMS)
    rest = ref.run(params, ITEMS[2:], values=whole[1].values)
    np.testing.assert_array_equal(rest[-1].values, whole[-1].values)


def test_loss_is_log_two_per_pair_without_a_preference() -> None:
    params = ref.random_parameters(0)
    params.user_mlp[0][0][:] = 0.0
    params.user_mlp[0][1][:] = 0.0
    assert ref.loss(params, ITEMS, NEGATIVES) == pytest.approx(6 * np.log(2.0), abs=1e-12)


def test_loss_is_minus_log_sigmoid_of_the_difference() -> None:
    params = ref.random_parameters(0, layers=2)
    p = ref.run(params, [1])[0].p
    difference = ref.score(params, p, 4) - ref.score(params, p, 5)
    wanted = -np.log(1 / (1 + np.exp(-difference)))
    assert ref.loss(params, [1, 4], [[5]]) == pytest.approx(wanted, abs=1e-12)


def test_every_parameter_is_named_once() -> None:
    arrays = ref.random_parameters(0, layers=2, projection=True).arrays()
    assert len(arrays) == 9 + 3 * 2 * 2
    assert len({id(array) for array in arrays.values()}) == len(arrays)
    assert "query_mlp.1.bias" in arrays and "projection" in arrays


def test_numeric_gradient_of_a_quadratic_form_and_restores_the_array() -> None:
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    before = x.copy()
    gradient = ref.numeric_gradient(lambda: float((x**2).sum()), x)
    np.testing.assert_allclose(gradient, 2 * before, atol=1e-8)
    np.testing.assert_array_equal(x, before)


def test_numeric_gradient_of_the_loss_predicts_a_small_step() -> None:
    params = ref.random_parameters(0, projection=True)
    f = ref.loss_closure(params, ITEMS, NEGATIVES)
    for name, array in params.arrays().items():
        gradient = ref.numeric_gradient(f, array)
        assert np.abs(gradient).max() > 1e-6, f"{name} has no influence on the loss"
        before, step = f(), 1e-5
        array -= step * gradient
        assert f() - before == pytest.approx(-step * (gradient**2).sum(), rel=1e-2, abs=1e-10)
        array += step * gradient
