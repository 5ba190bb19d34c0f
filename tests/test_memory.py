"""The memory's kernels agree with each other and with the float64 reference."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ksr_recbole.errors import UserError
from ksr_recbole.model.kernels import fused, memory
from tests import reference

WIDTHS = [5, 5, 4, 4, 4, 2, 1, 1, 1]
"""Sequences of 9, 6, 5, 5 and 2 steps."""
ROWS = sum(WIDTHS)


def lane_rows(lane: int) -> list[int]:
    """Packed rows of a lane's steps."""
    return [sum(WIDTHS[:t]) + lane for t, width in enumerate(WIDTHS) if lane < width]


def random_inputs(dtype: torch.dtype = torch.float32, gate_bias: float = 0.0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    weights = torch.softmax(normal(ROWS, 4), dim=-1)
    table = memory.translations(normal(7, 6), normal(4, 6))
    index = torch.randint(0, 7, (ROWS,), generator=generator)
    return {
        "weights": weights,
        "updates": memory.Updates(table, index, gate_bias),
        "values": normal(6, 4, 6),  # the sixth lane has no step
        "widths": WIDTHS,
    }


def test_updates_are_translations():
    entities, relations = torch.randn(3, 5), torch.randn(2, 5)
    table = memory.translations(entities, relations)
    for item in range(3):
        for a in range(2):
            assert torch.equal(table[item, a], entities[item] + relations[a])  # Eq. 7


@pytest.mark.parametrize("gate_bias", [0.0, -2.5])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_each_kernel_equals_the_reference(backend, gate_bias):
    inputs = random_inputs(gate_bias=gate_bias)
    read, values = memory.write_then_read(**inputs, backend=backend)
    without_read = {name: value for name, value in inputs.items() if name != "weights"}
    written = memory.write_all(**without_read, backend=backend)
    arrays = {name: inputs[name].double().numpy() for name in ("weights", "values")}
    given = inputs["updates"]
    for lane in range(6):
        matrix = arrays["values"][lane]
        for row in lane_rows(lane):
            updates = given.table[given.index[row]].double().numpy()
            matrix = reference.write(matrix, updates, gate_bias)
            expected = reference.read(arrays["weights"][row], matrix)
            np.testing.assert_allclose(read[row], expected, atol=1e-5)
        np.testing.assert_allclose(values[lane], matrix, atol=1e-5)
        np.testing.assert_allclose(written[lane], matrix, atol=1e-5)


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
    _train_updates(inputs)
    assert memory.write_then_read(**inputs)[1].requires_grad  # auto falls to torch
    given = inputs["updates"]
    tensors = [inputs["weights"], given.table.detach(), inputs["values"]]
    assert torch.autograd.gradcheck(
        lambda weights, table, values: memory.write_then_read(
            weights, replace(given, table=table), values, WIDTHS, backend="torch"
        ),
        [tensor.detach().requires_grad_() for tensor in tensors],
        fast_mode=True,  # along random directions: one for each number takes minutes
    )


def _train_updates(inputs: dict[str, Any]) -> None:
    table = inputs["updates"].table.clone().requires_grad_()
    inputs["updates"] = replace(inputs["updates"], table=table)


def test_forcing_numba_on_trained_embeddings_is_refused():
    inputs = random_inputs()
    _train_updates(inputs)
    with pytest.raises(UserError, match="memory_backend is numba, which needs freeze_kg"):
        memory.write_then_read(**inputs, backend="numba")


def test_forcing_a_backend_of_another_device_is_refused():
    with pytest.raises(UserError, match="runs on cpu, for which auto, torch and numba"):
        memory.write_then_read(**random_inputs(), backend="triton")


def test_forcing_a_backend_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "fused", lambda *_: None)
    with pytest.raises(UserError, match="numba cannot be imported"):
        memory.write_then_read(**random_inputs(), backend="numba")


def test_without_numba_auto_uses_torch(monkeypatch):
    inputs = random_inputs()
    expected, _ = memory.write_then_read(**inputs, backend="torch")
    monkeypatch.setattr(memory, "fused", lambda *_: None)
    torch.testing.assert_close(memory.write_then_read(**inputs)[0], expected)


def test_a_missing_package_is_told_once_in_one_line(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "ksr_recbole.model.kernels.memory_numba", None)
    monkeypatch.setitem(sys.modules, "ksr_recbole.model.kernels.gru_numba", None)
    for function in (fused._found, fused._tell):
        function.cache_clear()
    inputs = random_inputs()
    for _ in range(2):
        memory.write_then_read(**inputs)
    monkeypatch.undo()
    fused._found.cache_clear()
    (record,) = caplog.records
    assert "numba" in record.message and "\n" not in record.message
    assert memory.kernels("auto", torch.device("cpu"), False) is not None


def test_the_triton_kernel_equals_the_plain_version():
    """On the CPU, in Triton's interpreter, which has to be chosen before Triton is imported."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "tests.triton_in_interpreter"]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert max(map(float, done.stdout.split())) < 2e-5


def test_attention_is_a_softmax_scaled_by_gamma():
    keys, query = torch.randn(3, 4), torch.randn(2, 4)
    weights = memory.attention_weights(query, keys, gamma=10.0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2))
    logits = 10.0 * query @ keys.T
    torch.testing.assert_close(weights.log() - logits, (weights.log() - logits)[:, :1].expand(2, 3))
