"""Catalogues of many items: the loss that is chosen, and steps that cost nothing by the item."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from torch.utils._python_dispatch import TorchDispatchMode

from ksr_recbole.compat import silence_upstream_warnings
from ksr_recbole.config import Config
from ksr_recbole.dataset.dataloader import data_preparation
from ksr_recbole.dataset.sequence_datasets import load_dataset
from ksr_recbole.lazy_adam import with_rows
from ksr_recbole.model.kernels import exact, losses
from ksr_recbole.pretraining import kge
from ksr_recbole.quick_start import prepare, run
from ksr_recbole.trainer import row_updates
from tests.toy import toy_values


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy data's 60 items count as many."""
    for module in (prepare, row_updates):
        monkeypatch.setattr(module, "MANY_ITEMS", 20)


def opened(folder: Any, model: str, **changes: Any) -> Config:
    config = Config(model, "toy", None, toy_values(folder, **changes))
    prepare.open_dataset(config)
    return config


@pytest.mark.parametrize(
    ("model", "changes", "loss"),
    [
        ("KSR", {}, "sampled_CE"),
        ("GRU", {}, "sampled_CE"),
        ("GRU", {"loss_type": "CE"}, "CE"),
        ("KSR-paper", {}, "BPR"),
        ("RUM_I", {}, "BPR"),
    ],
)
def test_many_items_have_the_sampled_loss_unless_another_is_given(
    toy_folder, few_are_many, model, changes, loss
):
    assert opened(toy_folder, model, **changes)["loss_type"] == loss


@pytest.mark.parametrize(
    ("changes", "size"),
    [({}, 2048), ({"sampled_items": 512}, 512), ({"loss_type": "sampled_CE"}, None)],
)
def test_many_items_have_a_larger_sample_unless_another_is_given(
    toy_folder, few_are_many, changes, size, caplog
):
    with caplog.at_level("INFO"):
        assert opened(toy_folder, "GRU", **changes)["sampled_items"] == size
    said = f"sampled_CE with sampled_items: {size};" in caplog.text
    assert said == ("loss_type" not in changes)


def test_few_items_have_the_softmax_over_all(toy_folder):
    assert opened(toy_folder, "KSR")["loss_type"] == "CE"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loss_type": "sampled_CE"}, "512, so every sample has all items, and the loss is that"),
        (
            {"loss_type": "sampled_CE", "sampled_items": 61},
            "61, so every sample has all items, and",
        ),
        ({"loss_type": "gBCE", "sampled_items": 61}, "61, so every sample has all items."),
        ({"loss_type": "gBCE", "sampled_items": 60}, None),
        ({"loss_type": "CE"}, None),
        ({"loss_type": "BPR"}, None),
    ],
)
def test_a_sample_larger_than_the_catalogue_is_said(toy_folder, changes, told, caplog):
    config = Config("GRU", "toy", None, toy_values(toy_folder, **changes))
    with caplog.at_level("INFO"):
        prepare.load_data(config)
    said = [each for each in caplog.messages if "every sample" in each]
    if told is None:
        assert said == []
    else:
        assert len(said) == 1 and f"toy has 60 items, fewer than sampled_items: {told}" in said[0]


# Rows ------------------------------------------------------------------------------------------


def test_rows_with_a_gradient_get_adam_s_step_and_others_none():
    start = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    sparse, dense = (
        torch.nn.Embedding.from_pretrained(start.clone(), freeze=False, sparse=way)
        for way in (True, False)
    )
    bias = torch.nn.Parameter(torch.ones(3).double())
    optimizers = [
        with_rows(torch.optim.Adam([*sparse.parameters(), bias], lr=0.1)),
        torch.optim.Adam(dense.parameters(), lr=0.1),
    ]
    read = torch.tensor([0, 2, 2, 5])
    for _ in range(4):
        for table, optimizer in zip((sparse, dense), optimizers, strict=True):
            optimizer.zero_grad()
            ((table(read) + bias.detach()) ** 3 + 0 * bias).sum().backward()
            optimizer.step()
    torch.testing.assert_close(sparse.weight, dense.weight)  # the same rows at every step
    assert torch.equal(sparse.weight[[1, 3, 4]], start[[1, 3, 4]])
    kept, expected = (o.state[o.param_groups[0]["params"][0]] for o in optimizers)
    assert kept.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(kept[name], value)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_type": "CE"},
        {"loss_type": "BPR"},
        {"weight_decay": 0.1},
        {"clip_grad_norm": {"max_norm": 1.0}},
        {"ema_decay": 0.9},
        {"learner": "rmsprop"},
        {"freeze_item": True, "item_init": "bpr"},
    ],
)
def test_what_changes_every_row_keeps_dense_gradients(toy_folder, few_are_many, changes):
    _, trainer = trainer_of(toy_folder, "GRU", **changes)
    assert not trainer.model.item_embedding.sparse


def trainer_of(folder: Any, model: str, **changes: Any) -> tuple[Any, Any]:
    values = {"loss_type": "sampled_CE", "sampled_items": 5, "train_batch_size": 10, **changes}
    config = Config(model, "toy", None, toy_values(folder, **values))
    dataset = load_dataset(config)
    train, _, _ = data_preparation(config, dataset)
    prepare.find_vectors(config, dataset)
    return train, prepare.make_trainer(config, dataset)


@pytest.mark.parametrize("learner", ["adagrad", "sgd", "adam"])
def test_no_step_with_sparse_gradients_warns(toy_folder, few_are_many, learner):
    train, trainer = trainer_of(toy_folder, "GRU", learner=learner)
    assert trainer.model.item_embedding.sparse
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        silence_upstream_warnings()
        trainer._train_epoch(train, 0)
    assert [str(each.message) for each in said] == []


class _Sizes(TorchDispatchMode):
    """Notes the operations of which a dense result has as many rows as there are items."""

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items, self.found = n_items, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            dense = isinstance(each, torch.Tensor) and each.layout == torch.strided
            if dense and each.dim() == 2 and len(each) == self.n_items:
                self.found.append(str(function))
        return result


VIEWS = {
    "aten.detach.default",
    "aten.t.default",
    "aten.index_put_.default",
    "aten.index_add_.default",
}
"""What gives the table itself, or writes some rows of it."""


@pytest.mark.parametrize("loss", ["sampled_CE", "gBCE", "CE"])
@pytest.mark.parametrize("model", ["KSR", "GRU"])
def test_no_step_makes_anything_of_the_size_of_the_catalogue(toy_folder, few_are_many, model, loss):
    train, trainer = trainer_of(toy_folder, model, loss_type=loss)
    assert trainer.model.item_embedding.sparse == (loss != "CE")
    trainer._train_epoch(train, 0)  # Adam's means are made in the first step
    train.set_epoch(1)
    batch = next(iter(train))
    with _Sizes(trainer.model.n_items) as sizes:
        trainer.optimizer.zero_grad()
        trainer.model.calculate_loss(batch).backward()
        trainer.optimizer.step()
    assert (set(sizes.found) <= VIEWS) == (loss != "CE")


def test_the_same_seed_gives_the_same_result_and_a_resumed_run_too(toy_folder, few_are_many):
    def scores(**changes: Any) -> Any:
        values = toy_values(toy_folder, sampled_items=9, **changes)
        return run("GRU", "toy", None, values)

    whole = scores(epochs=3)
    assert whole["config"]["loss_type"] == "sampled_CE"
    half = scores(epochs=1)
    resumed = scores(epochs=3, resume=half["checkpoint"])
    again = scores(epochs=3)
    assert whole["test_result"] == again["test_result"] == resumed["test_result"]


# On a GPU --------------------------------------------------------------------------------------

WAITS = (
    *("_local_scalar_dense", "nonzero", "_unique", "unique_", "masked_select"),
    "repeat_interleave.Tensor",
)
"""Parts of the names of operations for whose result the processor waits for a GPU."""


@pytest.fixture(autouse=True)
def _no_anomaly_mode() -> Iterator[None]:
    """Some of RecBole's models, once imported, have every step looked through for NaN."""
    with torch.autograd.set_detect_anomaly(False):
        yield


class _Waits(TorchDispatchMode):
    """Counts operations at which the processor would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if any(part in str(function) for part in WAITS) and kwargs.get("output_size") is None:
            self.found.append(str(function))
        return function(*args, **kwargs)


@pytest.mark.parametrize(
    ("model", "loss", "most"),
    [("GRU", "CE", 3), ("GRU", "sampled_CE", 4), ("KSR", "CE", 4), ("KSR", "sampled_CE", 5)],
)
def test_a_step_waits_for_a_gpu_only_where_it_lays_out_the_batch(toy_folder, model, loss, most):
    train, trainer = trainer_of(toy_folder, model, loss_type=loss)
    batch = next(iter(train))
    with _Waits() as waits:
        trainer.model.calculate_loss(batch).backward()
    assert len(waits.found) <= most, waits.found


def test_an_exact_memory_waits_as_often_for_one_step_as_for_many(
    toy_folder, few_are_many, monkeypatch
):
    """In plain PyTorch, as on a GPU."""
    monkeypatch.setattr(exact, "fused", lambda name: None)
    changes = {"memory_fit": "training", "loss_type": "CE", "train_batch_size": 60}
    train, trainer = trainer_of(toy_folder, "KSR-exact", **changes)
    batch = next(iter(train))
    found = []
    for steps in (2, batch["item_id_list"].shape[1]):
        some = Interaction(
            {k: v[:, :steps] if v.dim() > 1 else v for k, v in batch.interaction.items()}
        )
        with _Waits() as waits:
            trainer.model.calculate_loss(some).backward()
        found.append(len(waits.found))
    assert batch["item_id_list"].shape[1] > 4 and max(found) - min(found) <= 1, found


@pytest.mark.parametrize("loss", ["softmax_loss", "sampled_softmax_loss"])
def test_no_piece_of_the_scores_is_larger_than_said_on_any_device(loss, monkeypatch):
    monkeypatch.setattr(losses, "GPU_PIECE", 1 << 20)
    sizes: list[int] = []

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and not result._is_view():
                sizes.append(result.numel())
            return result

    def of(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta", requires_grad=True)

    places = torch.empty(4_096, dtype=torch.long, device="meta")
    with Largest():
        if loss == "softmax_loss":
            value = losses.softmax_loss(of(4_096, 4), of(100_000, 4), places)
        else:
            sample = of(4_096), of(100_000, 4), torch.empty(100_000, device="meta"), places
            value = losses.sampled_softmax_loss(of(4_096, 4), *sample)
        value.backward()
    assert value.shape == () and value.device.type == "meta"
    assert 100_000 < max(sizes) <= 1 << 20


# Entities ----------------------------------------------------------------------------------------


def test_transe_of_many_entities_updates_rows_and_learns_as_well(monkeypatch):
    settings = kge.KGESettings("TransE", 8, 30, 64, 0.05, "margin", 1.0, 4, 1)
    heads, rng = np.arange(60), np.random.default_rng(0)
    triples = np.stack(
        [np.tile(heads, 5), np.repeat(np.arange(5), 60), 60 + np.tile(heads % 6, 5)], 1
    )

    def distances() -> tuple[float, np.ndarray]:
        made = kge.train_kge(triples, 66, 5, settings, seed=0, show_progress=False)
        head, tail = (made.entity[triples[:, column]] for column in (0, 2))
        wrong = made.entity[rng.integers(0, 66, len(triples))]
        right = np.abs(head + made.relation[triples[:, 1]] - tail).sum(1)
        return float((right < np.abs(head + made.relation[triples[:, 1]] - wrong).sum(1)).mean()), (
            np.linalg.norm(made.entity, axis=1)
        )

    dense, _ = distances()
    monkeypatch.setattr(kge, "MANY_ENTITIES", 20)
    lazy, lengths = distances()
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    assert dense > 0.8 and lazy > dense - 0.05
