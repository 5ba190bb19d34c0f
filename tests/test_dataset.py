"""Sequences, split, links and batches."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recbole.data.dataset import Dataset
from recbole.sampler import KGSampler
from recbole.utils import KGDataLoaderState

from ksr_recbole.dataset.dataloader import CHUNK_START, SequenceTrainLoader, data_preparation
from ksr_recbole.dataset.graph_batches import GraphSampler
from ksr_recbole.dataset.linked_dataset import LinkedDataset
from ksr_recbole.dataset.negatives import NegativeSampler
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.dataset.sequences import (
    Split,
    UserSequences,
    leave_one_out,
    leave_one_session_out,
    ragged_positions,
    sorted_distinct,
)
from ksr_recbole.errors import UserError
from ksr_recbole.evaluation.candidates import draw_candidates
from ksr_recbole.evaluation.evaluator import evaluate_full
from ksr_recbole.evaluation.scorer import ModelScorer
from ksr_recbole.model.ksr import KSR
from tests.models import random_vectors


def sequences_of(*users: list[int], n_items: int = 50) -> UserSequences:
    """Sequences of users 1, 2, ...; item by item in time order."""
    owners = np.repeat(np.arange(1, len(users) + 1), [len(u) for u in users])
    items = np.concatenate([np.asarray(u, dtype=np.int64) for u in users])
    times = np.arange(len(items), dtype=float)
    return UserSequences.from_interactions(owners, items, times, len(users) + 1, n_items)


def test_sequences_are_in_time_order_and_ties_keep_file_order():
    users = np.array([2, 1, 2, 1, 2, 2])
    items = np.array([5, 6, 7, 8, 9, 4])
    times = np.array([3.0, 2.0, 1.0, 2.0, 3.0, 3.0])
    sequences = UserSequences.from_interactions(users, items, times, 3, 10)
    assert sequences.items.tolist() == [6, 8, 7, 5, 9, 4]
    assert sequences.offsets.tolist() == [0, 0, 2, 6]
    assert sequences.order.tolist() == [1, 3, 2, 0, 4, 5]


def test_times_one_second_apart_are_told_apart():
    """As float32, as RecBole stores them, these timestamps are equal."""
    times = np.array([978300020.0, 978300019.0])
    assert np.float32(times[0]) == np.float32(times[1])
    sequences = UserSequences.from_interactions(np.ones(2, int), np.array([1, 2]), times, 2, 3)
    assert sequences.items.tolist() == [2, 1]


def test_leave_one_out_of_every_length():
    sequences = sequences_of([1], [1, 2], [1, 2, 3], [1, 2, 3, 4])
    split = leave_one_out(sequences)
    assert split.train_end.tolist() == [0, 1, 1, 1, 2]
    assert split.valid_end.tolist() == [0, 1, 1, 2, 3]


def timed(*users: list[float]) -> UserSequences:
    """Sequences of users 1, 2, ... with these timestamps, in hours."""
    owners = np.repeat(np.arange(1, len(users) + 1), [len(u) for u in users])
    times = np.concatenate([np.asarray(u, dtype=float) for u in users]) * 3600
    items = np.arange(1, len(times) + 1)
    return UserSequences.from_interactions(owners, items, times, len(users) + 1, 99)


@pytest.mark.parametrize(
    ("hours", "train_end", "valid_end"),
    [
        ([1], 1, 1),  # one session: training only
        ([1, 2, 3], 3, 3),
        ([1, 2, 25], 2, 2),  # two: the last is the test, and there is no validation
        ([1, 25, 26, 49], 1, 3),
        ([1, 2, 25, 49, 73, 74], 3, 4),
        ([23.5, 24, 24, 47.9, 48], 1, 4),  # midnight begins a new day, ties stay together
        ([0, 24, 48], 1, 2),
    ],
)
def test_the_last_session_is_the_test(hours, train_end, valid_end):
    alone = leave_one_session_out(timed(hours), 86_400)
    assert (alone.train_end.tolist(), alone.valid_end.tolist()) == ([0, train_end], [0, valid_end])
    split = leave_one_session_out(timed([1, 30], hours, [5, 50, 500]), 86_400)
    assert split.train_end.tolist() == [0, 1, train_end, 1]
    assert split.valid_end.tolist() == [0, 1, valid_end, 2]
    assert split.name == "next-session"


def test_a_day_on_which_one_user_ends_and_the_next_begins_is_a_session_of_each():
    split = leave_one_session_out(timed([1, 25], [26, 49], [50]), 86_400)
    assert split.train_end.tolist() == [0, 1, 1, 1]
    assert split.valid_end.tolist() == [0, 1, 1, 1]


def test_the_line_of_a_split_counts_users_without_padding():
    sequences = sequences_of([1], [2], [1, 2], [1, 2, 3])
    assert leave_one_out(sequences).line(sequences) == (
        "Split (next-item): 4 interactions of 4 users in training, 1 interaction of 1 user in "
        "validation, 2 interactions of 2 users in test; 2 users have too few to be tested."
    )
    sequences = sequences_of([1], [1, 2, 3])
    assert leave_one_out(sequences).line(sequences).endswith("; 1 user has too few to be tested.")


def test_a_session_can_be_of_any_length():
    split = leave_one_session_out(timed([0, 1, 2, 3, 4, 5]), 2 * 3600)
    assert (split.train_end[1], split.valid_end[1]) == (2, 4)


KEPT = {
    4: 2, 5: 2, 6: 3, 7: 3, 8: 4, 9: 4, 10: 4, 11: 5, 12: 5, 13: 6, 14: 6, 15: 6, 16: 7, 17: 7,
    18: 8, 19: 8, 20: 8, 21: 9, 22: 9,
}  # fmt: skip
"""Of so many training interactions so many are at least 40 %."""


def test_train_ratio_keeps_the_latest_training_interactions(toy_config):
    whole = KGSequenceDataset(toy_config())
    whole.build()
    part = KGSequenceDataset(toy_config(train_ratio=0.4))
    train, valid, test = part.build()
    split, lengths = part.split, part.sequences.lengths
    kept = split.train_end - split.train_start
    assert np.array_equal(split.train_end, whole.split.train_end)
    assert kept[1:].tolist() == [KEPT[n] for n in whole.split.train_end[1:].tolist()]
    assert len(train.inter_feat) == kept.sum()
    assert len(valid.inter_feat) + len(test.inter_feat) == (lengths - split.train_end).sum()
    drawn = [
        draw_candidates(d.sequences, d.split, "test", 7, 5, 5).fingerprint for d in (whole, part)
    ]
    assert drawn[0] == drawn[1]


def test_a_share_that_is_a_whole_number_is_not_rounded_up():
    assert 100 * 0.55 > 55
    split = Split(np.array([0, 100]), np.array([0, 101]), "x", np.zeros(2, int)).keep_latest(0.55)
    assert split.train_start.tolist() == [0, 45]


def test_one_interaction_stays_however_small_train_ratio_is():
    split = Split(np.array([0, 5]), np.array([0, 6]), "x", np.zeros(2, int)).keep_latest(1e-12)
    assert split.train_start.tolist() == [0, 4]


def test_nothing_left_out_by_train_ratio_is_read(toy_config):
    config = toy_config(train_ratio=0.4)
    dataset = KGSequenceDataset(config)
    train, _, _ = data_preparation(config, dataset)
    split, sequences = dataset.split, dataset.sequences
    kept = {(u, i) for i, u in zip(*split.training_interactions(sequences), strict=True)}
    allowed = {(u, sequences.items[i]) for u, i in kept}
    for batch in train:
        for row, user in enumerate(batch["user_id"].tolist()):
            items = {i for i in batch["item_id_list"][row].tolist() if i}
            assert {(user, i) for i in items} <= allowed
    users = np.arange(1, sequences.n_users)
    history = ModelScorer(None, config, sequences, split).history(users, split.train_end[1:])
    for row, user in enumerate(users):
        start = sequences.offsets[user] + split.train_start[user]
        end = sequences.offsets[user] + split.train_end[user]
        read = history["item_id_list"][row][: int(history["item_length"][row])]
        assert read.tolist() == sequences.items[start:end].tolist()


@pytest.mark.parametrize("changes", [{"train_ratio": 0}, {"train_ratio": 1.5}])
def test_train_ratio_out_of_bounds(toy_config, changes):
    with pytest.raises(UserError, match="train_ratio"):
        KGSequenceDataset(toy_config(**changes)).build()


def test_session_length_must_be_positive(toy_config):
    with pytest.raises(UserError, match="session_length is 0"):
        KGSequenceDataset(toy_config(task="next-session", session_length=0)).build()


def test_ragged_positions_with_empty_rows():
    rows, positions = ragged_positions(np.array([2, 0, 3]))
    assert rows.tolist() == [0, 0, 2, 2, 2]
    assert positions.tolist() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("numbers", [[], [3], [5, 1, 5, -2, 1, 5]])
def test_distinct_numbers_are_those_of_numpy(numbers):
    found = sorted_distinct(np.array(numbers, np.int64))
    assert found.tolist() == np.unique(numbers).tolist() and found.dtype == np.int64


def test_average_actions_are_recboles(toy_config):
    whole = KGSequenceDataset(toy_config())
    for dataset in whole.build():
        for name in ("avg_actions_of_users", "avg_actions_of_items"):
            assert getattr(dataset, name) == getattr(Dataset, name).fget(dataset)


def test_dataset_keeps_every_interaction_once_and_in_order(toy_dataset, toy_folder):
    lines = (toy_folder / "toy" / "toy.inter").read_text().splitlines()[1:]
    assert len(toy_dataset.sequences.items) == len(lines)
    tokens = [line.split("\t") for line in lines]
    user_id = toy_dataset.field2token_id["user_id"]
    item_id = toy_dataset.field2token_id["item_id"]
    for user in ("u0", "u7"):
        mine = [t for t in tokens if t[0] == user]
        mine.sort(key=lambda t: int(t[2]))  # stable, as required of ties
        begin, end = toy_dataset.sequences.offsets[user_id[user] :][:2]
        assert toy_dataset.sequences.items[begin:end].tolist() == [item_id[t[1]] for t in mine]


def test_training_items_of_all_users_are_in_the_order_of_time(toy_dataset):
    sequences = toy_dataset.sequences
    indices, _ = toy_dataset.split.training_interactions(sequences)
    by_time = sorted(indices.tolist(), key=lambda k: sequences.timestamps[k])
    assert toy_dataset.training_items().tolist() == sequences.items[by_time].tolist()
    assert by_time != indices.tolist()


def test_views_hold_the_interactions_of_their_phase(toy_config):
    dataset = KGSequenceDataset(toy_config())
    train, valid, test = dataset.build()
    n_users = dataset.user_num - 1
    assert len(valid) == len(test) == n_users
    assert len(train) + 2 * n_users == len(dataset.sequences.items)
    users, items = (test.inter_feat[f].numpy() for f in ("user_id", "item_id"))
    assert (
        items.tolist() == dataset.sequences.items[dataset.sequences.offsets[users + 1] - 1].tolist()
    )


@pytest.mark.parametrize("dataset_class", [LinkedDataset, KGSequenceDataset])
def test_two_items_of_one_entity_both_point_to_it(toy_config, toy_folder, dataset_class):
    dataset = dataset_class(toy_config())
    item_id = dataset.field2token_id["item_id"]
    shared = dataset.item_entities[[item_id["i1"], item_id["i2"]]]
    assert shared[0] == shared[1]
    assert dataset.field2id_token["entity_id"][shared[0]] == "e1"
    kg = (toy_folder / "toy" / "toy.kg").read_text().splitlines()[1:]
    entity = dataset.field2id_token["entity_id"]
    relation = dataset.field2id_token["relation_id"]
    fields = [np.asarray(dataset.kg_feat[f]) for f in ("head_id", "relation_id", "tail_id")]
    triples = {f"{entity[h]}\t{relation[r]}\t{entity[t]}" for h, r, t in zip(*fields, strict=True)}
    assert triples == set(kg)
    links = (toy_folder / "toy" / "toy.link").read_text().splitlines()[1:]
    for item, its_entity in (line.split("\t") for line in links):
        if item in item_id:
            assert entity[dataset.item_entities[item_id[item]]] == its_entity


def test_attributes_are_relations_with_items_as_heads(toy_dataset):
    names = toy_dataset.field2id_token["relation_id"][toy_dataset.attributes]
    assert sorted(names) == ["film.country", "film.director", "film.genre"]


def test_attributes_can_be_named(toy_config):
    dataset = KGSequenceDataset(toy_config(attributes=["film.director", "genre.films"]))
    names = dataset.field2id_token["relation_id"][dataset.attributes]
    assert names.tolist() == ["film.director", "genre.films"]
    with pytest.raises(UserError, match="attributes is an empty list, so the memory would have no"):
        _ = KGSequenceDataset(toy_config(attributes=[])).attributes
    dataset = KGSequenceDataset(toy_config(attributes=["film.directr"]))
    with pytest.raises(UserError, match=r"film\.directr.*did you mean film\.director"):
        _ = dataset.attributes
    with pytest.raises(UserError, match=r"names 'film\.director' twice; name it once"):
        _ = KGSequenceDataset(toy_config(attributes=["film.director"] * 2)).attributes
    for token in ("[PAD]", "[UI-Relation]"):
        with pytest.raises(UserError, match=r"which toy\.kg does not have"):
            _ = KGSequenceDataset(toy_config(attributes=[token])).attributes


def test_a_reverse_that_says_what_the_graph_says_is_no_attribute_of_its_own(toy_config):
    """The toy graph has genre.films, the other side of film.genre."""
    usual, reversed_too = (
        dataset.field2id_token["relation_id"][dataset.attributes].tolist()
        for dataset in (
            KGSequenceDataset(toy_config()), KGSequenceDataset(toy_config(kg_reverse_r=True))
        )
    )  # fmt: skip
    assert reversed_too == usual


def test_fingerprint_changes_with_the_data(toy_config, toy_folder):
    def fingerprint() -> str:
        dataset = KGSequenceDataset(toy_config())
        dataset.build()
        return dataset.fingerprint

    before = fingerprint()
    assert before == fingerprint()
    path = toy_folder / "toy" / "toy.kg"
    path.write_text(path.read_text().replace("e5\tfilm.country\tc2", "e5\tfilm.country\tc1"))
    assert fingerprint() != before


def test_another_split_than_leave_one_out_is_refused(toy_config):
    dataset = KGSequenceDataset(toy_config(eval_args={"order": "RO"}))
    with pytest.raises(UserError, match="eval_args"):
        dataset.build()


# Batches ------------------------------------------------------------------------------------


def test_chunks_of_a_user_follow_each_other(toy_config, toy_dataset):
    previous = None
    for batch in SequenceTrainLoader(toy_config(chunk_length=4), toy_dataset):
        users, start = batch["user_id"], int(batch[CHUNK_START][0])
        assert (batch[CHUNK_START] == start).all()
        if start:
            assert torch.equal(users, previous[0][: len(users)])
            assert start == previous[1] + 4
        previous = users, start


def test_batches_depend_on_seed_and_epoch_alone(toy_config, toy_dataset):
    def batches(epoch: int, **changes) -> list[torch.Tensor]:
        loader = SequenceTrainLoader(toy_config(**changes), toy_dataset)
        loader.set_epoch(epoch)
        list(loader)  # what was iterated before must not matter
        return [torch.cat([b["item_id_list"].ravel(), b["neg_item_id"].ravel()]) for b in loader]

    def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
        return len(first) == len(second) and all(map(torch.equal, first, second))

    assert same(batches(0), batches(0))
    assert not same(batches(0), batches(1))
    assert not same(batches(0), batches(0, seed=1))


def test_length_of_the_loader_is_its_number_of_batches(toy_config, toy_dataset):
    for chunk_length in (3, 100):
        loader = SequenceTrainLoader(toy_config(chunk_length=chunk_length), toy_dataset)
        assert len(loader) == len(list(loader))


def test_no_held_out_item_is_in_a_training_batch(toy_config):
    dataset = KGSequenceDataset(toy_config())
    train_data, *_ = data_preparation(toy_config(), dataset)
    sequences, split = dataset.sequences, dataset.split
    batches = list(train_data)
    assert len(batches) > 1
    for batch in batches:
        for user, start, length, items, targets in zip(
            *(
                batch[f].tolist()
                for f in ("user_id", CHUNK_START, "item_length", "item_id_list", "item_id")
            ),
            strict=True,
        ):
            begin = sequences.offsets[user] + start
            assert start + length < split.train_end[user]
            assert items[:length] == sequences.items[begin : begin + length].tolist()
            assert targets[:length] == sequences.items[begin + 1 : begin + 1 + length].tolist()
            assert not any(items[length:]) and not any(targets[length:])


# Negatives ----------------------------------------------------------------------------------


def sampler_of(sequences, distribution="uniform"):
    indices, users = leave_one_out(sequences).training_interactions(sequences)
    return NegativeSampler(users, sequences.items[indices], sequences.n_items, distribution, 1.0)


def test_negatives_are_never_items_of_the_users_training(toy_dataset):
    sequences, split = toy_dataset.sequences, toy_dataset.split
    users = np.repeat(np.arange(1, sequences.n_users), 200)
    for distribution in ("uniform", "popularity"):
        sampler = sampler_of(sequences, distribution)
        drawn = sampler.sample(users, 3, np.random.default_rng(0))
        assert drawn.shape == (len(users), 3)
        assert drawn.min() >= 1 and drawn.max() < sequences.n_items
        for user in range(1, sequences.n_users):
            begin = sequences.offsets[user]
            seen = sequences.items[begin : begin + split.train_end[user]]
            assert not np.isin(drawn[users == user], seen).any()


def test_who_has_nearly_every_item_gets_one_of_the_others():
    """Users and items of the others must not be looked through for it."""
    few, many = np.repeat(np.arange(2, 2_002), 100), np.full(2_997, 1)
    items = np.random.default_rng(1).integers(1, 3_000, len(few))
    users, items = np.concatenate([many, few]), np.concatenate([np.arange(1, 2_998), items])
    sampler = NegativeSampler(users, items, 3_000, "uniform", 1.0)
    drawn = sampler.sample(np.array([1, 2] * 300), 2, np.random.default_rng(0))
    assert set(drawn[::2].ravel().tolist()) == {2_998, 2_999}
    assert len(set(drawn[1::2].ravel().tolist())) > 500


@pytest.mark.parametrize("seed", range(20))
def test_the_last_chance_of_a_popular_negative_is_no_item_beyond_the_last(seed):
    rng = np.random.default_rng(seed)
    items = rng.integers(1, 3_001, 20_000)
    sampler = NegativeSampler(np.arange(20_000), items, 3_001, "popularity", alpha=rng.random())

    class Highest:
        def random(self, size: int) -> np.ndarray:
            return np.full(size, 1 - 2.0**-53)

    assert sampler._draw(1, Highest()).max() <= 3_000


def test_held_out_items_can_be_negatives():
    """Keeping them out would tell the model about validation and test."""
    sequences = sequences_of([1, 2, 3, 4], n_items=6)
    sampler = sampler_of(sequences)
    drawn = sampler.sample(np.ones(500, int), 1, np.random.default_rng(0))
    assert set(drawn.ravel().tolist()) == {3, 4, 5}


def test_popular_negatives_follow_training_counts():
    users = [[1, 9, 8, 8], [1, 9, 8, 8], [1, 9, 8, 8], [2, 9, 7, 7], [5, 6, 4, 4]]
    sequences = sequences_of(*users, n_items=10)
    sampler = sampler_of(sequences, "popularity")
    drawn = sampler.sample(np.full(20_000, 5), 1, np.random.default_rng(0)).ravel()
    counts = np.bincount(drawn, minlength=10) / len(drawn)
    # Training (two items a user) has 9 four times, 1 three times, 2 once; 5 and 6 are user 5's.
    np.testing.assert_allclose(counts[[9, 1, 2]], [4 / 8, 3 / 8, 1 / 8], atol=0.02)
    assert counts[[7, 8]].sum() == 0  # held out only


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_alpha_is_the_power_of_the_counts_that_negatives_follow(alpha):
    users, items = np.arange(1, 22), np.array([1] * 16 + [2] * 4 + [3])
    sampler = NegativeSampler(users, items, 5, "popularity", alpha=alpha)
    drawn = sampler.sample(np.full(40_000, 30), 1, np.random.default_rng(0)).ravel()
    shares = np.array([16.0, 4.0, 1.0]) ** alpha
    counts = np.bincount(drawn, minlength=5)[1:4] / len(drawn)
    np.testing.assert_allclose(counts, shares / shares.sum(), atol=0.01)


def test_powers_beyond_what_numbers_can_hold_leave_the_most_popular_items():
    users, items = np.arange(1, 30), np.array([1] * 5 + [2] * 12 + [3] * 12)
    sampler = NegativeSampler(users, items, 4, "popularity", alpha=1e4)
    drawn = sampler.sample(np.full(1000, 40), 1, np.random.default_rng(0)).ravel()
    assert set(drawn.tolist()) == {2, 3}


def test_a_user_with_one_item_left_gets_it():
    sequences = sequences_of([1, 2, 3, 5, 5, 5], n_items=5 + 1)
    sampler = sampler_of(sequences, "popularity")
    drawn = sampler.sample(np.ones(50, int), 2, np.random.default_rng(0))
    assert set(drawn.ravel().tolist()) == {4}


def test_a_user_who_has_seen_everything_is_refused():
    sequences = sequences_of([1, 2, 3, 1, 1], n_items=4)
    with pytest.raises(UserError, match="every item"):
        sampler_of(sequences)


def test_a_loader_refuses_such_a_user_before_training(toy_config, toy_folder):
    path = toy_folder / "toy" / "toy.inter"
    items = sorted({line.split("\t")[1] for line in path.read_text().splitlines()[1:]})
    told = "".join(f"all\t{item}\t{n}\n" for n, item in enumerate([*items, "i1", "i2"]))
    path.write_text(path.read_text() + told)
    config = toy_config()
    with pytest.raises(UserError, match="every item"):
        data_preparation(config, KGSequenceDataset(config))
    config = toy_config(loss_type="CE", train_neg_sample_args=None)
    data_preparation(config, KGSequenceDataset(config))


def test_negatives_are_looked_up_once_they_are_drawn(toy_config, toy_dataset):
    loader = SequenceTrainLoader(toy_config(), toy_dataset)
    assert "_sampler" not in vars(loader)  # a trained model that is loaded needs none
    next(iter(loader))
    assert "_sampler" in vars(loader)


# Scoring --------------------------------------------------------------------------------------


def test_item_vectors_are_computed_once_an_evaluation(toy_config, toy_dataset, monkeypatch):
    config = toy_config()
    toy_dataset.pretrained = random_vectors(config, toy_dataset)
    model, data = KSR(config, toy_dataset).eval(), (toy_dataset.sequences, toy_dataset.split)
    scorer, calls, compute = ModelScorer(model, config, *data), [], KSR.item_vectors
    monkeypatch.setattr(
        KSR, "item_vectors", lambda self, items=None: calls.append(items) or compute(self, items)
    )
    evaluate_full(scorer, *data, "test", ["MRR"], [10], batch_size=4)
    assert calls == [None]
    users, ends = np.arange(1, 5), toy_dataset.split.train_end[1:5]
    with torch.no_grad():
        expected = model.full_sort_predict(scorer.history(users, ends))
        assert torch.equal(scorer.score_all(users, ends), expected)


def test_a_model_that_predicts_in_its_own_way_is_asked(toy_config, toy_dataset):
    class Own(KSR):
        def full_sort_predict(self, interaction):
            return -super().full_sort_predict(interaction)

    config = toy_config()
    toy_dataset.pretrained = random_vectors(config, toy_dataset)
    torch.manual_seed(0)
    model = Own(config, toy_dataset).eval()
    scorer = ModelScorer(model, config, toy_dataset.sequences, toy_dataset.split)
    users, ends = np.arange(1, 5), toy_dataset.split.train_end[1:5]
    with torch.no_grad():
        expected = -KSR.full_sort_predict(model, scorer.history(users, ends))
        assert torch.equal(scorer.score_all(users, ends), expected)


# Triples --------------------------------------------------------------------------------------


def graph_of(heads: list[int], tails: list[int], n_entities: int) -> SimpleNamespace:
    return SimpleNamespace(
        head_entity_field="head_id",
        tail_entity_field="tail_id",
        head_entities=np.array(heads),
        tail_entities=np.array(tails),
        entity_num=n_entities,
    )


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
@pytest.mark.parametrize("keys", [[1, 2, 3, 1, 9], [1] * 7, [9] * 4, [2]])
@pytest.mark.parametrize("num", [1, 3])
def test_negative_triples_are_those_that_recbole_draws(distribution, keys, num):
    """Entity 1 is a head of most others and entity 9 is the head of none."""
    heads, tails = [1] * 7 + [2, 2, 3, 4], [2, 3, 4, 5, 6, 7, 1, 1, 4, 9, 8]
    graph = graph_of([*heads, 1], [*tails, 2], 10)  # one triple twice, by two relations
    drawn = []
    for kind in (KGSampler, GraphSampler):
        np.random.seed(3)
        sampler = kind(graph, distribution, 0.7)
        drawn.append([sampler.sample_by_entity_ids(keys, num) for _ in range(50)])
        drawn[-1].append(torch.from_numpy(np.random.randint(0, 1 << 30, 5)))
    assert all(map(torch.equal, *drawn))
    assert all(found.dtype == torch.int64 for found in drawn[1])


def test_a_head_of_triples_with_every_entity_is_one_sentence():
    with pytest.raises(UserError, match="head of triples with every entity"):
        GraphSampler(graph_of([1, 1, 1, 2], [1, 2, 3, 1], 4))


def test_the_triples_do_not_depend_on_workers(toy_config, toy_dataset):
    drawn = []
    for worker in (0, 2):
        loader = SequenceTrainLoader(toy_config(worker=worker, train_batch_size=16), toy_dataset)
        loader.set_mode(KGDataLoaderState.KG)
        np.random.seed(1)
        drawn.append([batch["neg_tail_id"] for batch in loader])
    assert len(drawn[0]) > 1 and all(map(torch.equal, *drawn))
