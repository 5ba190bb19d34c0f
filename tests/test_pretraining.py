"""KB embeddings, BPR vectors, their cache, and vectors from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ksr_recbole.errors import UserError
from ksr_recbole.pretraining import progress
from ksr_recbole.pretraining.bpr import BPRSettings, train_bpr
from ksr_recbole.pretraining.cache import VectorCache, content_key
from ksr_recbole.pretraining.kge import METHODS, KGESettings, train_kge
from ksr_recbole.pretraining.progress import PartialTraining
from ksr_recbole.pretraining.vectors import read_vectors, write_vectors


@pytest.fixture
def triples() -> np.ndarray:
    """60 heads; relation 1 leads to one of 5 tails, relation 2 to another of 5."""
    heads = np.arange(1, 61)
    first = np.stack([heads, np.full(60, 1), 61 + heads % 5], axis=1)
    second = np.stack([heads, np.full(60, 2), 66 + heads % 5], axis=1)
    return np.concatenate([first, second]).astype(np.int64)


def settings(**changes) -> KGESettings:
    return KGESettings(**{"dim": 8, "epochs": 4, "batch_size": 40, **changes})


# KB embeddings ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_finite_vectors_of_its_size(triples, method):
    vectors = train_kge(triples, 73, 4, settings(method=method), 0, show_progress=False)
    assert vectors.entity.shape == (73, 8) and vectors.relation.shape == (4, 8)
    assert vectors.entity.dtype == vectors.relation.dtype == np.float32
    assert np.isfinite(vectors.entity).all() and np.isfinite(vectors.relation).all()
    # Padding and what no triple names
    assert not vectors.entity[[0, 71, 72]].any() and not vectors.relation[[0, 3]].any()
    assert vectors.entity[1:71].any(axis=1).all()


def test_trans_e_puts_true_tails_near(triples):
    trained = train_kge(triples, 71, 3, settings(epochs=100), 0, show_progress=False)
    expected = trained.entity[triples[:, 0]] + trained.relation[triples[:, 1]]
    distance = np.abs(expected[:, None, :] - trained.entity[None, 61:71]).sum(-1)
    true = distance[np.arange(len(triples)), triples[:, 2] - 61]
    rank = 1 + (distance < true[:, None]).sum(1)
    assert rank.mean() < 2  # of 10 values; 5.5 by chance


def test_the_same_seed_gives_the_same_kb_vectors_and_no_other_generator_moves(triples):
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first, again, other = (
        train_kge(triples, 71, 3, settings(), seed, show_progress=False) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.entity, again.entity)
    assert not np.array_equal(first.entity, other.entity)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.fixture
def interrupted(monkeypatch):
    """Make training keep its state after every epoch, and stop after the second one."""
    save = PartialTraining.save

    def save_and_stop(self, epoch, state):
        save(self, epoch, state)
        if epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(progress, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(PartialTraining, "save", save_and_stop)
    return monkeypatch.undo


def test_interrupted_kb_training_goes_on_exactly(triples, tmp_path, interrupted, caplog):
    given = {"show_progress": False, "checkpoint": tmp_path / "kge.partial"}
    with pytest.raises(KeyboardInterrupt):
        train_kge(triples, 71, 3, settings(), 0, **given)
    interrupted()
    caplog.set_level("INFO")
    resumed = train_kge(triples, 71, 3, settings(), 0, **given)
    assert "Going on after epoch 2" in caplog.text
    whole = train_kge(triples, 71, 3, settings(), 0, show_progress=False)
    np.testing.assert_array_equal(resumed.entity, whole.entity)
    np.testing.assert_array_equal(resumed.relation, whole.relation)


@pytest.mark.parametrize("how", ["damaged", "other settings"])
def test_a_useless_partial_training_is_started_anew(triples, tmp_path, interrupted, caplog, how):
    file = tmp_path / "kge.partial"
    other = settings(margin=2.0) if how == "other settings" else settings()
    with pytest.raises(KeyboardInterrupt):
        train_kge(triples, 71, 3, other, 0, show_progress=False, checkpoint=file)
    interrupted()
    if how == "damaged":
        file.write_bytes(file.read_bytes()[:500])
    resumed = train_kge(triples, 71, 3, settings(), 0, show_progress=False, checkpoint=file)
    whole = train_kge(triples, 71, 3, settings(), 0, show_progress=False)
    np.testing.assert_array_equal(resumed.entity, whole.entity)
    assert "Starting anew" in caplog.text


def test_interrupted_bpr_goes_on_exactly(tmp_path, interrupted):
    users, items = blocks()
    given = {"show_progress": False, "checkpoint": tmp_path / "bpr.partial"}
    with pytest.raises(KeyboardInterrupt):
        train_bpr(users, items, 41, 41, BPRSettings(8, 5), 0, **given)
    interrupted()
    resumed = train_bpr(users, items, 41, 41, BPRSettings(8, 5), 0, **given)
    whole = train_bpr(users, items, 41, 41, BPRSettings(8, 5), 0, show_progress=False)
    np.testing.assert_array_equal(resumed.item, whole.item)


def test_a_diverging_training_is_told(triples):
    with pytest.raises(UserError, match="kge_learning_rate"):
        train_kge(triples, 71, 3, settings(margin=float("inf")), 0, show_progress=False)


# BPR ----------------------------------------------------------------------------------------


def blocks() -> tuple[np.ndarray, np.ndarray]:
    """40 users, 40 items; users 1-20 know items 1-20 only, the others the others."""
    rng = np.random.default_rng(0)
    users, items = [], []
    for user in range(1, 41):
        base = 0 if user <= 20 else 20
        known = rng.choice(np.arange(1, 21), 10, replace=False) + base
        users += [user] * 10
        items += known.tolist()
    return np.array(users), np.array(items)


def test_bpr_puts_items_of_the_same_users_together():
    users, items = blocks()
    chosen = BPRSettings(dim=8, epochs=150)
    vectors = train_bpr(users, items, 41, 41, chosen, 0, show_progress=False)
    assert vectors.item.shape == vectors.user.shape == (41, 8)
    assert vectors.item.dtype == np.float32 and not vectors.item[0].any()
    scores = vectors.user[1:] @ vectors.item[1:].T
    inside = (scores[:20, :20].mean() + scores[20:, 20:].mean()) / 2
    outside = (scores[:20, 20:].mean() + scores[20:, :20].mean()) / 2
    assert inside > outside + 1


def test_the_same_seed_gives_the_same_item_vectors():
    users, items = blocks()
    first, again, other = (
        train_bpr(users, items, 41, 41, BPRSettings(8, 3), seed, show_progress=False).item
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


# Cache --------------------------------------------------------------------------------------

ARRAYS = {"item": np.arange(6, dtype=np.float32).reshape(3, 2)}
SHAPES = {"item": (3, 2)}
KEY = content_key({"seed": 1})


def test_the_cache_gives_back_what_it_was_given(tmp_path):
    cache = VectorCache(tmp_path / "below")
    assert cache.load("BPR", KEY, SHAPES) is None
    cache.save("BPR", KEY, ARRAYS, {"epochs": 3})
    np.testing.assert_array_equal(cache.load("BPR", KEY, SHAPES)["item"], ARRAYS["item"])
    assert [p.suffix for p in (tmp_path / "below").iterdir()] == [".safetensors"]
    assert set(load_file(cache.path("BPR", KEY))) == {"item"}  # readable by anyone, no pickle


@pytest.mark.parametrize(
    "damage", ["truncated", "flipped", "empty", "garbage", "other key", "shape"]
)
def test_a_cache_file_that_does_not_fit_is_not_used_and_told(tmp_path, caplog, damage):
    cache = VectorCache(tmp_path)
    cache.save("BPR", KEY, ARRAYS, {})
    path = cache.path("BPR", KEY)
    content = path.read_bytes()
    shapes = {"item": (4, 2)} if damage == "shape" else SHAPES
    if damage == "other key":
        other = content_key({"seed": 2})
        cache.save("BPR", other, ARRAYS, {})
        cache.path("BPR", other).replace(path)
    elif damage != "shape":
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        damaged = {
            "truncated": content[:-3],
            "flipped": flipped,
            "empty": b"",
            "garbage": b"x" * 99,
        }
        path.write_bytes(damaged[damage])
    assert cache.load("BPR", KEY, shapes) is None
    assert len(caplog.records) == 1 and str(path) in caplog.text


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    cache = VectorCache(tmp_path)
    cache.save("BPR", KEY, ARRAYS, {})

    def stop(*_given):
        raise KeyboardInterrupt

    monkeypatch.setattr("ksr_recbole.files.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        cache.save("BPR", KEY, {"item": ARRAYS["item"] + 1}, {})
    monkeypatch.undo()
    np.testing.assert_array_equal(cache.load("BPR", KEY, SHAPES)["item"], ARRAYS["item"])
    assert len(list(tmp_path.iterdir())) == 1


def test_the_key_depends_on_every_part():
    parts = {"triples": np.arange(6), "seed": 1, "settings": {"epochs": 3, "names": ["a", "b"]}}
    key = content_key(parts)
    assert key == content_key(dict(reversed(parts.items())))
    changed = [
        {**parts, "seed": 2},
        {**parts, "triples": np.arange(6)[::-1]},
        {**parts, "triples": np.arange(6).reshape(2, 3)},
        {**parts, "triples": np.arange(6, dtype=np.int32)},
        {**parts, "settings": {"epochs": 4, "names": ["a", "b"]}},
        {**parts, "settings": {"epochs": 3, "names": ["b", "a"]}},
        {**parts, "more": None},
    ]
    assert len({key, *map(content_key, changed)}) == len(changed) + 1


# Vectors from files -------------------------------------------------------------------------


def test_vectors_survive_a_file_unchanged(tmp_path):
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(4, 3)) * 10.0 ** rng.integers(-30, 30, (4, 3))).astype(np.float32)
    path = tmp_path / "toy.ent"
    write_vectors(path, "ent_id", "ent_emb", list("abcd"), vectors)
    assert path.read_text().splitlines()[0] == "ent_id:token\tent_emb:float_seq"
    np.testing.assert_array_equal(read_vectors(path, list("dab"), 3, "size"), vectors[[3, 0, 1]])


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (["id:token\tv:float_seq", "a\t1 2", "b\t1 2 3"], "line 3 has 3 numbers"),
        (["id:token\tv:float_seq", "a\t1 2", "b\t1 two"], "line 3"),
        (["id:token\tv:float_seq", "a\t1 2", "b\t1 nan"], "not finite"),
        (["id:token\tv:float_seq", "a\t1 2"], "no vector for 1 of 2"),
        (["id:token\tv:float_seq", "a\t1 2", "a\t1 2", "b\t1 2"], "second vector for a"),
        (["id:token\tv:float", "a\t1", "b\t2"], "float_seq"),
        (["id:token\tv:float_seq", "a\t1 2\t3", "b\t1 2"], "line 2"),
        ([], "line 1"),
    ],
)
def test_a_bad_vector_file_is_one_sentence(tmp_path, lines, part):
    path = Path(tmp_path / "toy.ent")
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(UserError) as error:
        read_vectors(path, ["a", "b"], 2, "kg_embedding_size")
    assert part in str(error.value) and "toy.ent" in str(error.value)
