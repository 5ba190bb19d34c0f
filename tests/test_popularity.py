"""Popularity added to the scores of any model, as much as validation wants."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ksr_recbole.comparison.cli import main as benchmark
from ksr_recbole.comparison.plan import key_of
from ksr_recbole.config import Config
from ksr_recbole.config.evaluation_keys import EvalMode, evaluated_modes, parse_mode
from ksr_recbole.dataset.sequences import leave_one_out
from ksr_recbole.errors import UserError
from ksr_recbole.evaluation.candidates import (
    draw_candidates,
    fewest_negatives,
    training_popularity,
)
from ksr_recbole.evaluation.popularity import (
    WithPopularity,
    fitted_weight,
    log_popularity,
    popularity_weight,
)
from ksr_recbole.quick_start import run
from ksr_recbole.quick_start.prepare import load_data, make_trainer
from tests.test_evaluation import TableScorer, random_sequences
from tests.toy import toy_run, toy_values, write_toy

MODES = ["uni5pop5", "full", "uni5pop5+popularity", "full+popularity"]


def chosen_by(
    scores: np.ndarray, logarithms: np.ndarray, weight: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Positives drawn by the softmax of ``scores + weight * logarithms``, put into column 0."""
    noise = rng.gumbel(size=scores.shape)
    first = (scores + weight * logarithms + noise).argmax(axis=1)
    rows = np.arange(len(scores))
    for values in (scores, logarithms):
        values[rows, first], values[:, 0] = values[:, 0].copy(), values[rows, first]
    return scores, logarithms


@pytest.mark.parametrize("weight", [-0.6, 0.0, 0.4])
@pytest.mark.parametrize("size", [0.01, 1.0, 300.0])
def test_the_weight_that_drew_the_positives_is_found(weight, size):
    rng = np.random.default_rng(3)
    shape = (20_000, 11)
    drawn = chosen_by(rng.normal(size=shape), rng.normal(3, 1, shape), weight, rng)
    # Scores of another size need a weight of another size.
    assert fitted_weight(drawn[0] * size, drawn[1]) == pytest.approx(weight * size, abs=0.03 * size)


def test_a_uniform_sample_stands_for_all_items():
    rng = np.random.default_rng(4)
    shape = (20_000, 200)
    logarithms = np.broadcast_to(rng.normal(3, 1, 200), shape).copy()
    scores, logarithms = chosen_by(rng.normal(size=shape), logarithms, 0.5, rng)
    negatives = 1 + rng.random((20_000, 199)).argsort(axis=1)[:, :20]
    some = np.c_[np.zeros(20_000, np.int64), negatives]
    scores, logarithms = (np.take_along_axis(v, some, axis=1) for v in (scores, logarithms))
    assert fitted_weight(scores, logarithms) == pytest.approx(0.5, abs=0.05)


def test_scores_that_say_nothing_get_no_popularity():
    rng = np.random.default_rng(5)
    scores, logarithms = rng.normal(size=(500, 6)), rng.normal(size=(500, 6))
    assert fitted_weight(np.ones_like(scores), logarithms) == 0
    scores[:, 0] = -9  # always the last
    assert fitted_weight(scores, logarithms) == 0
    scores[0, 1] = np.inf
    assert fitted_weight(scores, logarithms) == 0


def test_what_is_added_is_the_logarithm_of_training_popularity():
    sequences = random_sequences(1, n_users=40, n_items=30, longest=9)
    split = leave_one_out(sequences)
    scorer = TableScorer(np.random.default_rng(2).normal(size=(41, 30)))
    added = 0.7 * np.log(1 + training_popularity(sequences, split))
    both = WithPopularity(scorer, sequences, split, 0.7)
    users, ends = np.array([3, 9]), np.array([1, 1])
    items = torch.tensor([[4, 0, 29], [1, 2, 3]])
    wanted = scorer.score_candidates(users, ends, items) + torch.from_numpy(added)[items]
    torch.testing.assert_close(both.score_candidates(users, ends, items), wanted)
    wanted = scorer.score_all(users, ends) + torch.from_numpy(added)
    torch.testing.assert_close(both.score_all(users, ends), wanted)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
def test_popularity_is_counted_in_what_train_ratio_keeps(ratio):
    sequences = random_sequences(5, n_users=12, n_items=20, longest=9)
    whole = leave_one_out(sequences)
    split = whole.keep_latest(ratio)
    counts = np.zeros(sequences.n_items)
    for user in range(sequences.n_users):
        first = sequences.offsets[user]
        kept = slice(first + split.train_start[user], first + split.train_end[user])
        np.add.at(counts, sequences.items[kept], 1)
    assert np.array_equal(log_popularity(sequences, split), np.log1p(counts))
    assert not np.array_equal(log_popularity(sequences, split), log_popularity(sequences, whole))
    # What candidates are drawn by stays the same for every ratio.
    candidates = training_popularity(sequences, split)
    assert np.array_equal(candidates, training_popularity(sequences, whole))


def test_the_weight_is_fitted_on_validation_alone():
    sequences = random_sequences(7, n_users=60, n_items=40, longest=9)
    split = leave_one_out(sequences)
    table = np.random.default_rng(2).normal(size=(61, 40))
    candidates = draw_candidates(sequences, split, "valid", 1, 3, 3)
    table[candidates.users, candidates.positives] += 1  # the scores say something
    scorer = TableScorer(table)
    found = popularity_weight(scorer, candidates, sequences, split, 16)
    ends = split.history_end("valid")  # validation's items themselves are read by no model
    assert scorer.asked and all(end == ends[user] for user, end in scorer.asked)
    assert not np.array_equal(ends, split.history_end("test"))
    lists = np.c_[candidates.positives, candidates.negatives]
    scores = table[candidates.users[:, None], lists]
    wanted = fitted_weight(scores, log_popularity(sequences, split)[lists])
    assert found == pytest.approx(wanted, rel=1e-6) and found


def test_another_seed_draws_another_sample_of_all_items(toy_folder):
    def drawn(seed: int) -> np.ndarray:
        config = Config("GRU", "toy", None, toy_values(toy_folder, seed=seed, item_init="random"))
        data = load_data(config)
        return make_trainer(config, data.dataset)._to_fit_on(data.valid, "full").negatives

    assert np.array_equal(drawn(1), drawn(1)) and not np.array_equal(drawn(1), drawn(2))


def test_as_many_uniform_candidates_as_every_user_has_stand_for_all_items(toy_folder, monkeypatch):
    config = Config("GRU", "toy", None, toy_values(toy_folder, item_init="random"))
    data = load_data(config)
    trainer, dataset = make_trainer(config, data.dataset), data.dataset
    fewest = fewest_negatives(dataset.sequences, dataset.split, "valid")
    assert trainer._to_fit_on(data.valid, "full").negatives.shape[1] == fewest < 100
    monkeypatch.setattr("ksr_recbole.trainer.trainer.UNIFORM", 7)
    assert trainer._to_fit_on(data.valid, "full").negatives.shape[1] == 7


def test_modes_with_popularity():
    assert parse_mode("uni50pop50+popularity") == EvalMode("sampled", 50, 50, calibrated=True)
    assert parse_mode(" FULL+Popularity ") == EvalMode("full", calibrated=True)
    for bad in ("+popularity", "full+popular", "full+popularity+popularity", "full +popularity x"):
        with pytest.raises(UserError, match="is not a mode known here"):
            parse_mode(bad)


@pytest.mark.parametrize("model", ["KSR", "BPR", "FPMC", "GRU4Rec"])
@pytest.mark.parametrize("task", ["next-item", "next-session"])
def test_any_model_is_reported_with_and_without(model, task, toy_folder):
    own = {"protocol": "paper"} if model == "GRU4Rec" else {}
    given = {**own, "task": task, "session_length": 10_800} if task == "next-session" else own
    plain = toy_run(toy_folder, model, **given)
    both = toy_run(toy_folder, model, report_modes=MODES, **given)
    assert both["popularity_weights"].keys() == {"uni5pop5+popularity", "full+popularity"}
    assert "popularity_weights" not in plain
    for mode in ("uni5pop5", "full"):  # what was reported before is as it was
        assert both["metrics"][mode] == plain["metrics"][mode]
    assert both["candidates"] == plain["candidates"]
    assert both["best_valid_score"] == plain["best_valid_score"]
    changed = [both["metrics"][f"{mode}+popularity"] for mode in ("uni5pop5", "full")]
    if any(both["popularity_weights"].values()):
        assert changed != [plain["metrics"][mode] for mode in ("uni5pop5", "full")]


def test_a_mode_with_popularity_selects_no_epoch(toy_folder):
    values = toy_values(toy_folder, eval_args={"mode": "full+popularity"})
    with pytest.raises(UserError, match="name it in report_modes, and full here"):
        Config("KSR", "toy", None, values)


@pytest.mark.parametrize("left", [20, 0])
def test_a_user_with_nearly_every_item_stops_no_run(left, tmp_path, capsys):
    """The weight is fitted with as many other items as each user has."""
    folder = write_toy(tmp_path, n_items=210)
    with (folder / "toy" / "toy.inter").open("a") as file:
        for item in range(1, 211 - left):
            file.write(f"hungry\ti{item}\t{2_000_000 + item}\n")
    full = {"eval_args": {"mode": "full"}, "report_modes": ["full", "full+popularity"]}
    result = toy_run(folder, "GRU", epochs=1, **full)
    assert ("a user has every item" in capsys.readouterr().err) == (left == 0)
    assert result["metrics"].keys() == {"full", "full+popularity"}
    assert left or result["popularity_weights"]["full+popularity"] == 0


def test_a_finished_run_is_reported_with_popularity_without_training(toy_folder):
    first = toy_run(toy_folder, "KSR", epochs=1)
    values = toy_values(toy_folder, epochs=1, report_modes=MODES, resume=first["checkpoint"])
    again = run("KSR", "toy", None, values)
    assert again["epochs_trained"] == 1 and again["popularity_weights"]
    assert again["metrics"]["full"] == first["metrics"]["full"]


def test_a_mode_has_one_name_however_it_is_written(toy_folder):
    given = {"eval_args": {"mode": " FULL "}, "report_modes": ["Full", "FULL+Popularity ", "full"]}
    config = Config("GRU", "toy", None, toy_values(toy_folder, **given))
    assert evaluated_modes(config) == ["full", "full+popularity"]
    plain = {"eval_args": {"mode": "full"}, "report_modes": ["full", "full+popularity"]}
    same = Config("GRU", "toy", None, toy_values(toy_folder, **plain))
    assert key_of(config, 1) == key_of(same, 1)


def test_a_comparison_has_a_table_of_each_mode(toy_folder, tmp_path, capsys):
    values = toy_values(toy_folder, epochs=1, results_dir=str(tmp_path / "tables"))
    values["report_modes"] = ",".join(MODES)
    mode = values.pop("eval_args")["mode"]
    del values["checkpoint_dir"]
    words = [f"--{key}={value}" for key, value in values.items()]
    command = ["--dataset=toy", "--models=GRU,BPR", f"--eval_args.mode={mode}", *words]
    assert benchmark(command) == 0, capsys.readouterr().err
    text = (tmp_path / "tables" / "toy-table3.md").read_text()
    assert all(f"test, {mode}" in text for mode in MODES)
    capsys.readouterr()
    assert benchmark(command) == 0  # the finished cells are read back, weights and all
