"""Candidates, ranks, metrics and the two evaluations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ksr_recbole import bars
from ksr_recbole.config.evaluation_keys import EvalMode, parse_mode
from ksr_recbole.dataset.sequences import Split, UserSequences, leave_one_out
from ksr_recbole.errors import UserError
from ksr_recbole.evaluation import candidates as candidates_module
from ksr_recbole.evaluation import evaluator
from ksr_recbole.evaluation.candidates import (
    CandidateSets,
    draw_candidates,
    fitting_counts,
    phase_targets,
    training_popularity,
)
from ksr_recbole.evaluation.evaluator import (
    evaluate_full,
    evaluate_sampled,
)
from ksr_recbole.evaluation.metrics import (
    joint_ranks,
    per_user_metrics,
    rank_of_positives,
    ranking_metrics,
)

ALL_METRICS = ["MAP", "MRR", "Hit", "NDCG", "Recall", "Precision"]


def sequences_of(*lists: list[int], n_items: int) -> UserSequences:
    """User 0 is padding; user k has the k-th list."""
    items = np.array([item for items in lists for item in items], dtype=np.int64)
    users = np.repeat(np.arange(1, len(lists) + 1), [len(items) for items in lists])
    times = np.arange(len(items), dtype=np.float64)
    return UserSequences.from_interactions(users, items, times, len(lists) + 1, n_items)


def random_sequences(seed: int, n_users: int, n_items: int, longest: int) -> UserSequences:
    """Item popularity falls with the item id, steeply; lengths differ, with repeats."""
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, n_items)
    lists = [
        list(
            rng.choice(
                np.arange(1, n_items), rng.integers(1, longest + 1), p=weights / sum(weights)
            )
        )
        for _ in range(n_users)
    ]
    return sequences_of(*lists, n_items=n_items)


def session_split(sequences: UserSequences) -> Split:
    """Several targets per user: a third of the sequence each for validation and test."""
    lengths = sequences.lengths
    third = lengths // 3
    return Split(lengths - 2 * third, lengths - third, "s", np.zeros_like(lengths))


class TableScorer:
    """Scores from a table ``[n_users, n_items]``; notes which users it was asked for."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = torch.from_numpy(table)
        self.asked: list[tuple[int, int]] = []
        self.widths: list[int] = []

    def _note(self, users: np.ndarray, history_end: np.ndarray) -> torch.Tensor:
        assert len(users) == len(history_end)
        self.asked += zip(users.tolist(), history_end.tolist(), strict=True)
        return self.table[torch.from_numpy(users)]

    def score_candidates(self, users, history_end, candidates):
        assert candidates.dtype == torch.int64
        self.widths.append(candidates.shape[1])
        return self._note(users, history_end).gather(1, candidates)

    def score_all(self, users, history_end):
        return self._note(users, history_end)


# --- memory ---------------------------------------------------------------------------------


def test_many_items_are_ranked_for_few_users_at_a_time(monkeypatch):
    sequences = random_sequences(3, n_users=30, n_items=40, longest=9)
    split = leave_one_out(sequences)
    table = TableScorer(np.random.default_rng(1).normal(size=(31, 40)))
    sizes = []
    monkeypatch.setattr(
        table, "_note", lambda u, end: sizes.append(len(u)) or TableScorer._note(table, u, end)
    )
    given = table, sequences, split, "test", ["MRR"], [5], 16
    whole = evaluate_full(*given)
    assert max(sizes) == 16
    sizes.clear()
    monkeypatch.setattr(evaluator, "SCORES_AT_ONCE", 3 * sequences.n_items)
    few = evaluate_full(*given)
    assert max(sizes) == 3
    assert (few.ranks == whole.ranks).all() and few.metrics == whole.metrics


def test_no_batch_has_more_positives_than_are_scored_at_once() -> None:
    users = np.repeat(np.arange(1, 8), [1, 3, 2, 5, 1, 3, 2])
    batches = evaluator._user_batches(users, np.arange(8), batch_size=4)
    assert all(rows.size <= 4 or len(of_users) == 1 for of_users, rows in batches)
    found = np.concatenate([rows[rows >= 0] for _, rows in batches])
    assert sorted(found) == list(range(len(users))) and max(len(u) for u, _ in batches) > 1


# --- candidates -----------------------------------------------------------------------------


def test_targets_are_each_user_s_different_held_out_items_in_time_order() -> None:
    sequences = sequences_of([1, 2, 5, 3, 5, 5], [4], [2, 1], n_items=6)
    split = Split(np.array([0, 1, 1, 1]), np.array([0, 2, 1, 1]), "s", np.zeros(4, np.int64))
    users, items = phase_targets(sequences, split, "test")
    assert users.tolist() == [1, 1, 3]
    assert items.tolist() == [5, 3, 1]
    users, items = phase_targets(sequences, split, "valid")
    assert (users.tolist(), items.tolist()) == ([1], [2])


def test_popularity_counts_training_only() -> None:
    sequences = sequences_of([1, 1, 2, 3], [2, 1, 4, 4, 3], n_items=6)
    popularity = training_popularity(sequences, leave_one_out(sequences))
    assert popularity.tolist() == [0, 3, 1, 0, 1, 0]


@pytest.mark.parametrize("phase", ["valid", "test"])
@pytest.mark.parametrize("make_split", [leave_one_out, session_split])
def test_a_row_has_100_different_items_the_user_never_had(phase, make_split) -> None:
    sequences = random_sequences(0, n_users=120, n_items=180, longest=60)
    split = make_split(sequences)
    drawn = draw_candidates(sequences, split, phase, seed=2020, n_uniform=50, n_popular=50)
    users, positives = phase_targets(sequences, split, phase)
    np.testing.assert_array_equal(drawn.users, users)
    np.testing.assert_array_equal(drawn.positives, positives)
    assert drawn.negatives.shape == (len(users), 100)
    assert drawn.negatives.dtype == np.int64
    for user, row in zip(users, drawn.negatives, strict=True):
        own = sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]]
        assert len(set(row)) == 100
        assert not set(row) & {0, *own}
        assert set(row) <= set(range(1, 180))


def test_rows_of_one_user_are_drawn_separately() -> None:
    sequences = random_sequences(0, n_users=30, n_items=400, longest=30)
    drawn = draw_candidates(
        sequences, session_split(sequences), "test", seed=1, n_uniform=50, n_popular=50
    )
    same = np.flatnonzero(np.diff(drawn.users) == 0)
    assert len(same) > 20
    assert all(set(drawn.negatives[k]) != set(drawn.negatives[k + 1]) for k in same)


def test_the_draw_depends_on_data_split_phase_and_seed_only() -> None:
    sequences = random_sequences(0, n_users=90, n_items=150, longest=40)
    split = leave_one_out(sequences)
    first = draw_candidates(sequences, split, "test", seed=7, n_uniform=50, n_popular=50)
    np.random.seed(0)
    again = draw_candidates(sequences, replace(split), "test", seed=7, n_uniform=50, n_popular=50)
    np.testing.assert_array_equal(first.negatives, again.negatives)
    assert first.fingerprint == again.fingerprint and len(first.fingerprint) == 64
    others = [
        draw_candidates(sequences, split, "test", seed=8, n_uniform=50, n_popular=50),
        draw_candidates(sequences, split, "valid", seed=7, n_uniform=50, n_popular=50),
        draw_candidates(
            sequences, replace(split, name="other"), "test", seed=7, n_uniform=50, n_popular=50
        ),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_known_draw_does_not_change_between_versions() -> None:
    """Published numbers rest on these candidates: a change must be deliberate."""
    sequences = sequences_of([1, 2, 3], [4, 3, 5, 4], [2, 3, 3, 9], n_items=12)
    drawn = draw_candidates(sequences, leave_one_out(sequences), "test", 2020, 2, 2)
    wanted = [[11, 8, 4, 5], [7, 11, 1, 2], [1, 11, 4, 8]]
    assert drawn.negatives.tolist() == wanted


def test_a_fingerprint_tells_how_the_numbers_are_divided() -> None:
    one = CandidateSets(np.array([1, 2]), np.array([3, 4]), np.array([[5], [6]]))
    other = CandidateSets(np.array([1]), np.array([2]), np.array([[3, 4, 5, 6]]))
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("proposals", [1, 3])
def test_block_sizes_do_not_show(monkeypatch, proposals) -> None:
    monkeypatch.setattr(candidates_module, "_PROPOSALS", proposals)  # 1: most rows need keys
    sequences = random_sequences(0, n_users=60, n_items=150, longest=40)
    split = session_split(sequences)
    fingerprints = set()
    for block, keys, cells in [(2048, 256, 1 << 26), (7, 3, 1 << 26), (1, 1, 1), (9, 9, 1100)]:
        monkeypatch.setattr(candidates_module, "_BLOCK_ROWS", block)
        monkeypatch.setattr(candidates_module, "_KEY_ROWS", keys)
        monkeypatch.setattr(candidates_module, "_BLOCK_CELLS", cells)
        monkeypatch.setattr(candidates_module, "_KEY_CELLS", cells // 2)
        fingerprints.add(
            draw_candidates(
                sequences, split, "test", seed=7, n_uniform=50, n_popular=50
            ).fingerprint
        )
    assert len(fingerprints) == 1


@pytest.mark.parametrize("n_items", [200, 5_000, 1 << 20, 2_000_000])
def test_the_memory_of_a_draw_does_not_grow_with_the_items(n_items, monkeypatch) -> None:
    """A draw of 20 rows marks at most 2**20 cells at once, or one row if that is more."""
    monkeypatch.setattr(candidates_module, "_BLOCK_CELLS", 1 << 20)
    sequences = replace(random_sequences(0, n_users=20, n_items=150, longest=40), n_items=n_items)
    users = np.arange(1, 21)
    blocks = list(candidates_module._blocks(sequences, users))
    assert sum(len(taken) for _, taken in blocks) == 20
    assert all(len(t) == 1 or t.size <= 1 << 20 for _, t in blocks)


def test_the_second_half_is_the_popular_one() -> None:
    sequences = random_sequences(0, n_users=200, n_items=1000, longest=60)
    split = leave_one_out(sequences)
    drawn = draw_candidates(sequences, split, "test", seed=0, n_uniform=50, n_popular=50)
    counts = training_popularity(sequences, split)[drawn.negatives]
    uniform, popular = counts[:, :50].mean(axis=1), counts[:, 50:].mean(axis=1)
    assert np.all(popular > uniform)
    assert popular.mean() > 4 * uniform.mean()


@pytest.mark.parametrize("proposals", [1, 3])
def test_draws_follow_the_weights_exactly(monkeypatch, proposals) -> None:
    """One uniform and two popular items from four left: all 24 outcomes at their probability."""
    monkeypatch.setattr(candidates_module, "_PROPOSALS", proposals)
    weights = {1: 1, 2: 3, 3: 4, 4: 8}
    teachers = [[item] * count for item, count in weights.items()]  # all training
    n = 40_000
    sequences = sequences_of(*teachers, *([[5, 5]] * n), n_items=6)  # 5: all held out
    teacher = np.arange(sequences.n_users) <= len(teachers)
    lengths = sequences.lengths
    split = Split(
        np.where(teacher, lengths, 0), np.where(teacher, lengths, 1), "s", np.zeros_like(lengths)
    )
    drawn = draw_candidates(sequences, split, "test", 3, n_uniform=1, n_popular=2)
    assert len(drawn.users) == n
    seen = Counter(map(tuple, drawn.negatives.tolist()))
    for first in weights:
        left = {item: weight for item, weight in weights.items() if item != first}
        for second in left:
            for third in left.keys() - {second}:
                total = sum(left.values())
                chance = left[second] / total * left[third] / (total - left[second]) / 4
                error = 4.5 * np.sqrt(chance * (1 - chance) / n)
                assert seen[(first, second, third)] / n == pytest.approx(chance, abs=error)


def test_items_without_training_come_last_and_fill_up() -> None:
    # user 3 may get 4, 5, ..., 9; only 4 and 5 occur in training
    sequences = sequences_of([4, 5, 9, 9], [4, 1, 1], [1, 2, 3], n_items=10)
    split = leave_one_out(sequences)
    for seed in range(20):
        drawn = draw_candidates(sequences, split, "test", seed, n_uniform=0, n_popular=4)
        row = drawn.negatives[2]
        assert set(row[:2]) == {4, 5}
        assert set(row[2:]) < {6, 7, 8, 9}


def test_all_items_left_can_be_drawn_but_not_more() -> None:
    sequences = sequences_of([1, 2, 3, 2], [1, 4, 5], n_items=9)
    split = leave_one_out(sequences)
    drawn = draw_candidates(sequences, split, "test", 0, n_uniform=3, n_popular=2)
    assert sorted(drawn.negatives[0].tolist()) == [4, 5, 6, 7, 8]
    with pytest.raises(UserError, match=r"User number 1 .* few items left: 5 of 8 .* and 6 "):
        draw_candidates(sequences, split, "test", 0, n_uniform=3, n_popular=3)


def test_a_small_catalogue_divides_what_is_left_as_it_was_asked_for() -> None:
    sequences = sequences_of([1, 2, 3], [1, 2, 4], n_items=9)
    split = leave_one_out(sequences)
    assert fitting_counts(sequences, split, "test", (6, 2)) == (4, 1)  # 5 of 8
    assert fitting_counts(sequences, split, "test", (3, 2)) == (3, 2)


def test_a_catalogue_of_twice_as_many_items_as_are_wanted_is_not_small() -> None:
    sequences = sequences_of([1, 2, 3, 4, 5], n_items=9)
    split = leave_one_out(sequences)
    with pytest.raises(
        UserError, match=r"3 of 8 are without an interaction, and 4 negatives.*=uni1pop1 "
    ):
        fitting_counts(sequences, split, "test", (2, 2))
    assert fitting_counts(sequences, split, "test", (3, 2)) == (2, 1)


def test_one_item_that_is_left_is_too_few() -> None:
    sequences = sequences_of([1, 2, 3, 4, 5], n_items=7)
    with pytest.raises(UserError, match="all but one of the 6 items"):
        fitting_counts(sequences, leave_one_out(sequences), "test", (2, 2))
    assert fitting_counts(sequences, leave_one_out(sequences), "test", (1, 0)) == (1, 0)


def test_without_targets_there_are_no_rows() -> None:
    sequences = sequences_of([1], [2], n_items=4)
    drawn = draw_candidates(
        sequences, leave_one_out(sequences), "valid", 0, n_uniform=50, n_popular=50
    )
    assert drawn.negatives.shape == (0, 100)


# --- ranks ----------------------------------------------------------------------------------


def test_ties_never_help() -> None:
    ranks = rank_of_positives(
        np.array([2.0, 0.0, 5.0, -np.inf]),
        np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [-np.inf, 0.0, 1.0]]),
    )
    assert ranks.tolist() == [3, 4, 1, 4]


def test_nan_scores_raise() -> None:
    one, three = np.zeros(1), np.zeros((1, 3))
    bad = np.array([[0.0, np.nan, 1.0]])
    users, items = np.ones(1, dtype=int), np.array([[1, 2, 3]])
    for positive, negative in [(np.array([np.nan]), three), (one, bad)]:
        with pytest.raises(UserError, match="1 of 4 scores of the model are NaN"):
            rank_of_positives(positive, negative)
        with pytest.raises(UserError, match="NaN"):
            joint_ranks(users, positive, items, negative)


def test_joint_list_by_hand() -> None:
    # user 8's list: positives 0.9, 0.5, 0.5; negatives 1 (0.7, drawn twice), 2 (0.5), 3 (0.1)
    ranks = joint_ranks(
        users=np.array([8, 3, 8, 8]),
        positive_scores=np.array([0.5, 0.0, 0.9, 0.5]),
        negatives=np.array([[1, 2], [1, 2], [3, 1], [2, 3]]),
        negative_scores=np.array([[0.7, 0.5], [0.0, -1.0], [0.1, 0.7], [0.5, 0.1]]),
    )
    # sorted: 0.9+, 0.7, 0.5 (item 2), 0.5+ (row 0), 0.5+ (row 3), 0.1
    assert ranks.tolist() == [4, 2, 1, 5]


def test_a_negative_of_several_rows_stands_where_its_highest_score_puts_it() -> None:
    scores = np.array([[0.45], [0.55]])
    found = joint_ranks(np.array([1, 1]), np.array([0.5, 0.4]), np.array([[7], [7]]), scores)
    assert found.tolist() == [2, 3]


@st.composite
def joint_lists(draw):
    rows, width = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    users = draw(st.lists(st.integers(1, 3), min_size=rows, max_size=rows))
    score = st.integers(0, 4)
    positive = draw(st.lists(score, min_size=rows, max_size=rows))
    table = draw(st.lists(score, min_size=24, max_size=24))  # 3 users, 8 items
    negatives = [draw(st.permutations(range(8)))[:width] for _ in range(rows)]
    return np.array(users), np.array(positive, float), np.array(negatives), np.array(table, float)


@given(joint_lists())
@settings(max_examples=150, deadline=None)
def test_joint_ranks_are_the_brute_force_ones(case) -> None:
    users, positive, negatives, table = case
    scores = table.reshape(3, 8)[(users - 1)[:, None], negatives]
    wanted = []
    for row, user in enumerate(users):
        joint = {item for r in np.flatnonzero(users == user) for item in negatives[r]}
        ahead = sum(table.reshape(3, 8)[user - 1, item] >= positive[row] for item in joint)
        for other in np.flatnonzero(users == user):
            ahead += positive[other] > positive[row]
            ahead += positive[other] == positive[row] and other < row
        wanted.append(1 + ahead)
    ranks = joint_ranks(users, positive, negatives, scores)
    assert ranks.tolist() == wanted
    if len(set(users)) == len(users):
        assert ranks.tolist() == rank_of_positives(positive, scores).tolist()


# --- metrics --------------------------------------------------------------------------------


def test_one_positive_each_by_hand() -> None:
    result = ranking_metrics(np.array([1, 2, 3]), np.array([1, 4, 20]), ALL_METRICS, [3, 10])
    assert result["map"] == result["mrr"] == pytest.approx((1 + 1 / 4 + 1 / 20) / 3)
    assert result["map@10"] == result["mrr@10"] == pytest.approx((1 + 1 / 4) / 3)
    assert result["mrr@3"] == pytest.approx(1 / 3)
    assert result["hit@10"] == result["recall@10"] == pytest.approx(2 / 3)
    assert result["precision@10"] == pytest.approx(2 / 30)
    assert result["ndcg@10"] == pytest.approx((1 + 1 / np.log2(5)) / 3)


def test_several_positives_by_hand() -> None:
    # user 5: hits at 2, 3 and 12; user 6: a hit at 1
    users, ranks = np.array([5, 6, 5, 5]), np.array([12, 1, 2, 3])
    unique, value = per_user_metrics(users, ranks, ALL_METRICS, [2, 10])
    assert unique.tolist() == [5, 6]
    first = {key: values[0] for key, values in value.items()}
    assert first["map"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 12) / 3)
    assert first["map@10"] == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert first["map@2"] == pytest.approx(1 / 2 / 2)
    assert first["mrr"] == first["mrr@2"] == 1 / 2
    assert first["hit@2"] == 1.0
    assert first["recall@10"] == pytest.approx(2 / 3)
    assert first["precision@10"] == pytest.approx(2 / 10)
    ideal = 1 + 1 / np.log2(3) + 1 / 2
    assert first["ndcg@10"] == pytest.approx((1 / np.log2(3) + 1 / 2) / ideal)
    assert first["ndcg@2"] == pytest.approx(1 / np.log2(3) / (1 + 1 / np.log2(3)))
    assert all(values[1] == 1.0 for key, values in value.items() if "precision" not in key)
    mean = ranking_metrics(users, ranks, ALL_METRICS, [2, 10])
    assert mean == {key: pytest.approx(values.mean()) for key, values in value.items()}


def test_metrics_at_k_are_recbole_s(monkeypatch) -> None:
    from recbole.evaluator import metrics as recbole_metrics

    monkeypatch.setattr(np, "float", float, raising=False)  # RecBole 1.2.1 still says np.float
    rng = np.random.default_rng(0)
    topk, n_users, length = [1, 3, 7], 40, 12
    lists = rng.random((n_users, length)) < 0.3
    lists[:, -1] |= ~lists.any(axis=1)
    users, places = np.nonzero(lists)
    shuffled = rng.permutation(len(users))
    ours = ranking_metrics(users[shuffled], places[shuffled] + 1, ALL_METRICS, topk)
    for name in ALL_METRICS:
        metric = getattr(recbole_metrics, name)({"topk": topk, "metric_decimal_place": 12})
        matrix = np.concatenate([lists[:, : max(topk)], lists.sum(axis=1)[:, None]], axis=1)
        theirs = metric.calculate_metric({"rec.topk": torch.from_numpy(matrix.astype(np.int64))})
        for key, value in theirs.items():
            assert ours[key] == pytest.approx(value, abs=1e-11), key


def test_names_of_metrics() -> None:
    users, ranks = np.array([1]), np.array([2])
    keys = list(ranking_metrics(users, ranks, ["mAp", "HIT"], [5, 10]))
    assert keys == ["map", "map@5", "map@10", "hit@5", "hit@10"]
    assert list(ranking_metrics(users, ranks, "NDCG", 5)) == ["ndcg@5"]
    with pytest.raises(UserError, match=r"'ndgc'.*did you mean ndcg\?.*The metrics are map, mrr"):
        ranking_metrics(users, ranks, ["NDGC"], [5])
    for topk in ([0], [2.5], [True], 0):
        with pytest.raises(UserError, match="topk"):
            ranking_metrics(users, ranks, ["hit"], topk)


def test_nobody_to_evaluate() -> None:
    with pytest.raises(UserError, match="no user to evaluate"):
        ranking_metrics(np.zeros(0, int), np.zeros(0, int), ["map", "ndcg"], [10])


# --- evaluation -----------------------------------------------------------------------------


def test_modes() -> None:
    assert parse_mode("uni50pop50") == EvalMode("sampled", 50, 50)
    assert parse_mode("uni100") == EvalMode("sampled", 100, 0)
    assert parse_mode("pop100") == EvalMode("sampled", 0, 100)
    assert parse_mode("Full") == EvalMode("full")
    for text in ("", "uni", "uni0pop50", "pop50uni50", "labeled", "uni-5", None, {"test": "full"}):
        with pytest.raises(UserError, match="uniNpopM"):
            parse_mode(text)


def brute_force_rank(scores: np.ndarray, positives: list[int], item: int, negatives: set) -> int:
    place = positives.index(item)
    rank = 1 + sum(scores[negative] >= scores[item] for negative in negatives)
    for k, other in enumerate(positives):
        rank += scores[other] > scores[item] or (scores[other] == scores[item] and k < place)
    return rank


@pytest.mark.parametrize("phase", ["valid", "test"])
@pytest.mark.parametrize("make_split", [leave_one_out, session_split])
@pytest.mark.parametrize("batch_size", [1, 6, 1000])
@pytest.mark.parametrize("sampled", [True, False])
def test_evaluations_are_the_brute_force_ones(phase, make_split, batch_size, sampled) -> None:
    sequences = random_sequences(4, n_users=25, n_items=50, longest=14)
    split = make_split(sequences)
    end = split.history_end(phase)
    table = np.random.default_rng(5).integers(0, 20, (26, 50)).astype(np.float32)  # many ties
    table[:, 0] = np.nan  # a padding item must not matter
    scorer = TableScorer(table)
    users, items = phase_targets(sequences, split, phase)
    drawn = draw_candidates(sequences, split, phase, 1, n_uniform=6, n_popular=6)
    if sampled:
        result = evaluate_sampled(scorer, drawn, split, phase, ALL_METRICS, [5], batch_size)
    else:
        result = evaluate_full(scorer, sequences, split, phase, ALL_METRICS, [5], batch_size)

    wanted = []
    for user, item in zip(users, items, strict=True):
        positives = items[users == user].tolist()
        history = sequences.items[sequences.offsets[user] :][: end[user]]
        full = set(range(1, 50)) - set(history) - set(positives)
        negatives = set(drawn.negatives[drawn.users == user].ravel()) if sampled else full
        wanted.append(brute_force_rank(table[user], positives, item, negatives))
    np.testing.assert_array_equal(result.users, users)
    assert result.ranks.tolist() == wanted
    assert result.metrics == ranking_metrics(users, np.array(wanted), ALL_METRICS, [5])
    # every user once, with the right history
    assert sorted(scorer.asked) == [(user, end[user]) for user in np.unique(users)]


def test_full_ranking_of_an_item_already_in_the_history() -> None:
    sequences = sequences_of([3, 2, 1, 2], n_items=6)
    scorer = TableScorer(np.array([[0.0] * 6, [9.0, 8.0, 3.0, 7.0, 4.0, 1.0]]))
    result = evaluate_full(scorer, sequences, leave_one_out(sequences), "test", ["MRR"], [5], 4)
    assert result.ranks.tolist() == [2]  # behind item 4; 1 and 3 are history, 0 is padding


def test_long_histories_go_first_and_batches_keep_to_their_size(capsys, monkeypatch) -> None:
    monkeypatch.setattr(bars, "on_terminal", lambda: True)
    sequences = random_sequences(4, n_users=40, n_items=50, longest=14)
    split = leave_one_out(sequences)
    scorer = TableScorer(np.zeros((41, 50)))
    drawn = draw_candidates(sequences, split, "test", 1, n_uniform=5, n_popular=5)
    evaluate_sampled(scorer, drawn, split, "test", ["MRR"], [5], 8, show_progress=True)
    ends = [end for _, end in scorer.asked]
    assert ends == sorted(ends, reverse=True)
    assert set(scorer.widths) == {11} and len(scorer.widths) == -(-len(drawn.users) // 8)
    assert "Evaluate" in capsys.readouterr().err


def test_a_constant_scorer_gets_the_worst_ranks() -> None:
    sequences = random_sequences(4, n_users=20, n_items=200, longest=14)
    split = leave_one_out(sequences)
    scorer = TableScorer(np.zeros((21, 200)))
    drawn = draw_candidates(sequences, split, "test", 1, n_uniform=50, n_popular=50)
    sampled = evaluate_sampled(scorer, drawn, split, "test", ["Hit"], [10], 8)
    full = evaluate_full(scorer, sequences, split, "test", ["Hit"], [10], 8)
    assert set(sampled.ranks) == {101}
    assert full.ranks.min() > 180
    assert sampled.metrics == full.metrics == {"hit@10": 0.0}


def test_nan_from_the_scorer_raises_in_both_evaluations() -> None:
    sequences = sequences_of([1, 2, 3], [2, 3, 1], n_items=8)
    split = leave_one_out(sequences)
    table = np.zeros((3, 8))
    table[2, 4:] = np.nan
    drawn = draw_candidates(sequences, split, "test", 1, n_uniform=4, n_popular=0)
    with pytest.raises(UserError, match="NaN"):
        evaluate_sampled(TableScorer(table), drawn, split, "test", ["Hit"], [10], 8)
    with pytest.raises(UserError, match="NaN"):
        evaluate_full(TableScorer(table), sequences, split, "test", ["Hit"], [10], 8)


def test_bad_settings_are_told_before_scoring() -> None:
    sequences = sequences_of([1, 2, 3], n_items=8)
    split = leave_one_out(sequences)
    scorer = TableScorer(np.zeros((2, 8)))
    drawn = draw_candidates(sequences, split, "test", 1, n_uniform=2, n_popular=2)
    with pytest.raises(UserError, match="metrics"):
        evaluate_sampled(scorer, drawn, split, "test", ["AUC"], [10], 8)
    with pytest.raises(UserError, match="topk"):
        evaluate_full(scorer, sequences, split, "test", ["Hit"], [-1], 8)
    assert scorer.asked == []


def test_a_scorer_of_the_wrong_shape_is_an_error() -> None:
    class Wrong(TableScorer):
        def score_candidates(self, users, history_end, candidates):
            return torch.zeros(len(users), 1)

    sequences = sequences_of([1, 2, 3], n_items=8)
    split = leave_one_out(sequences)
    drawn = CandidateSets(np.array([1]), np.array([3]), np.array([[4, 5]]))
    with pytest.raises(ValueError, match="shape"):
        evaluate_sampled(Wrong(np.zeros((2, 8))), drawn, split, "test", ["Hit"], [10], 8)
