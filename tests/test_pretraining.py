"""Pretraining: both trainers, the cache, and vectors in atomic files."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors import safe_open

from dataset_atomic.layout import Layout
from ksr_recbole import digests, seeds
from ksr_recbole.cache import ArrayCache, read_arrays, write_arrays
from ksr_recbole.compat import recbole_on_new_libraries
from ksr_recbole.config import Config
from ksr_recbole.config.shared import KGEMethod
from ksr_recbole.errors import UserError
from ksr_recbole.pretraining import bpr, kge, partial, pretrain
from ksr_recbole.pretraining.bpr import BPRSettings, train_bpr
from ksr_recbole.pretraining.kge import KGESettings, train_kge
from ksr_recbole.pretraining.pretrain import bpr_settings, kge_settings, pretrained_vectors
from ksr_recbole.pretraining.vectors import (
    VectorTable,
    read_vectors,
    tokens_in,
    write_vectors,
)
from ksr_recbole.quick_start.prepare import load_data
from tests.toy import toy_run, toy_values

ROOT = Path(__file__).resolve().parents[1]
N_ENTITIES, N_RELATIONS = 64, 4

_DEFAULTS = Config("KSR", "toy", None, {"gpu_id": ""})
KGE, BPR = kge_settings(_DEFAULTS), bpr_settings(_DEFAULTS)


def toy_kg() -> np.ndarray:
    """Heads 1..50 with relation 1 to one of 5 tails and relation 2 to one of 4.

    Entities 60.. and relation 3 do not occur.
    """
    heads = np.arange(1, 51)
    first = np.stack([heads, np.full(50, 1), 51 + heads % 5], axis=1)
    second = np.stack([heads, np.full(50, 2), 56 + heads % 4], axis=1)
    return np.concatenate([first, second])


def train_toy(settings: KGESettings, seed: int = 1, checkpoint: Path | None = None):
    return train_kge(
        toy_kg(),
        N_ENTITIES,
        N_RELATIONS,
        settings,
        seed,
        show_progress=False,
        checkpoint=checkpoint,
    )


SHORT_KGE = replace(KGE, dim=6, epochs=6, batch_size=32)


def block_interactions() -> tuple[np.ndarray, np.ndarray]:
    """Users 1..20 choose among items 1..10, users 21..40 among items 11..20."""
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(1, 41), 6)
    items = np.concatenate(
        [
            generator.choice(10, 6, replace=False) + (1 if user <= 20 else 11)
            for user in range(1, 41)
        ]
    )
    return users, items


def train_blocks(settings: BPRSettings, seed: int = 1, checkpoint: Path | None = None):
    users, items = block_interactions()
    return train_bpr(
        users, items, 42, 22, settings, seed, show_progress=False, checkpoint=checkpoint
    )


SHORT_BPR = replace(BPR, dim=8, epochs=6)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
    """Keep every epoch and press Ctrl-C after the given number of them."""
    save = partial.PartialTraining.save

    def save_then_interrupt(self, epoch, state):
        save(self, epoch, state)
        if epoch == saves:
            raise KeyboardInterrupt

    monkeypatch.setattr(partial, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(partial.PartialTraining, "save", save_then_interrupt)


# KB embeddings


@pytest.mark.parametrize("method", get_args(KGEMethod))
def test_kge_shapes_and_unused_ids(method):
    found = train_toy(replace(SHORT_KGE, method=method, epochs=2))
    assert found.entity.shape == (N_ENTITIES, 6) and found.entity.dtype == np.float32
    assert found.relation.shape == (N_RELATIONS, 6) and found.relation.dtype == np.float32
    assert np.isfinite(found.entity).all() and np.isfinite(found.relation).all()
    used = np.unique(toy_kg()[:, [0, 2]])
    assert (np.abs(found.entity).sum(1) > 0).nonzero()[0].tolist() == used.tolist()
    assert (np.abs(found.relation).sum(1) > 0).nonzero()[0].tolist() == [1, 2]


@pytest.mark.parametrize("method", get_args(KGEMethod))
def test_kge_is_deterministic(method):
    settings = replace(SHORT_KGE, method=method, epochs=2)
    first, second, other = train_toy(settings), train_toy(settings), train_toy(settings, seed=2)
    assert np.array_equal(first.entity, second.entity)
    assert np.array_equal(first.relation, second.relation)
    assert not np.array_equal(first.entity, other.entity)


@pytest.mark.parametrize("loss", ["nssa", "margin"])
@pytest.mark.parametrize(
    "changes",
    [
        {"norm": 2},
        {"negatives": 3},
        {"margin": 0.2},
        {"learning_rate": 0.003},
        {"batch_size": 16},
        {"epochs": 3},
    ],
    ids=str,
)
def test_every_setting_of_transe_reaches_its_training(changes, loss):
    settings = replace(SHORT_KGE, method="TransE", loss=loss, norm=1, epochs=2)
    plain, other = train_toy(settings), train_toy(replace(settings, **changes))
    assert not np.array_equal(plain.entity, other.entity)


@pytest.mark.parametrize(("name", "kind"), [("nssa", "NSSALoss"), ("margin", "MarginRankingLoss")])
def test_the_loss_of_transe_is_the_one_that_is_named(monkeypatch, name, kind):
    made = []
    model = kge._model

    def noted(*given):
        made.append(model(*given).loss)
        return model(*given)

    monkeypatch.setattr(kge, "_model", noted)
    train_toy(replace(SHORT_KGE, method="TransE", loss=name, margin=2.5, epochs=1))
    assert type(made[0]).__name__ == kind and made[0].margin == 2.5


@pytest.mark.parametrize("loss", ["nssa", "margin"])
def test_transe_ranks_true_tails_above_random_ones(loss):
    settings = replace(
        KGE, dim=16, epochs=60, batch_size=32, learning_rate=0.03, loss=loss, margin=4.0
    )
    found = train_toy(settings)
    triples = toy_kg()
    wanted = found.entity[triples[:, 0]] + found.relation[triples[:, 1]]
    distance = np.abs(wanted[:, None] - found.entity[None, 1:60]).sum(-1)
    true = distance[np.arange(len(triples)), triples[:, 2] - 1]
    assert (true[:, None] < distance).mean() > 0.95
    assert np.allclose(np.linalg.norm(found.entity[1:60], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("method", get_args(KGEMethod))
def test_resumed_kge_equals_uninterrupted(method, tmp_path, monkeypatch):
    settings = replace(SHORT_KGE, method=method)
    whole = train_toy(settings)
    checkpoint = tmp_path / "kg.partial"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train_toy(settings, checkpoint=checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["kg.partial"]
    monkeypatch.setattr(kge.PartialTraining, "due", lambda self: False)
    epochs_seen = []
    monkeypatch.setattr(kge, "epoch_seed", lambda seed, epoch: seen(epochs_seen, seed, epoch))
    resumed = train_toy(settings, checkpoint=checkpoint)
    assert epochs_seen[0] == 2
    assert np.array_equal(whole.entity, resumed.entity)
    assert np.array_equal(whole.relation, resumed.relation)


def seen(epochs: list[int], seed: int, epoch: int) -> int:
    epochs.append(epoch)
    return seeds.epoch_seed(seed, epoch)


def test_finished_kge_is_not_trained_again(tmp_path, monkeypatch):
    checkpoint = tmp_path / "kg.partial"
    first = train_toy(SHORT_KGE, checkpoint=checkpoint)
    from pykeen.training import SLCWATrainingLoop

    monkeypatch.delattr(SLCWATrainingLoop, "_process_batch")
    again = train_toy(SHORT_KGE, checkpoint=checkpoint)
    assert np.array_equal(first.entity, again.entity)


def test_resume_shows_progress_on_a_terminal(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("ksr_recbole.pretraining.kge.on_terminal", lambda: True)
    checkpoint = tmp_path / "kg.partial"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train_toy(SHORT_KGE, checkpoint=checkpoint)
    train_kge(toy_kg(), N_ENTITIES, N_RELATIONS, SHORT_KGE, 1, checkpoint=checkpoint)
    shown = capfd.readouterr().err
    assert "TransE" in shown and "6/6" in shown and "Warning" not in shown


def spoilt(state: dict[str, np.ndarray], spoil: str) -> dict[str, np.ndarray]:
    """A kept state as nobody keeps it, to be written with the right digest."""
    name = next(name for name in state if name.startswith("model."))
    if spoil == "no epoch":
        return {key: array for key, array in state.items() if key != "epoch"}
    if spoil == "no moment":
        return {key: array for key, array in state.items() if not key.endswith("exp_avg_sq")}
    odd = {
        "other shape": state[name][:-1],
        "other type": state[name].astype(np.float64),
        "not finite": np.full_like(state[name], np.nan),
    }
    return {**state, name: odd[spoil]} if spoil in odd else {**state, "epoch": np.array(-1)}


SPOILT = ("no epoch", "no moment", "other shape", "other type", "not finite", "epoch -1")


@pytest.mark.parametrize("spoil", ["damaged", "other seed", *SPOILT])
def test_a_partial_training_that_does_not_fit_is_not_gone_on_from(spoil, tmp_path, caplog):
    checkpoint = tmp_path / "kg.partial"
    train_toy(SHORT_KGE, seed=2 if spoil == "other seed" else 1, checkpoint=checkpoint)
    if spoil == "damaged":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    elif spoil in SPOILT:
        with safe_open(checkpoint, framework="numpy") as file:
            key = file.metadata()["key"]
        state = spoilt(read_arrays(checkpoint, key), spoil)
        write_arrays(checkpoint, key, state, {})
    with caplog.at_level(logging.WARNING):
        found = train_toy(SHORT_KGE, checkpoint=checkpoint)
    assert np.array_equal(found.entity, train_toy(SHORT_KGE).entity)
    assert len(caplog.messages) == 1
    told = f"Starting again from the beginning, since {checkpoint} cannot be used: "
    assert caplog.messages[0].startswith(told)


def test_kge_leaves_random_numbers_and_logging_alone():
    train_toy(SHORT_KGE)  # imports are done
    logging.getLogger("pykeen").setLevel(logging.INFO)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    train_toy(SHORT_KGE)
    assert states[0] == random.getstate()
    assert states[1] == np.random.get_state()[1].tolist()
    assert states[2] == torch.get_rng_state().tolist()
    assert logging.getLogger("pykeen").level == logging.INFO


def test_kge_without_triples_is_zeros():
    found = train_kge(np.zeros((0, 3), np.int64), 5, 2, SHORT_KGE, 1, show_progress=False)
    assert found.entity.shape == (5, 6) and not found.entity.any()
    assert found.relation.shape == (2, 6) and not found.relation.any()


def test_checkpoint_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        train_toy(SHORT_KGE, checkpoint=tmp_path / "file" / "kg.partial")


# BPR item embeddings


def test_bpr_ranks_items_of_the_same_block_together():
    found = train_blocks(replace(BPR, dim=16, epochs=200, learning_rate=0.05))
    assert found.item.shape == (22, 16) and found.item.dtype == np.float32
    assert found.user.shape == (42, 16) and found.user.dtype == np.float32
    scores = found.user @ found.item.T
    assert scores[1:21, 1:11].mean() > scores[1:21, 11:21].mean() + 1
    assert scores[21:41, 11:21].mean() > scores[21:41, 1:11].mean() + 1
    unit = found.item[1:21, :-1] / np.linalg.norm(found.item[1:21, :-1], axis=1, keepdims=True)
    cosine = unit @ unit.T
    within = (cosine[:10, :10].sum() + cosine[10:, 10:].sum() - 20) / 180
    assert within > cosine[:10, 10:].mean() + 0.3


def test_bpr_rows_that_do_not_occur_are_zeros():
    found = train_blocks(SHORT_BPR)
    assert np.flatnonzero(~found.item.any(1)).tolist() == [0, 21]
    assert np.flatnonzero(~found.user.any(1)).tolist() == [0, 41]
    assert (found.user[1:41, -1] == 1).all()  # times the item's bias


def test_bpr_is_deterministic():
    first, second = train_blocks(SHORT_BPR), train_blocks(SHORT_BPR)
    assert np.array_equal(first.item, second.item) and np.array_equal(first.user, second.user)
    assert not np.array_equal(first.item, train_blocks(SHORT_BPR, seed=2).item)


@pytest.mark.parametrize(
    "changes", [{"regularization": 0.5}, {"learning_rate": 0.2}, {"epochs": 7}], ids=str
)
def test_every_setting_of_bpr_reaches_its_training(changes):
    other = train_blocks(replace(SHORT_BPR, **changes))
    assert not np.array_equal(train_blocks(SHORT_BPR).item, other.item)


def test_bpr_takes_no_item_of_a_user_s_as_negative():
    """Every user has both items, so there is nothing to learn."""
    users, items = np.repeat(np.arange(1, 41), 2), np.tile([1, 2], 40)
    settings = replace(SHORT_BPR, regularization=0.0)
    found = train_bpr(users, items, 41, 3, settings, 1, show_progress=False)
    once = train_bpr(users, items, 41, 3, replace(settings, epochs=1), 1, show_progress=False)
    assert np.array_equal(found.item, once.item) and found.item[1:].any()


@pytest.mark.parametrize("kind", ["items", "entities", "relations"])
def test_runs_with_another_seed_start_from_other_vectors(toy_folder, kind):
    """Otherwise the spread over seeds would be too small."""

    def vectors(seed: int) -> np.ndarray:
        values = toy_values(toy_folder, seed=seed, kg_embedding_size=4)
        config = Config("KSR", "toy", None, values)
        dataset = load_data(config).dataset
        return getattr(pretrained_vectors(config, dataset), kind)

    assert np.array_equal(vectors(1), vectors(1))
    assert not np.array_equal(vectors(1), vectors(2))


def test_resumed_bpr_equals_uninterrupted(tmp_path, monkeypatch):
    whole = train_blocks(SHORT_BPR)
    checkpoint = tmp_path / "bpr.partial"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train_blocks(SHORT_BPR, checkpoint=checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["bpr.partial"]
    epochs_seen = []
    monkeypatch.setattr(bpr, "epoch_seed", lambda seed, epoch: seen(epochs_seen, seed, epoch))
    resumed = train_blocks(SHORT_BPR, checkpoint=checkpoint)
    assert epochs_seen == [2, 3, 4, 5]
    assert np.array_equal(whole.item, resumed.item) and np.array_equal(whole.user, resumed.user)


def test_bpr_leaves_random_numbers_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()
    train_blocks(SHORT_BPR)
    assert before == np.random.get_state()[1].tolist()


def test_bpr_of_nothing_and_of_one_column():
    nothing = np.zeros(0, np.int64)
    found = train_bpr(nothing, nothing, 3, 4, SHORT_BPR, 1, show_progress=False)
    assert found.item.shape == (4, 8) and not found.item.any()
    with pytest.raises(UserError, match="embedding_size is 1; BPR needs at least 2 columns"):
        train_blocks(replace(BPR, dim=1))


def learnt(learning_rate: float, regularization: float) -> np.ndarray | None:
    """Item vectors of a short training, ``None`` where it is refused."""
    settings = replace(SHORT_BPR, learning_rate=learning_rate, regularization=regularization)
    try:
        return train_blocks(settings).item
    except UserError as error:
        assert "BPR are not finite after epoch" in str(error)
        assert "lower bpr_learning_rate or bpr_regularization." in str(error)
        return None


def test_bpr_that_grows_out_of_bounds_names_what_to_lower():
    found = [learnt(10.0**power, rate) for power in range(-2, 36, 4) for rate in (0.0, 0.01, 1e9)]
    trained = [vectors for vectors in found if vectors is not None]
    assert 0 < len(trained) < len(found)
    assert all(np.isfinite(vectors).all() for vectors in trained)


# Keys


def parts() -> dict:
    return {
        "triples": np.arange(6).reshape(2, 3),
        "split": "next-item",
        "settings": {"dim": 50, "rate": 0.01, "norm": None},
        "seed": 1,
    }


def test_key_ignores_order_and_python_containers():
    key = digests.of_values(parts())
    assert len(key) == 64 and key == digests.of_values(dict(reversed(parts().items())))
    assert digests.of_values({"a": (1, np.int64(2))}) == digests.of_values({"a": [1, 2]})
    assert digests.of_values({"p": Path("x")}) == digests.of_values({"p": "x"})


@pytest.mark.parametrize(
    "change",
    [
        {"triples": np.arange(6).reshape(3, 2)},
        {"triples": np.arange(6, dtype=np.int32).reshape(2, 3)},
        {"triples": np.arange(6)[::-1].reshape(2, 3)},
        {"split": "next-session"},
        {"settings": {"dim": 51, "rate": 0.01, "norm": None}},
        {"settings": {"dim": 50, "rate": 0.02, "norm": None}},
        {"settings": {"dim": 50, "rate": 0.01, "norm": 1}},
        {"seed": 2},
        {"more": 0},
    ],
)
def test_every_part_changes_the_key(change):
    assert digests.of_values(parts()) != digests.of_values({**parts(), **change})


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([None, "a"], dtype=object)])
def test_what_has_no_content_cannot_be_part_of_a_key(value):
    with pytest.raises(TypeError, match="cannot be part of a cache key"):
        digests.of_values({"value": value})


# Cache

KEY, OTHER_KEY = digests.of_values({"a": 1}), digests.of_values({"a": 2})
ARRAYS = {
    "entity": np.arange(6, dtype=np.float32).reshape(3, 2) / 7,
    "relation": np.ones((2, 2), np.float32),
}
SHAPES = {"entity": (3, 2), "relation": (2, 2)}


@pytest.fixture
def cache(tmp_path) -> ArrayCache:
    found = ArrayCache(tmp_path / "new" / "folder")
    found.save("KG", KEY, ARRAYS, {"settings": {"dim": 2}, "folder": Path("x")})
    return found


def refusal(cache: ArrayCache, caplog, key: str = KEY, shapes: dict | None = None) -> str:
    """The one warning of a load that must come to nothing."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert cache.load("KG", key, shapes or SHAPES) is None
    assert len(caplog.records) == 1 and caplog.records[0].levelno == logging.WARNING
    assert "\n" not in caplog.messages[0]
    return caplog.messages[0]


def test_cache_round_trip(cache, caplog):
    found = cache.load("KG", KEY, SHAPES)
    assert found.keys() == ARRAYS.keys() and not caplog.messages
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array) and found[name].dtype == array.dtype
    assert cache.path("KG", KEY).name == f"KG-{KEY[:16]}.safetensors"
    assert [path.name for path in cache.folder.iterdir()] == [cache.path("KG", KEY).name]
    with safe_open(cache.path("KG", KEY), framework="numpy") as file:
        assert json.loads(file.metadata()["meta"])["settings"] == {"dim": 2}


def test_absent_is_silent(cache, caplog):
    assert cache.load("KG", OTHER_KEY, SHAPES) is None
    assert cache.load("BPR", KEY, SHAPES) is None
    assert not caplog.messages


@pytest.mark.parametrize("left", [0, 4, 8, 100, -1])
def test_truncated_cache(cache, caplog, left):
    path = cache.path("KG", KEY)
    path.write_bytes(path.read_bytes()[:left])
    assert refusal(cache, caplog).startswith(f"Making {path} again: it cannot be read (")


def test_any_flipped_byte_is_noticed(cache, caplog):
    path = cache.path("KG", KEY)
    content = path.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    for position in range(len(content)):
        # the padding spaces after the header's last brace carry nothing
        if position < header_end and not content[position:header_end].strip():
            continue
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(bytes(damaged))
        assert "again: it" in refusal(cache, caplog), position


def test_cache_of_another_key(cache, caplog):
    cache.path("KG", KEY).rename(cache.path("KG", OTHER_KEY))
    assert "it was made from other data, settings or seed" in refusal(cache, caplog, OTHER_KEY)


@pytest.mark.parametrize(
    "shapes", [{"entity": (3, 4), "relation": (2, 2)}, {"entity": (3, 2)}, {**SHAPES, "item": (1,)}]
)
def test_cache_of_another_shape(cache, caplog, shapes):
    assert "it holds entity 3x2, relation 2x2 instead of entity" in refusal(
        cache, caplog, shapes=shapes
    )


def test_safetensors_file_of_someone_else(cache, caplog):
    from safetensors.numpy import save_file

    save_file(ARRAYS, cache.path("KG", KEY))
    assert "its checksum does not match" in refusal(cache, caplog)


def test_folder_in_place_of_a_cache_file(cache, caplog):
    cache.path("KG", OTHER_KEY).mkdir()
    assert "it cannot be read" in refusal(cache, caplog, OTHER_KEY)


def test_interrupted_save_leaves_the_old_file(cache, monkeypatch):
    before = cache.path("KG", KEY).read_bytes()

    def write_half(self, content):
        with open(self, "wb") as file:
            file.write(content[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(KeyboardInterrupt):
        cache.save("KG", KEY, {"entity": np.zeros(3, np.float32)}, {})
    assert cache.path("KG", KEY).read_bytes() == before
    assert len(list(cache.folder.iterdir())) == 1


def test_save_removes_the_partial_file(cache):
    partial = cache.partial_path("KG", KEY)
    assert partial == cache.path("KG", KEY).with_suffix(".partial")
    partial.write_bytes(b"")
    cache.save("KG", KEY, ARRAYS, {})
    assert not partial.exists()


def test_of_runs_side_by_side_one_pretrains(tmp_path):
    begun, go_on, trained = threading.Event(), threading.Event(), []

    def train(partial: Path) -> dict[str, np.ndarray]:
        begun.set()
        assert go_on.wait(60)
        trained.append(partial)
        return {"item": np.ones((2, 3), np.float32)}

    def ask() -> tuple[np.ndarray, str]:
        notes: list[str] = []
        shapes = {"item": (2, 3)}
        config = {"pretrain_dir": str(tmp_path)}
        return pretrain._cached(config, "toy-BPR", {"seed": 1}, shapes, train, notes), notes[0]

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask)
        assert begun.wait(60)
        second = pool.submit(ask)
        with pytest.raises(TimeoutError):
            second.result(timeout=0.2)
        go_on.set()
        assert "trained in" in first.result()[1] and "from the cache" in second.result()[1]
    assert len(trained) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^Cannot write .*; choose a folder"):
        ArrayCache(tmp_path / "file").save("KG", KEY, ARRAYS, {})


# Vectors in atomic files


def test_vectors_round_trip_exactly(tmp_path):
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
    limits = [0.0, -0.0, 1e-45, np.finfo(np.float32).max, np.finfo(np.float32).tiny, 0.1, 1 / 3]
    numbers = np.concatenate([bits[np.isfinite(bits)], np.array(limits, np.float32)])
    vectors = numbers[: len(numbers) // 5 * 5].reshape(-1, 5)
    tokens = [f"dbr:Élan_({k}), 'x'" for k in range(len(vectors))]
    path = tmp_path / "new" / "kg.ent"
    write_vectors(path.parent, "kg", {"ent": VectorTable("ent_id", "ent_emb", tokens, vectors)})
    assert path.read_text(encoding="utf-8").startswith("ent_id:token\tent_emb:float_seq\n")
    order = generator.permutation(len(tokens))
    found = read_vectors(path, [tokens[k] for k in order], 5)
    assert found.dtype == np.float32 and found.tobytes() == vectors[order].tobytes()
    names = {p.name for p in path.parent.iterdir() if p.suffix != ".lock"}
    assert names == {"kg.ent", "kg.vectors.json"}


LAYOUTS = [
    Layout(separator=";", within="|"),
    Layout(separator=",", encoding="latin-1"),
    Layout(within="_", encoding="utf-16"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_are_written_and_read_in_every_layout(tmp_path, layout):
    tokens, vectors = ["dbr:Élan", "b c"], np.array([[0.1, -2e-30], [3.5, 0]], np.float32)
    tables = {"ent": VectorTable("ent_id", "ent_emb", tokens, vectors)}
    write_vectors(tmp_path, "kg", tables, layout)
    path = tmp_path / "kg.ent"
    assert read_vectors(path, tokens, 2, layout=layout).tolist() == vectors.tolist()
    assert tokens_in(path, layout) == set(tokens)
    first = path.read_bytes().decode(layout.encoding or "utf-8").splitlines()
    assert first[0] == f"ent_id:token{layout.separator}ent_emb:float_seq"
    assert first[1].partition(layout.separator)[2].split(layout.within)[0] == "0.1"
    with pytest.raises(UserError):
        read_vectors(path, tokens, 2)


def test_a_run_takes_the_vectors_that_another_exported_in_its_layout(toy_folder, caplog):
    for path in (toy_folder / "toy").iterdir():
        text = path.read_text(encoding="utf-8").replace("\t", ";")
        path.write_text(text, encoding="utf-16")
    folder = toy_folder / "vectors"
    layout = {"field_separator": ";", "seq_separator": "|", "encoding": "utf-16"}
    made = toy_run(toy_folder, pretrain_export_path=str(folder), **layout)
    given = toy_run(
        toy_folder, pretrain_path=str(folder), pretrain_dir=str(folder / "no"), **layout
    )
    assert given["metrics"] == made["metrics"]
    assert [note for note in given["pretraining"] if "read from" in note]


def test_exported_vectors_that_were_changed_are_refused(tmp_path):
    table = VectorTable("ent_id", "ent_emb", ["a", "b"], np.ones((2, 3)))
    write_vectors(tmp_path, "kg", {"ent": table, "rel": table})
    path, digests_file = tmp_path / "kg.ent", tmp_path / "kg.vectors.json"
    kept, digests_kept = path.read_text(), digests_file.read_text()
    path.write_text(kept.replace("1.0", "1.5", 1))
    with pytest.raises(UserError, match=r"kg\.ent is not the file that was exported"):
        read_vectors(path, ["a", "b"])
    path.write_text(kept)
    for damaged in (digests_kept.replace("1", "2", 1), "", "{}", "[" * 10**5):
        digests_file.write_text(damaged)
        with pytest.raises(UserError, match=r"kg\.vectors\.json, which holds .* cannot be used"):
            read_vectors(path, ["a"])
    digests_file.unlink()  # then they are vectors from elsewhere
    path.write_text(kept.replace("1.0", "1.5", 1))
    assert read_vectors(path, ["a"])[0, 0] == 1.5


def atomic_file(
    folder: Path, *lines: str, header: str = "item_id:token\tbpr_emb:float_seq"
) -> Path:
    path = folder / "given.bpr"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_columns_are_found_by_type(tmp_path):
    header = "e:float_seq\tname:token_seq\tid:token"
    path = atomic_file(tmp_path, "1 2\ta b\tx", "3 4.5e-1\tc\ty", header=header)
    assert read_vectors(path, ["y", "x"]).tolist() == [[3, np.float32(0.45)], [1, 2]]
    assert tokens_in(path) == {"x", "y"}


def test_whose_vectors_are_there_is_seen_without_reading_a_number(tmp_path):
    path = atomic_file(tmp_path, "x\t1 two", "y\t")
    assert tokens_in(path) == {"x", "y"}
    with pytest.raises(UserError, match="line 2"):
        read_vectors(path, ["x"])


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["a\t1 2"], "has no vector for 4 of 5 needed tokens, for example b, c, d; add"),
        (["a\t1 2", "b\t1 2", "a\t3 4"], "line 4 gives a second vector for a; keep one"),
        (["a\t1 2", "b\t1 2 3"], "line 3 has 3 numbers instead of 2"),
        (["a\t"], "line 2 has 0 numbers instead of at least 1"),
        (["a\t1 2", "b\t1 two"], "line 3 has 'two' where a number should be"),
        (["a\t1 nan"], "line 2 has a number that is not finite"),
        (["a\t1 1e39"], "line 2 has a number that is not finite"),
        (["a\t1 2\tx"], "line 2 has 3 columns instead of 2; separate columns by one tab"),
        (["a 1 2"], "line 2 has 1 columns instead of 2"),
        (["a\t1 2 3"], "have 3 numbers but embedding_size is 2; set --embedding_size=3 or give"),
        ([], "has no vector for 5 of 5 needed tokens, for example a, b, c"),
    ],
)
def test_sentences_about_given_vectors(tmp_path, lines, sentence):
    path = atomic_file(tmp_path, *lines)
    with pytest.raises(UserError) as caught:
        read_vectors(path, list("abcde"), 2, key="embedding_size")
    assert sentence in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header", ["a:token", "a\tb", "a:token\tb:token", "a:token\tb:float_seq\tc:float_seq", ""]
)
def test_sentence_about_the_header(tmp_path, header):
    path = atomic_file(tmp_path, "a\t1 2", header=header)
    with pytest.raises(UserError, match="line 1 must name one column of type token and one of"):
        read_vectors(path, ["a"])


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read .*none\.ent: No such file"):
        read_vectors(tmp_path / "none.ent", ["a"])
    with pytest.raises(UserError, match="Cannot read"):
        read_vectors(tmp_path, ["a"])
    (tmp_path / "latin").write_bytes("item_id:token\te:float_seq\né\t1\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_vectors(tmp_path / "latin", ["é"])
    with pytest.raises(UserError, match="Cannot write"):
        write_vectors(
            tmp_path / "latin", "x", {"ent": VectorTable("a", "b", ["a"], np.ones((1, 1)))}
        )


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "kg.ent"
    write_vectors(tmp_path, "kg", {"ent": VectorTable("a", "b", ["x"], np.ones((1, 2)))})
    before = path.read_bytes()
    there = sorted(tmp_path.iterdir())

    def tokens():
        yield "y"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_vectors(tmp_path, "kg", {"ent": VectorTable("a", "b", tokens(), np.zeros((2, 2)))})
    assert path.read_bytes() == before and sorted(tmp_path.iterdir()) == there


@pytest.mark.parametrize("model", ["KSR", "GRU4RecKG"])
def test_stock_recbole_loads_written_vectors(tmp_path, model, monkeypatch):
    """The configuration in the docstring of vectors.py, and RecBole's own models."""
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.utils import get_model

    base = tmp_path / "tiny" / "tiny"
    items, relations = [f"i{k}" for k in range(12)], ["made_by", "likes"]
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(12, 8)).astype(np.float32)
    relation_vectors = generator.normal(size=(2, 8)).astype(np.float32)
    exported = {
        "ent": VectorTable("ent_id", "ent_emb", items, vectors),
        "rel": VectorTable("rel_id", "rel_emb", relations, relation_vectors),
    }
    write_vectors(base.parent, base.name, exported)
    rows = [f"u{u}\ti{(3 * u + t) % 12}\t{t}" for u in range(8) for t in range(6)]
    tables = {
        "inter": ["user_id:token\titem_id:token\ttimestamp:float", *rows],
        "link": ["item_id:token\tentity_id:token", *(f"{i}\te{i}" for i in items)],
        "kg": ["head_id:token\trelation_id:token\ttail_id:token"]
        + [f"e{i}\t{relations[k % 2]}\tv{k % 3}" for k, i in enumerate(items)],
    }
    for suffix, lines in tables.items():
        Path(f"{base}.{suffix}").write_text("\n".join(lines) + "\n")
    settings = {
        "data_path": str(tmp_path),
        "load_col": {
            "inter": ["user_id", "item_id", "timestamp"],
            "kg": ["head_id", "relation_id", "tail_id"],
            "link": ["item_id", "entity_id"],
            "ent": ["ent_id", "ent_emb"],
            "rel": ["rel_id", "rel_emb"],
        },
        "additional_feat_suffix": ["ent", "rel"],
        "alias_of_item_id": ["ent_id"],
        "alias_of_relation_id": ["rel_id"],
        "preload_weight": {"ent_id": "ent_emb", "rel_id": "rel_emb"},
        "embedding_size": 8,
        "kg_embedding_size": 8,
        "train_neg_sample_args": None,
        "use_gpu": False,
        "save_dataset": False,
    }
    # With NumPy 2 RecBole's own Config fails; register() repairs it in the same way.
    monkeypatch.setattr(Config, "compatibility_settings", lambda _: recbole_on_new_libraries())
    config = Config(model=model, dataset="tiny", config_dict=settings)
    dataset = create_dataset(config)
    built = get_model(model)(config, dataset)
    ids = dataset.token2id("item_id", np.array(items))
    assert np.array_equal(built.entity_embedding.weight[ids].detach().numpy(), vectors)
    ids = dataset.token2id("relation_id", np.array(relations))
    loaded = dataset.get_preload_weight("rel_id")[ids]
    assert np.array_equal(loaded.astype(np.float32), relation_vectors)


def test_a_folder_without_any_of_the_vectors_is_one_sentence(toy_folder):
    folder = toy_folder / "vectors"
    folder.mkdir()
    (folder / "Toy.ent").write_text("ent_id:token\tent_emb:float_seq\n")
    with pytest.raises(UserError, match=r"has none of toy\.ent, toy\.rel, toy\.bpr"):
        toy_run(toy_folder, pretrain_path=str(folder))


def test_python_without_docstrings_is_refused_in_one_sentence(tmp_path):
    """PyKEEN reads its own docstrings when it is imported."""
    code = (
        "import numpy as np\nfrom ksr_recbole.pretraining.kge import KGESettings, train_kge\n"
        "settings = KGESettings('TransE', 8, 1, 64, 0.05, 'margin', 1.0, 4, 1)\n"
        "train_kge(np.array([[0, 0, 1]]), 2, 1, settings, seed=0, show_progress=False)"
    )
    ended = subprocess.run(
        [sys.executable, "-OO", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "UserError: Python was started with -OO" in ended.stderr.splitlines()[-1]
