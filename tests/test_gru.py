"""The packed GRU against ``nn.GRU``."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ksr_recbole.model.kernels import gru as gru_module
from ksr_recbole.model.kernels.gru import run_gru
from ksr_recbole.model.kernels.packing import Packing
from tests.models import let_numba_compile

LENGTHS = [[4, 4, 2, 1], [4, 3, 2, 1], [4, 4, 4, 4], [4, 1, 0, 0], [1] * 4]


def both_results(layers: int, lengths: list[int], dtype: torch.dtype) -> list[list[torch.Tensor]]:
    """Outputs, final states and gradients of ``nn.GRU`` over each row, and of ours."""
    torch.manual_seed(0)
    gru = nn.GRU(3, 5, layers, batch_first=True).to(dtype)
    inputs = torch.randn(4, 4, 3, dtype=dtype, requires_grad=True)
    hidden = torch.randn(layers, 4, 5, dtype=dtype, requires_grad=True)
    packing = Packing.of(torch.tensor(lengths))
    factor = torch.randn(sum(lengths), 5, dtype=dtype)

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        outputs, finals = torch.zeros(4, 4, 5, dtype=dtype), []
        for row, length in enumerate(lengths):
            state = hidden[:, row : row + 1]
            if length:
                output, state = gru(inputs[row : row + 1, :length], state)
                outputs = outputs.index_put((torch.tensor(row), torch.arange(length)), output[0])
            finals.append(state)
        return packing.pack(outputs), torch.cat(finals, dim=1)

    results = []

    def packed() -> tuple[torch.Tensor, torch.Tensor]:
        # Each input vector is read by as many steps as stand on it: here by one.
        index = packing.pack(torch.arange(16).reshape(4, 4))
        return run_gru(gru, inputs.reshape(16, 3), index, hidden, packing)

    for run in (plain, packed):
        outputs, state = run()
        loss = (outputs * factor).sum() + (state**2).sum()
        gradients = torch.autograd.grad(loss, [inputs, hidden, *gru.parameters()])
        results.append([outputs, state, *gradients])
    return results


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_outputs_states_and_gradients_equal_nn_gru(layers, lengths):
    for expected, got in zip(*both_results(layers, lengths, torch.float64), strict=True):
        torch.testing.assert_close(got, expected)


def take(monkeypatch: pytest.MonkeyPatch, whole: bool) -> ModuleType:
    """The fused kernels, of which those for all steps are used or not."""
    kernels = pytest.importorskip("ksr_recbole.model.kernels.gru_numba")
    if whole and not kernels.WHOLE:
        pytest.skip("PyTorch's matrix product cannot be called from a kernel here")
    monkeypatch.setattr(kernels, "WHOLE", whole)
    let_numba_compile(monkeypatch)
    return kernels


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_fused_kernels_equal_nn_gru(monkeypatch, lengths, whole):
    take(monkeypatch, whole)
    for expected, got in zip(*both_results(1, lengths, torch.float32), strict=True):
        torch.testing.assert_close(got, expected, atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_that_share_an_input_add_up_their_gradients(dtype):
    gru, packing = nn.GRU(3, 5, batch_first=True).to(dtype), Packing.of(torch.tensor([3, 2]))
    table = torch.randn(2, 3, dtype=dtype, requires_grad=True)
    index, hidden = torch.tensor([1, 0, 1, 1, 0]), torch.zeros(1, 2, 5, dtype=dtype)
    gradients = []
    for inputs, rows in ((table, index), (table[index], torch.arange(5))):
        outputs, _ = run_gru(gru, inputs, rows, hidden, packing)
        gradients.append(torch.autograd.grad(outputs.square().sum(), table)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("size", [1, 7, 64, 100])
@pytest.mark.parametrize("widths", [[1], [5, 5, 3, 1], [33, 32, 32, 2, 1, 1]])
def test_threads_with_lanes_of_their_own_compute_what_one_does(monkeypatch, size, widths):
    """Also where there are more threads than lanes, or than Numba has."""
    kernels = take(monkeypatch, True)
    rng = np.random.default_rng(size)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32) / np.float32(size**0.5)

    rows, lanes, steps = sum(widths), widths[0], np.array(widths)
    table, weights, bias = draw(9, 3 * size), draw(size, 3 * size), draw(size)
    index, hidden, gradient = rng.integers(0, 9, rows), draw(lanes, size), draw(rows, size)
    results = []
    for threads in (1, 2, 3, 7):
        one = threads == 1
        states, work = np.zeros((rows, size), np.float32), np.zeros((rows, 4 * size), np.float32)
        forward = kernels._forward_by_one if one else kernels._forward
        forward(threads, table, weights, bias, index, hidden, states, work, steps)
        saved, running = work.copy(), np.zeros_like(hidden)
        backward = kernels._backward_by_one if one else kernels._backward
        turned = np.ascontiguousarray(weights.T)
        backward(threads, gradient, running, turned, hidden, states, work, steps)
        results.append((states, saved, work, running))
    assert results[0][0].any() and results[0][3].any()
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            np.testing.assert_allclose(other, one, atol=2e-6)


def test_without_mkl_nothing_is_linked(monkeypatch, tmp_path):
    product = pytest.importorskip("ksr_recbole.model.kernels.matrix_product")
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "__init__.py"))
    assert not product.link()  # no such library
    monkeypatch.setattr(product.ctypes, "CDLL", lambda path: SimpleNamespace(sgemm_=None))
    assert not product.link()  # another BLAS


@pytest.mark.parametrize("columns", [1, 128, 129, 300])
def test_rows_are_summed_by_what_they_belong_to(monkeypatch, columns):
    kernels = pytest.importorskip("ksr_recbole.model.kernels.gru_numba")
    let_numba_compile(monkeypatch)
    rng = np.random.default_rng(columns)
    rows = rng.standard_normal((50, 7 + columns)).astype(np.float32)
    index, sums = rng.integers(0, 9, 50), np.ones((10, columns), np.float32)
    expected = sums.astype(np.float64)
    np.add.at(expected, index, rows[:, 7:])
    kernels.add_rows(rows, 7, index, sums)
    np.testing.assert_allclose(sums, expected, atol=1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_the_fused_kernels_hold_for_extreme_gates_and_pass_nan_on(monkeypatch, whole):
    take(monkeypatch, whole)
    gru = nn.GRU(1, 3, batch_first=True)
    with torch.no_grad():
        gru.weight_ih_l0.fill_(1.0)
    packing = Packing.of(torch.ones(6, dtype=torch.int64))
    inputs = torch.tensor([[-1e30], [-200.0], [-20.0], [20.0], [200.0], [1e30]])
    hidden = torch.randn(1, 6, 3)
    with torch.no_grad():
        got, _ = run_gru(gru, inputs, torch.arange(6), hidden, packing)
        expected, _ = gru(inputs[:, None], hidden)
        torch.testing.assert_close(got, expected[:, 0], atol=2e-6, rtol=0)
        inputs[2] = float("nan")
        got, _ = run_gru(gru, inputs, torch.arange(6), hidden, packing)
    assert torch.isnan(got[2]).all() and not torch.isnan(got[[0, 1, 3, 4, 5]]).any()


def test_without_numba_the_plain_step_computes_the_same(monkeypatch):
    expected = both_results(2, [4, 3, 2, 1], torch.float32)[0]
    monkeypatch.setattr(gru_module, "fused", lambda *_: None)
    got = both_results(2, [4, 3, 2, 1], torch.float32)[1]
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(other, one, atol=2e-6, rtol=2e-5)


def test_a_second_backward_pass_is_refused():
    gru, packing = nn.GRU(3, 5, batch_first=True), Packing.of(torch.tensor([2, 1]))
    outputs, _ = run_gru(gru, torch.randn(3, 3), torch.arange(3), torch.zeros(1, 2, 5), packing)
    outputs.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="run it again"):
        outputs.sum().backward()


def test_packing_and_unpacking_restore_rows_in_any_order():
    lengths = torch.tensor([2, 0, 4, 1])
    padded = torch.arange(1, 17).reshape(4, 4) * (torch.arange(4) < lengths[:, None])
    packing = Packing.of(lengths)
    packed = packing.pack(padded)
    assert packing.widths == [3, 2, 1, 1]
    assert packed.tolist() == [9, 1, 13, 10, 2, 11, 12]  # longest first, step by step
    assert packed[packing.last].tolist() == [12, 2, 13]
    assert torch.equal(packing.unpack(packed, 4, 4), padded)
    assert torch.equal(packing.to_rows(packing.to_lanes(padded)), padded)
