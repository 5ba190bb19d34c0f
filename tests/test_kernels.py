"""What holds for every kernel: refusals instead of wrong numbers, however it is called."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ksr_recbole.dataset.item_values import ItemValues
from ksr_recbole.model import kernels
from ksr_recbole.model.kernels import aligned, exact, fused, losses, memory, scores
from ksr_recbole.model.kernels.bounds import check_rows
from ksr_recbole.model.kernels.gru import run_gru
from ksr_recbole.model.kernels.packing import Packing
from tests.models import let_numba_compile
from tests.test_exact import ATTRIBUTES, graph

ROOT = Path(__file__).resolve().parents[1]
TARGETS = torch.tensor([0, 2, 1])


def drawn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator)


def gru(given: Tensor) -> Tensor:
    torch.manual_seed(0)
    packing = Packing.of(torch.tensor([2, 1]))
    return run_gru(nn.GRU(5, 4, batch_first=True), given, None, torch.zeros(1, 2, 4), packing)[0]


def linear(given: Tensor) -> Tensor:
    torch.manual_seed(0)
    return aligned.AlignedLinear(5, 3)(given)


def vector_memory(given: Tensor, values: Tensor | None = None) -> Tensor:
    table = memory.translations(drawn(4, 6), drawn(5, 6))
    updates = memory.Updates(table, torch.tensor([1, 3, 0]))
    values = drawn(2, 5, 6) if values is None else values
    return memory.write_then_read(given, updates, values, [2, 1])[0]


def reads_of(weights: Tensor, slots: Tensor | None = None) -> exact.Reads:
    triples, entities = graph()
    values = ItemValues.of(triples, ATTRIBUTES, entities)
    given = [torch.from_numpy(part) for part in (values.starts, values.columns)]
    updates = exact.ExactUpdates(torch.tensor([1, 2, 4]), *given, torch.tensor([0.5, 1.0]))
    numbers = torch.from_numpy(values.weights).float()
    slots = torch.zeros(2, 2, len(numbers)) if slots is None else slots
    attributes = torch.from_numpy(values.attributes)
    return exact.Reads(weights, updates, slots, [2, 1], attributes, numbers)


def exact_terms(given: Tensor, slots: Tensor | None = None) -> Tensor:
    reads = reads_of(given.view(3, 2, 3), slots)
    shared, own = exact.terms(reads, torch.arange(9), torch.tensor([[1], [2], [8]]))
    return torch.cat([shared, own], dim=1)


def sampled_loss(given: Tensor) -> Tensor:
    chances, rows = torch.zeros(4), torch.tensor([0, -1, 1])
    return losses.sampled_softmax_loss(given, drawn(3), drawn(4, 5), chances, rows)


# A function of three rows, what each is given, and the class of its gradient.
CASES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "gru._Layer": (gru, 5),
    "aligned._Linear": (linear, 5),
    "memory_numba._WriteThenRead": (vector_memory, 5),
    "exact_numba._Terms": (exact_terms, 6),
    "exact._EachRead": (lambda given: reads_of(given.view(3, 2, 3)).of_values(), 6),
    "scores_numba._SampledScores": (
        lambda given: scores.sampled_scores(given, drawn(4, 5), TARGETS[:, None]), 5,
    ),
    "losses._SoftmaxLoss": (lambda given: losses.softmax_loss(given, drawn(4, 5), TARGETS), 5),
    "losses._SharedSampleLoss": (sampled_loss, 5),
}  # fmt: skip

of_every_kernel = pytest.mark.parametrize("name", CASES)


@pytest.fixture(autouse=True)
def _compiling(monkeypatch):
    pytest.importorskip("numba")
    import_module("ksr_recbole.model.kernels.gru_numba")
    let_numba_compile(monkeypatch)


def test_every_gradient_of_our_own_is_among_the_cases():
    folder = Path(inspect.getfile(kernels)).parent
    names = {path.stem for path in folder.glob("*.py")} - {"memory_triton", "__init__"}
    found = {
        f"{name}.{of.__name__}"
        for name in names
        for of in vars(import_module(f"{kernels.__name__}.{name}")).values()
        if inspect.isclass(of)
        and issubclass(of, torch.autograd.Function)
        and of.__module__.endswith(f".{name}")
    }
    assert found == set(CASES)


@of_every_kernel
def test_a_gradient_of_a_gradient_is_refused(name):
    """It would miss what passes through the kernel."""
    function, size = CASES[name]
    given = drawn(3, size).requires_grad_()
    loss = (function(given) ** 2).sum()
    (gradient,) = torch.autograd.grad(loss, given, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        (loss + gradient.square().sum()).backward()


@pytest.mark.parametrize("function", [vector_memory, exact_terms])
def test_slots_that_change_before_the_gradient_are_noticed(function):
    n_values = reads_of(drawn(3, 6).view(3, 2, 3)).slots.shape[2]
    sizes = {vector_memory: (5, (2, 5, 6)), exact_terms: (6, (2, 2, n_values))}
    size, shape = sizes[function]
    slots, given = torch.ones(shape), drawn(3, size).requires_grad_()
    found = function(given, slots)
    slots.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.sum().backward()


# Rows that are not there -----------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-1, -9, 4, 10**9])
def test_a_row_that_is_not_there_is_refused(wrong):
    check_rows(torch.tensor([[0, 3]]), 4)
    check_rows(torch.empty(0, dtype=torch.int64), 0)
    with pytest.raises(IndexError, match=f"row {wrong} is out of range: there are 4 rows"):
        check_rows(torch.tensor([0, wrong, 3]), 4)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("wrong", [-9, 9, 10**9])
def test_no_kernel_reads_by_a_row_that_is_not_there(monkeypatch, wrong, fast):
    if not fast:
        for module in (scores, exact):
            monkeypatch.setattr(module, "fused", lambda *_: None)
    items, one = torch.tensor([[1], [wrong], [2]]), torch.tensor([1])
    with pytest.raises(IndexError):
        scores.sampled_scores(drawn(3, 5), drawn(9, 5), items)
    if not fast and wrong < 0:
        return  # PyTorch's own selections count from the end
    reads = reads_of(drawn(3, 6).view(3, 2, 3))
    sparse = (reads.updates.starts, reads.updates.columns)
    taste = reads.of_values()
    for call in (
        lambda: exact.terms(reads, one, items),
        lambda: exact.terms(reads, items[:, 0], one.expand(3, 1)),
        lambda: exact.match(taste, items[:, 0], *sparse),
        lambda: exact.write_all(
            exact.ExactUpdates(items[:, 0], *sparse, reads.updates.decays), reads.slots, [2, 1]
        ),
    ):
        with pytest.raises(IndexError):
            call()


# Numbers, and steps that are not there ---------------------------------------------------------


def test_a_memory_in_double_precision_stays_so():
    weights, values = drawn(3, 5).double(), drawn(2, 5, 6).double()
    table = memory.translations(drawn(4, 6).double(), drawn(5, 6).double())
    given = memory.Updates(table, torch.tensor([1, 3, 0])), values, [2, 1]
    found = (*memory.write_then_read(weights, *given), memory.write_all(*given))
    expected = memory.write_then_read(weights, *given, backend="torch")
    assert all(torch.equal(a, b) for a, b in zip(found, (*expected, expected[1]), strict=True))
    assert found[0].dtype == torch.float64


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_without_a_step_nothing_is_read_or_written(monkeypatch, backend):
    values, nothing = drawn(2, 5, 6), torch.empty(0, dtype=torch.int64)
    updates = memory.Updates(torch.empty(0, 5, 6), nothing)
    read, after = memory.write_then_read(torch.empty(0, 5), updates, values, [], backend)
    assert read.shape == (0, 6) and torch.equal(after, values)
    if backend == "torch":
        monkeypatch.setattr(exact, "fused", lambda *_: None)
    full = reads_of(drawn(3, 6).view(3, 2, 3))
    sparse = (full.updates.starts, full.updates.columns, full.updates.decays)
    weights = torch.empty(0, 2, 3, requires_grad=True)
    reads = exact.Reads(weights, exact.ExactUpdates(nothing, *sparse), full.slots, [],
                        full.attributes, full.value_weights)  # fmt: skip
    shared, own = exact.terms(reads, torch.arange(9), torch.empty(0, 4, dtype=torch.int64))
    assert shared.shape == (0, 9) and own.shape == (0, 4)
    (shared.sum() + own.sum()).backward()
    assert weights.grad is not None and weights.grad.shape == weights.shape


# Numba -----------------------------------------------------------------------------------------


def in_a_new_process(program: str, **variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.endswith("NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=ROOT, env={**environment, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


TURNS = """
import threading, torch
from ksr_recbole.model.kernels.scores import sampled_scores
users, table = torch.randn(4000, 64), torch.randn(50, 64)
items = torch.randint(0, 50, (4000, 20))
expected = torch.einsum("pd,pnd->pn", users, table[items])
right = []
def ask():
    for _ in range(30):
        right.append(torch.allclose(sampled_scores(users, table, items), expected, atol=1e-4))
threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
import numba
print(numba.threading_layer(), len(right), all(right))
"""


def test_threads_of_python_may_use_the_kernels_at_the_same_time():
    """Numba's own threads end the process when they are used by two at a time."""
    found = in_a_new_process(TURNS, NUMBA_THREADING_LAYER="workqueue", NUMBA_NUM_THREADS="2")
    assert found.split() == ["workqueue", "120", "True"]


COMPILES = """
import numba, numpy as np
@numba.njit(parallel=True)
def first(x):
    for i in numba.prange(len(x)):
        x[i] += 1
first(np.zeros(100))
import ksr_recbole.plugin
ksr_recbole.plugin.register()
@numba.njit
def second(x):
    return 2 * x
print(second(3))
"""


def test_numba_still_compiles_what_users_write():
    """It does not once its variable differs from the threads that it has started."""
    assert in_a_new_process(COMPILES, OMP_NUM_THREADS="1").split()[-1] == "6"


THREADS = """
import threading
from ksr_recbole.config import Config
from ksr_recbole.model.kernels.fused import fused
import numba
Config("KSR", "ml-100k", None, {"num_threads": 1, "state": "ERROR"})
def show():
    fused("scores")
    print(numba.get_num_threads())
thread = threading.Thread(target=show); thread.start(); thread.join()
show()
"""


def test_the_number_of_threads_holds_in_every_thread_of_python():
    found = in_a_new_process(THREADS, NUMBA_NUM_THREADS="2", OMP_NUM_THREADS="2")
    assert found.split()[-2:] == ["1", "1"]


def test_where_numba_compiles_nothing_plain_pytorch_computes(monkeypatch, caplog):
    from numba.core import config

    monkeypatch.setattr(config, "DISABLE_JIT", 1)
    for function in (fused._found, fused._tell):
        function.cache_clear()
    found = [CASES[name][0](drawn(3, CASES[name][1])) for name in CASES]
    monkeypatch.undo()
    fused._found.cache_clear()
    [record] = caplog.records
    assert "NUMBA_DISABLE_JIT is set" in record.message
    for name, other in zip(CASES, found, strict=True):
        function, size = CASES[name]
        torch.testing.assert_close(function(drawn(3, size)), other, atol=1e-5, rtol=1e-5)
