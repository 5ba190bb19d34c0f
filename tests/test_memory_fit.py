"""A memory of exact values that is fitted on validation once its model is trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from ksr_recbole import Recommender, save_model
from ksr_recbole.errors import UserError
from ksr_recbole.evaluation.candidates import CandidateSets
from ksr_recbole.evaluation.logit import conditional_logit
from ksr_recbole.explanation.explain import explain
from ksr_recbole.explanation.trained import load_trained
from ksr_recbole.quick_start import run
from ksr_recbole.quick_start.result import summary
from ksr_recbole.trainer import checkpoint
from ksr_recbole.trainer.memory_fit import _fitted, some_of
from ksr_recbole.trainer.trainer import SequenceTrainer
from tests.models import make_model, training_batch
from tests.toy import toy_run, toy_values, write_toy

LATER = {"value_matrix": "exact", "memory_fit": "validation", "learning_rate": 0.05}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("fit"))


@pytest.fixture(scope="module")
def trained(folder):
    return toy_run(folder, "KSR", epochs=3, **LATER)


def weights_in(result) -> torch.Tensor:
    return checkpoint.load(result["checkpoint"])["state_dict"]["exact.weights"]


# The logit ------------------------------------------------------------------------------------


def drawn(n: int, weights: list[float], seed: int = 0) -> np.ndarray:
    """Features ``[n, 20, F]`` whose positives, in column 0, were drawn with these weights."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 20, len(weights)))
    logits = features @ np.array(weights) + rng.gumbel(size=(n, 20))
    chosen = logits.argmax(1)
    rows = np.arange(n)
    features[rows, 0], features[rows, chosen] = features[rows, chosen], features[rows, 0].copy()
    return features


def test_a_logit_finds_the_weights_that_positives_were_drawn_with():
    wanted = [0.8, -0.4, 0.0, 1.5]
    np.testing.assert_allclose(conditional_logit(drawn(8000, wanted)), wanted, atol=0.06)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_a_logit_is_the_minimum_of_the_plain_loss(dtype, penalty):
    features = drawn(300, [1.0, 0.5, -0.5])
    costs = np.array([0.0, penalty, penalty])

    def loss(weights):
        return -log_softmax(features @ weights, axis=1)[:, 0].mean() + costs @ weights**2

    expected = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-6}).x
    found = conditional_logit(features.astype(dtype), costs)
    np.testing.assert_allclose(found, expected, atol=1e-3)


# What is fitted -------------------------------------------------------------------------------


def test_what_positives_share_with_the_history_gets_weight_and_noise_does_not():
    features = drawn(2000, [1.0, 0.3, 2.0, 0.0]).astype(np.float32)
    users = np.arange(2000)
    fit = _fitted(features.copy(), users, torch.Size([1, 2]))
    assert fit.used and fit.with_memory > fit.without + 0.05 and fit.positives == 2000
    np.testing.assert_allclose(fit.weights, [[2.0, 0.0]], atol=0.2)


def test_a_memory_that_does_not_help_stays_unread():
    rng = np.random.default_rng(1)
    features = drawn(200, [1.0, 0.0]).astype(np.float32)
    noise = rng.normal(size=(200, 20, 60)).astype(np.float32)
    fit = _fitted(np.concatenate([features, noise], 2), np.arange(200), torch.Size([4, 15]))
    assert not fit.used and not fit.weights.any()
    assert "left unread" in str(fit)


@pytest.mark.parametrize("n_users", [1, 2])
def test_few_users_and_attributes_without_values_are_no_mistake(n_users):
    features = np.zeros((4, 5, 4), np.float32)
    features[:, 0, 0] = 1.0
    fit = _fitted(features, np.arange(4) % n_users, torch.Size([1, 2]))
    assert torch.isfinite(fit.weights).all() and not fit.used


def test_of_many_positives_some_are_drawn_evenly():
    users = np.arange(1000)
    candidates = CandidateSets(users, users + 1, users[:, None] + 2)
    few = some_of(candidates, seed=3, most=100)
    assert len(few.users) == 100 and (np.diff(few.users) > 0).all()
    assert (few.positives == few.users + 1).all() and (few.negatives[:, 0] == few.users + 2).all()
    assert abs(few.users.mean() - 500) < 120
    assert some_of(candidates, seed=3) is candidates


def test_parts_times_weights_are_the_match(trained, folder):
    rec = Recommender.load(save_model(trained, folder / "parts"))
    state = rec.start(rec.items[:6]).memory
    model = rec.model.double()
    memory, items = model.exact, torch.arange(1, model.n_items)[None]
    state = state._replace(hidden=state.hidden.double(), values=state.values.double())
    slots = state.values
    parts = memory.parts(slots, items)
    assert parts.shape == (1, model.n_items - 1, *memory.weights.shape) and parts.any()
    weights = torch.randn(memory.weights.shape, dtype=torch.float64)
    memory.wake(weights)
    read = model.read_state(torch.zeros(1, dtype=torch.long), state)
    match = model.terms(read, own=items)[1]
    torch.testing.assert_close((parts * weights).sum((-1, -2)), match)
    for place, item in enumerate(items[0].tolist()):  # and by plain loops
        expected = torch.zeros_like(memory.weights)
        for column in memory.columns[memory.starts[item] : memory.starts[item + 1]].tolist():
            share = slots[0, :, column] / slots[0, :, 0]
            expected[:, memory.attributes[column]] += share * memory.value_weights[column]
        torch.testing.assert_close(parts[0, place], expected)


# While its model trains -----------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["CE", "BPR"])
def test_a_sleeping_memory_trains_the_model_as_one_that_counts_nothing(
    toy_config, toy_dataset, loss
):
    def trained_by(asleep):
        model = make_model(toy_config(**{**LATER, "loss_type": loss}), toy_dataset)
        model.exact.wake(torch.zeros_like(model.exact.weights))
        if asleep:
            model.exact.sleep()
        batch = training_batch([[1, 2, 3, 4], [5, 6, 7]], [[[8]] * 3, [[9]] * 2])
        total = model.calculate_loss(batch)
        total.backward()
        return total, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}

    (one, gradients), (other, expected) = trained_by(asleep=True), trained_by(asleep=False)
    torch.testing.assert_close(one, other)
    assert not any(name.startswith("exact.") for name in gradients)
    torch.testing.assert_close(gradients, expected)


def test_nothing_is_held_or_read_in_sleep(trained, folder):
    model = Recommender.load(save_model(trained, folder / "sleep")).model
    awake = model.initial_state(2).values.shape
    assert awake[2] == len(model.exact.attributes) and model.exact.weights.any()
    model.exact.sleep()
    assert model.initial_state(2).values.numel() == 0 and not model.exact.weights.any()
    histories, lengths = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2])
    read = model.read_last(torch.tensor([1, 2]), histories, lengths)
    torch.testing.assert_close(model.all_scores(read), read @ model.item_vectors().T)


# A run ----------------------------------------------------------------------------------------


def test_a_run_fits_the_memory_of_its_best_epoch_and_says_so(trained, folder):
    fit = trained["memory_fit"]
    assert fit["used"] and fit["positives"] == 30 and fit["with_memory"] > fit["without"]
    kept = weights_in(trained)
    torch.testing.assert_close(kept, torch.tensor(fit["weights"]))
    assert kept.any() and json.loads(Path(trained["result_file"]).read_text())["memory_fit"] == fit
    assert "memory      fitted on 30 positives" in summary(trained, Path("result.json"))
    assert trained["best_valid_result"]["mrr"] > trained["best_valid_score"] + 0.05


@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.9}, {"eval_args": {"mode": "full"}}])
def test_a_run_that_keeps_no_file_fits_the_same(folder, more):
    values = {**LATER, **more, "epochs": 3}
    kept = toy_run(folder, "KSR", **values)
    free = run("KSR", "toy", None, toy_values(folder, **values), saved=False)
    assert free["memory_fit"] == kept["memory_fit"] and free["test_result"] == kept["test_result"]


def test_more_epochs_after_a_fit_are_those_of_one_run(folder, tmp_path):
    def trained_for(epochs, **values):
        return toy_run(folder, "KSR", epochs=epochs, checkpoint_dir=tmp_path, **LATER, **values)

    whole, some = trained_for(5), trained_for(3)
    more = trained_for(5, resume=some["checkpoint"])
    again = trained_for(5, resume=more["checkpoint"])  # nothing is left but the fit
    for each in (more, again):
        assert each["memory_fit"] == whole["memory_fit"]
        assert each["test_result"] == whole["test_result"]
        torch.testing.assert_close(weights_in(each), weights_in(whole))


def test_nothing_to_fit_on_is_said(folder, monkeypatch, capfd):
    monkeypatch.setattr(SequenceTrainer, "_to_fit_on", lambda *_: None)
    result = toy_run(folder, "KSR", epochs=1, **LATER)
    assert "there is nothing to fit the memory on" in capfd.readouterr().err
    assert "memory_fit" not in result and not weights_in(result).any()


def test_reasons_of_a_fitted_memory_add_up(trained):
    model, dataset, _ = load_trained(trained["checkpoint"])
    told = explain(model, dataset, trained["example_user"])
    assert told.split == "exact"
    assert any(each.reasons for each in told.recommendations)


def test_a_checkpoint_of_before_the_option_is_of_a_memory_that_trained(folder, tmp_path):
    values = {"value_matrix": "exact", "learning_rate": 0.05, "checkpoint_dir": tmp_path}
    path = toy_run(folder, "KSR", epochs=1, **values)["checkpoint"]
    content = checkpoint.load(path)
    del content["settings"]["memory_fit"]
    checkpoint.save(path, content)
    assert toy_run(folder, "KSR", epochs=2, resume=path, **values)["epochs_trained"] == 2
    with pytest.raises(UserError, match="memory_fit"):
        toy_run(folder, "KSR", epochs=2, resume=path, memory_fit="validation", **values)


@pytest.mark.parametrize("value", ["test", True, 3])
def test_another_value_is_refused(folder, value):
    with pytest.raises(UserError, match=r"memory_fit is .*must be one of: training, validation"):
        toy_run(folder, "KSR-exact", memory_fit=value)
