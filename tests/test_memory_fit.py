"""A memory of exact values that is fitted on validation once its model is trained."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from ksr_recbole import Recommender, save_model
from ksr_recbole.cli import next_commands
from ksr_recbole.comparison.cells import cell_key
from ksr_recbole.comparison.cli import main as benchmark
from ksr_recbole.config.shared import WITHOUT_A_VALUE
from ksr_recbole.errors import UserError
from ksr_recbole.evaluation.candidates import CandidateSets
from ksr_recbole.evaluation.logit import conditional_logit
from ksr_recbole.explanation.explain import explain
from ksr_recbole.explanation.trained import load_trained
from ksr_recbole.model.ksr import KSR
from ksr_recbole.quick_start import run
from ksr_recbole.quick_start.result import summary
from ksr_recbole.trainer import checkpoint, memory_fit, sequence_trainer
from ksr_recbole.trainer.memory_fit import _fitted, some_of
from ksr_recbole.trainer.sequence_trainer import SequenceTrainer
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
    features = drawn(20000, [1.0, 0.0, 2.0, 0.0]).astype(np.float32)
    fit = _fitted(features.copy(), np.arange(20000), torch.Size([1, 2]))
    assert fit.used and fit.with_memory > fit.without + 0.05 and fit.positives == 20000
    np.testing.assert_allclose(fit.weights, [[2.0, 0.0]], atol=0.2)
    own = features[:, :, 0]
    assert fit.without == pytest.approx((1 / (1 + (own[:, 1:] >= own[:, :1]).sum(1))).mean())


@pytest.mark.parametrize("sizes", [(1, 1, 1), (4, 1, 1), (0.5, 1, 7), (30, 5, 0.2)])
def test_weights_are_those_next_to_the_score_itself_whatever_the_sizes(sizes):
    """Positives were drawn with weights 0.5, 0.3 and 1.5; what counts is 1.5 / 0.5."""
    features = drawn(20000, [0.5, 0.3, 1.5]).astype(np.float32)
    score, _, match = sizes
    fit = _fitted(features * np.float32(sizes), np.arange(20000), torch.Size([1, 1]))
    np.testing.assert_allclose(fit.weights, [[3.0 * score / match]], rtol=0.1)


def test_the_fit_is_given_scores_popularity_and_matches(folder, monkeypatch):
    given = {}

    def noted(features, users, shape):
        given.update(features=features.copy(), users=users)
        return _fitted(features, users, shape)

    monkeypatch.setattr(memory_fit, "_fitted", noted)
    whole = memory_fit.fit_memory

    def fit(model, scorer, candidates, history_end, log_popularity):
        given.update(popularity=log_popularity[candidates.lists], candidates=candidates)
        model.eval()
        with model.exact.asleep(), torch.no_grad():
            given["scores"] = torch.cat(
                [
                    scorer.score_candidates(
                        candidates.users[[row]],
                        history_end[candidates.users[[row]]],
                        torch.from_numpy(candidates.lists[[row]]),
                    )
                    for row in range(len(candidates.users))
                ]
            )
        return whole(model, scorer, candidates, history_end, log_popularity)

    monkeypatch.setattr(sequence_trainer, "fit_memory", fit)
    monkeypatch.setattr(memory_fit, "MOST_POSITIVES", 20)  # of 30
    result = toy_run(folder, "KSR", epochs=2, **LATER)
    features = given["features"]
    assert len(features) == result["memory_fit"]["positives"] == 20
    np.testing.assert_allclose(features[:, :, 0], given["scores"], atol=1e-4)
    np.testing.assert_allclose(features[:, :, 1], given["popularity"], rtol=1e-6)
    assert given["popularity"].std() > 0 and features[:, :, 2:].any()
    assert np.array_equal(given["users"], given["candidates"].users)


def test_a_memory_that_does_not_help_stays_unread():
    rng = np.random.default_rng(1)
    features = drawn(200, [1.0, 0.0]).astype(np.float32)
    noise = rng.normal(size=(200, 20, 60)).astype(np.float32)
    fit = _fitted(np.concatenate([features, noise], 2), np.arange(200), torch.Size([4, 15]))
    assert not fit.used and not fit.weights.any()
    told = str(fit)
    assert "60 weights were fitted on 200 positives" in told and "left unread" in told


def test_a_match_that_only_helps_next_to_popularity_stays_unread():
    """It is wanted more, but comes with popularity, which is wanted less and is not added."""
    drawn_by = drawn(4000, [1.0, -1.0, 0.3])
    drawn_by[:, :, 2] = drawn_by[:, :, 1] + 0.3 * drawn_by[:, :, 2]  # -1.3 and 1 times them
    fit = _fitted(drawn_by.astype(np.float32), np.arange(4000), torch.Size([1, 1]))
    assert not fit.used


@pytest.mark.parametrize("score", [0.0, 3.7, -1.0])
def test_a_score_that_says_nothing_or_the_opposite_leaves_the_memory_unread(score):
    features = drawn(300, [-1.0, 0.0, 1.0]).astype(np.float32)
    if score >= 0:
        features[:, :, 0] = score
    assert not memory_fit._weights(features).any()
    fit = _fitted(features, np.arange(300), torch.Size([1, 1]))
    assert not fit.used and not fit.weights.any()


@pytest.mark.parametrize("n_users", [1, 2])
def test_few_users_and_attributes_without_values_are_no_mistake(n_users):
    features = np.zeros((4, 5, 4), np.float32)
    features[:, 0, 0] = 1.0
    fit = _fitted(features, np.arange(4) % n_users, torch.Size([1, 2]))
    assert torch.isfinite(fit.weights).all() and not fit.used


def test_each_half_of_the_users_is_ranked_by_the_weights_of_the_other(monkeypatch):
    """All positives of a user are in one half, as one of them tells of the others."""
    users = np.array([4, 4, 6, 6, 6, 9])
    features = np.ones((6, 2, 3), np.float32)
    features[:, 0, 0] = 10.0 ** np.arange(6)  # tells which rows the weights are of
    monkeypatch.setattr(memory_fit, "_weights", lambda some: some[:, 0, 0].sum(keepdims=True))
    found = memory_fit._scores_by_halves(features, users)[:, 1] - 1
    assert found.tolist() == [11100, 11100, 100011, 100011, 100011, 11100]


def test_of_many_positives_some_are_drawn_evenly(monkeypatch):
    users = np.arange(1000)
    candidates = CandidateSets(users, users + 1, users[:, None] + 2)
    assert some_of(candidates, 3, n_features=70) is candidates
    for name, most in (("MOST_POSITIVES", 100), ("MOST_NUMBERS", 100 * 2 * 70)):
        with monkeypatch.context() as patch:
            patch.setattr(memory_fit, name, most)
            few = some_of(candidates, 3, n_features=70)
        assert len(few.users) == 100 and (np.diff(few.users) > 0).all()
        assert (few.positives == few.users + 1).all()
        assert (few.negatives[:, 0] == few.users + 2).all()
        assert abs(few.users.mean() - 500) < 120
        with monkeypatch.context() as patch:
            patch.setattr(memory_fit, name, most)
            others = some_of(candidates, 4, n_features=70)
        assert not np.array_equal(few.users, others.users)


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


def test_a_copy_s_memory_wakes_and_not_the_original_s(toy_config, toy_dataset):
    model = make_model(toy_config(**LATER), toy_dataset)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert model.exact._asleep and copied.exact._asleep
    weights = torch.ones_like(model.exact.weights)
    copied.load_state_dict({**model.state_dict(), "exact.weights": weights})
    assert model.exact._asleep and not copied.exact._asleep
    assert copied.initial_state(1).values.numel() and not model.initial_state(1).values.numel()


def test_nobody_s_items_have_no_parts(toy_config, toy_dataset):
    memory = make_model(toy_config(value_matrix="exact"), toy_dataset).exact
    slots = torch.zeros(2, *memory.slot_shape, dtype=torch.float64)
    none = torch.zeros(2, 0, dtype=torch.long)
    assert memory.parts(slots, none).shape == (2, 0, *memory.weights.shape)


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
    assert trained["best_valid_result"]["mrr"] == trained["best_valid_score"] == fit["without"]


@pytest.mark.parametrize("score", [float("inf"), float("-inf")])
def test_an_infinite_score_is_one_sentence(folder, monkeypatch, score):
    whole = memory_fit._batches

    def broken(*given):
        for rows, scores, parts in whole(*given):
            scores[0, 0] = score
            yield rows, scores, parts

    monkeypatch.setattr(memory_fit, "_batches", broken)
    with pytest.raises(UserError, match=r"A score of the model is infinite.*lower learning_rate"):
        toy_run(folder, "KSR", epochs=1, **LATER)


def test_popularity_is_weighed_against_the_scores_that_it_is_added_to(folder, monkeypatch):
    """Validation is ranked without the memory that was fitted on it, test with it."""
    mode = "uni5pop5+popularity"
    result = toy_run(folder, "KSR", epochs=3, report_modes=[mode], **LATER)
    of_test = result["popularity_weights"][mode]
    of_valid = result["popularity_weights_of_validation"][mode]
    assert result["memory_fit"]["used"] and of_test != of_valid
    assert f"added to scores, {of_valid:+.3f} on validation" in summary(result, Path("x.json"))
    assert result["popularity_weights"].keys() == {mode}
    unread = memory_fit.MemoryFit(torch.zeros_like(weights_in(result)), 30, 0.0, 0.0)
    monkeypatch.setattr(memory_fit, "_fitted", lambda *_: unread)
    without = toy_run(folder, "KSR", epochs=3, report_modes=[mode], **LATER)
    assert without["popularity_weights"][mode] == pytest.approx(of_valid)
    assert "popularity_weights_of_validation" not in without
    assert without["metrics"][mode]["valid"] == result["metrics"][mode]["valid"]
    assert without["metrics"][mode]["test"] != result["metrics"][mode]["test"]


def test_reasons_are_offered_only_where_the_memory_is_read(trained):
    def offered(result) -> bool:
        return any(" explain " in line for line in next_commands(result, []))

    unread = {**trained, "memory_fit": {**trained["memory_fit"], "used": False}}
    assert offered(trained) and not offered(unread)
    assert any(" export " in line for line in next_commands(unread, []))


@pytest.mark.parametrize(
    "more",
    [{}, {"ema_decay": 0.9}, {"ema_decay": 0.9, "eval_step": 0}, {"eval_args": {"mode": "full"}}],
)
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
        # None of the later epochs may be the best; they read no memory either.
        last, expected = (checkpoint.load(r["checkpoint"])["last"] for r in (each, whole))
        torch.testing.assert_close(last["state_dict"], expected["state_dict"], rtol=0, atol=0)


def test_a_run_that_was_stopped_in_the_fit_fits_when_it_is_resumed(folder, tmp_path, monkeypatch):
    values = {**LATER, "checkpoint_dir": tmp_path, "stopping_step": 1, "epochs": 30}
    whole = toy_run(folder, "KSR", **values)
    assert whole["epochs_trained"] < 30 and whole["memory_fit"]["used"]
    with monkeypatch.context() as patch:
        patch.setattr(sequence_trainer, "fit_memory", interrupt)
        with pytest.raises(KeyboardInterrupt) as stopped:
            toy_run(folder, "KSR", **values)
    path = vars(stopped.value)["checkpoint"]
    with pytest.raises(UserError, match="memory is fitted at the end; resume it first"):
        load_trained(path)
    resumed = toy_run(folder, "KSR", resume=path, **values)
    assert resumed["memory_fit"] == whole["memory_fit"]
    assert resumed["test_result"] == whole["test_result"]
    torch.testing.assert_close(weights_in(resumed), weights_in(whole))
    again = toy_run(folder, "KSR", resume=path, **values)
    assert again["test_result"] == whole["test_result"]


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_score_that_is_no_number_is_said(folder, monkeypatch):
    def scores(model, read, items):
        return torch.full(items.shape, float("nan"))

    fit = memory_fit.fit_memory

    def fitting(model, *given):
        monkeypatch.setattr(KSR, "scores", scores)
        return fit(model, *given)

    monkeypatch.setattr(sequence_trainer, "fit_memory", fitting)
    with pytest.raises(UserError, match="NaN"):
        toy_run(folder, "KSR", epochs=1, **LATER)


def test_a_cell_of_a_comparison_is_kept(folder):
    command = ["--models=KSR-exact", "--dataset=toy", "--task=next-item", "--epochs=3"]
    given = {"learning_rate": 0.05, **toy_values(folder)}
    given = {k: v for k, v in given.items() if k not in ("dataset", "epochs", "checkpoint_dir")}
    command += [f"--{key}={value}" for key, value in given.items()]
    assert benchmark(command) == 0
    [cell] = Path(given["results_dir"]).glob("benchmark/toy/cells/*.json")
    assert json.loads(cell.read_text())["result"]["memory_fit"]["used"]


def test_a_memory_that_was_never_fitted_gives_no_reasons(toy_config, toy_dataset):
    """As after a user's own loop of training; its slots are empty."""
    model = make_model(toy_config(**LATER), toy_dataset)
    with pytest.raises(UserError, match="all weights of its memory are 0"):
        explain(model, toy_dataset, "u1")


def test_an_unread_memory_gives_no_reasons(folder, monkeypatch):
    monkeypatch.setattr(SequenceTrainer, "_to_fit_on", lambda *_: None)
    result = toy_run(folder, "KSR", epochs=1, **LATER)
    model, dataset, _ = load_trained(result["checkpoint"])
    with pytest.raises(UserError, match="This model gives no reasons"):
        explain(model, dataset, result["example_user"])


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


def test_no_memory_fit_is_that_in_training(folder, tmp_path):
    values = {"learning_rate": 0.05, "checkpoint_dir": tmp_path}
    path = toy_run(folder, "KSR-exact", epochs=1, memory_fit=None, **values)["checkpoint"]
    assert load_trained(path).model.exact.gates.weight.requires_grad
    more = toy_run(folder, "KSR-exact", epochs=2, resume=path, memory_fit="training", **values)
    assert more["epochs_trained"] == 2 and "memory_fit" not in more
    with pytest.raises(UserError, match="memory_fit"):
        toy_run(folder, "KSR-exact", epochs=3, resume=path, memory_fit="validation", **values)


@pytest.mark.parametrize("key", sorted(WITHOUT_A_VALUE))
def test_no_value_and_the_one_that_it_stands_for_are_the_same_cell(key):
    keys = {
        cell_key({"model": "KSR", **given}, 2020, {})
        for given in ({}, {key: None}, {key: WITHOUT_A_VALUE[key]})
    }
    assert len(keys) == 1
    other = {"memory_fit": "validation", "time_scales": [3]}.get(key, 0.25)
    assert cell_key({"model": "KSR", key: other}, 2020, {}) not in keys


@pytest.mark.parametrize("value", ["test", True, 3])
def test_another_value_is_refused(folder, value):
    with pytest.raises(UserError, match=r"memory_fit is .*must be one of: training, validation"):
        toy_run(folder, "KSR-exact", memory_fit=value)
