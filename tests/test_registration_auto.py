"""Every registered model through RecBole's ``run_recbole``, as in RecBole's test_model_auto."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil
import pytest
from recbole.quick_start import run_recbole

import ksr_recbole
from ksr_recbole.registry import model_class, own_models
from tests.toy import toy_values, write_toy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with the 100 negatives a mode asks for; vectors are pretrained once."""
    return write_toy(tmp_path_factory.mktemp("auto"), n_users=30, n_items=140)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "argv", ["script.py"])
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 0.0)
    ksr_recbole.register()
    yield
    ksr_recbole.unregister()


def quick_test(folder: Path, model: str, **changes: Any) -> dict[str, float]:
    """One epoch; the test metrics."""
    values = toy_values(folder, epochs=1, **changes)
    result = run_recbole(model, "toy", config_dict=values, saved=False)
    metrics = result["test_result"]
    assert {"map", "mrr", "hit@10", "ndcg@10"} <= set(metrics)
    assert all(0 <= value <= 1 for value in metrics.values())
    assert metrics["mrr"] > 0
    return metrics


def models_and_losses() -> Iterator[tuple[str, str]]:
    """Pairs in which every model occurs, and every loss with one model of each class."""
    by_class: dict[type, list[str]] = {}
    for model in own_models():
        by_class.setdefault(model_class(model), []).append(model)
    for of_class, models in by_class.items():
        losses = of_class.Options.checks()["loss_type"].choices
        number = max(len(models), len(losses))
        yield from islice(zip(cycle(models), cycle(losses), strict=False), number)


@pytest.mark.parametrize(("model", "loss"), models_and_losses())
def test_every_model_and_loss(folder, model, loss):
    quick_test(folder, model, loss_type=loss)


@pytest.mark.parametrize("model", ["KSR", "GRU_F"])
def test_dropout(folder, model):
    common = {"learner": "adam", "learning_rate": 0.1, "eval_args": {"mode": "full"}}
    with_dropout = quick_test(folder, model, dropout_prob=0.5, **common)
    assert with_dropout != quick_test(folder, model, dropout_prob=0.0, **common)


@pytest.mark.parametrize("mode", ["full", "uni100", "pop100", "uni50pop50"])
def test_evaluation_modes(folder, mode):
    """One model shows them all: which items are ranked does not depend on the model."""
    quick_test(folder, "KSR", eval_args={"mode": mode})


@pytest.mark.parametrize(
    "changes",
    [
        {"value_matrix": "shared"},
        {"train_neg_sample_args": {"distribution": "popularity", "sample_num": 2}},
        {"freeze_kg": False, "train_kg_step": 1},
        {"task": "next-session", "session_length": 7200.0},
        {"eval_args": {"mode": {"valid": "uni10", "test": "full"}}},
    ],
)
def test_options_of_ksr(folder, changes):
    quick_test(folder, "KSR-paper", **changes)
