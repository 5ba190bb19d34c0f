"""Model directories and the recommender: equal to the trained model, event by event, bad input."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import runpy
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from safetensors import safe_open

import ksr_recbole
from ksr_recbole import Recommender, digests, one_step, save_model
from ksr_recbole.__main__ import main
from ksr_recbole.config import Config
from ksr_recbole.dataset.sequence_datasets import load_dataset
from ksr_recbole.errors import DamagedFileError, UserError
from ksr_recbole.inference import directory as directory_module
from ksr_recbole.inference import recommender as recommender_module
from ksr_recbole.inference.content import _check_tokens
from ksr_recbole.inference.directory import FILES, MANIFEST
from ksr_recbole.model.sequence_recommender import SequenceState
from ksr_recbole.quick_start import run
from ksr_recbole.quick_start.prepare import make_trainer
from ksr_recbole.trainer import checkpoint
from ksr_recbole.trainer.memory_fit import fitted_later
from tests.models import CASES, random_vectors
from tests.toy import toy_values

ROOT = Path(__file__).resolve().parents[1]


class Trained:
    """A model with random weights and its checkpoint, as a run on the toy data leaves them."""

    def __init__(self, folder: Path, name: str = "KSR", **changes) -> None:
        config = Config(name, "toy", None, toy_values(folder, **changes))
        self.dataset = load_dataset(config)
        self.dataset.build()
        self.dataset.pretrained = random_vectors(config, self.dataset)
        trainer = make_trainer(config, self.dataset)
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.4)
        if fitted_later(trainer.model):
            trainer.model.exact.wake(torch.randn_like(trainer.model.exact.weights))
        trainer.best_epoch, trainer.finished = 0, True
        trainer._write(0)
        self.model, self.checkpoint = trainer.model.eval(), trainer.saved_model_file
        self.given = {"data_path": str(folder), "data_cache_dir": None}
        self.tokens = self.dataset.field2id_token["item_id"].tolist()

    def save(self, directory: Path, **changes) -> Path:
        return save_model(self.checkpoint, directory, config_dict=self.given | changes)

    def history(self, user: int, start: int = 0) -> list[str]:
        sequences = self.dataset.sequences
        items = sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]]
        return [self.tokens[item] for item in items[start:]]

    @torch.no_grad()
    def scores(self, user: int, items: list[str]) -> dict[str, float]:
        """What ``full_sort_predict`` gives for every item after ``items``."""
        ids = torch.tensor([[self.tokens.index(item) for item in items]])
        batch = {"user_id": torch.tensor([user]), "item_id_list": ids}
        batch["item_length"] = torch.tensor([len(items)])
        scores = self.model.full_sort_predict(Interaction(batch))[0]
        return dict(zip(self.tokens[1:], scores[1:].tolist(), strict=True))


@pytest.fixture(params=list(CASES))
def case(request, toy_folder) -> Trained:
    name, changes = CASES[request.param]
    return Trained(toy_folder, name, **changes)


@pytest.fixture
def trained(toy_folder) -> Trained:
    return Trained(toy_folder)


@pytest.fixture
def directory(trained, tmp_path) -> Path:
    return trained.save(tmp_path / "model")


@pytest.fixture
def rec(directory) -> Recommender:
    return Recommender.load(directory)


def everything(rec: Recommender, query, exclude_history: bool = False) -> dict[str, float]:
    return dict(rec.recommend(query, len(rec.items), exclude_history))


def same(scores: dict[str, float], expected: dict[str, float]) -> None:
    assert scores.keys() == expected.keys()
    for item, score in scores.items():
        assert score == pytest.approx(expected[item], rel=1e-4, abs=1e-5), item


# Equality -----------------------------------------------------------------------------------


def test_a_loaded_model_scores_and_continues_as_the_trained_one(case, tmp_path):
    rec = Recommender.load(case.save(tmp_path / "model"))
    users = rec.users[:4]
    batch = rec.recommend_batch(users, len(rec.items), exclude_history=False)
    for number, (token, found) in enumerate(zip(users, batch, strict=True), start=1):
        expected = case.scores(number, case.history(number))
        same(dict(found), expected)
        same(everything(rec, token), expected)
        same(everything(rec, rec.start(token)), expected)
        assert (np.diff([score for _, score in found]) <= 0).all()
    # One event at a time gives what the whole history gives, and leaves every state as it was.
    for number in (1, 2):
        history = case.history(number)
        states = [rec.start()]
        for item in history:
            states.append(rec.update(states[-1], item))
        prefixes = [history[:length] for length in range(1, len(history) + 1)]
        whole = rec.recommend_batch(prefixes, len(rec.items), exclude_history=False)
        for state, expected in zip(states[1:], whole, strict=True):
            same(everything(rec, state), dict(expected))


def test_a_mixed_batch_gives_what_each_query_gives_alone(rec, monkeypatch):
    monkeypatch.setattr(recommender_module, "USERS_AT_ONCE", 4)
    for bound in ("PAIRS", "SCORES_AT_ONCE"):
        monkeypatch.setattr(recommender_module, bound, 3 * len(rec.items))
    state = rec.update(rec.start(["i4"]), "i9")
    queries = ["u3", [], ["i1", "i1", "i7"], state, "u1", ["i8"], rec.start()]
    for query, found in zip(queries, rec.recommend_batch(queries, 7), strict=True):
        assert [item for item, _ in found] == [item for item, _ in rec.recommend(query, 7)]
        same(dict(found), dict(rec.recommend(query, 7)))
    assert rec.recommend_batch([], 7) == []


def test_states_too_large_for_one_batch_are_read_in_parts(case, tmp_path, monkeypatch):
    rec = Recommender.load(case.save(tmp_path / "model"))
    whole = rec.recommend_batch(rec.users, 5)
    monkeypatch.setattr(recommender_module, "STATE_NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr(recommender_module, "PAIRS", 1)
    assert rec._users_at_once() == 1 or not rec._blank.values.numel()
    assert rec.model.INNER_PRODUCT or rec._rows_at_once() == 1
    for found, expected in zip(rec.recommend_batch(rec.users, 5), whole, strict=True):
        assert [item for item, _ in found] == [item for item, _ in expected]
        same(dict(found), dict(expected))


def test_a_state_is_of_one_model_directory_wherever_it_is_loaded(toy_folder, directory, tmp_path):
    """Shapes alone tell nothing: another model of equal sizes has other items and other weights."""
    one, again = Recommender.load(directory), Recommender.load(directory)
    state = one.start(["i1"])
    assert again.recommend(pickle.loads(pickle.dumps(state))) == one.recommend(state)
    other = Recommender.load(Trained(toy_folder, seed=7).save(tmp_path / "other"))
    for work in (other.recommend, other.explain, lambda s: other.update(s, "i2")):
        with pytest.raises(UserError, match="state is of another model"):
            work(state)
    assert one.recommend(copy.deepcopy(state)) == one.recommend(state)


def test_an_update_reads_one_item_however_long_the_history_is(rec, monkeypatch):
    state, read = rec.start("u1"), []
    write = rec.model.write
    monkeypatch.setattr(
        rec.model, "write", lambda items, *rest: (read.append(len(items)), write(items, *rest))[1]
    )
    after = rec.update(state, "i3")
    assert read == [1]
    assert after.seen.before is state.seen
    assert {part.shape for part in after.memory} == {part.shape for part in state.memory}


def test_what_a_user_has_had_is_excluded_and_can_be_kept(rec, trained):
    history = set(trained.history(1))
    kept = everything(rec, "u0")
    left = everything(rec, "u0", exclude_history=True)
    assert set(kept) == set(rec.items)
    assert set(left) == set(rec.items) - history
    same(left, {item: kept[item] for item in left})
    best = sorted(left, key=left.get, reverse=True)
    assert [item for item, _ in rec.recommend("u0", 5)] == best[:5]
    unseen = next(item for item in rec.items if item not in history)
    after = rec.update(rec.start("u0"), unseen)
    assert set(everything(rec, after, exclude_history=True)) == set(left) - {unseen}


def test_only_what_train_ratio_left_is_read_and_all_is_excluded(toy_folder, tmp_path):
    trained = Trained(toy_folder, train_ratio=0.5)
    rec = Recommender.load(trained.save(tmp_path / "model"))
    start = int(trained.dataset.split.train_start[1])
    assert start > 0
    same(everything(rec, "u0"), trained.scores(1, trained.history(1, start)))
    assert not set(trained.history(1)) & set(everything(rec, "u0", exclude_history=True))
    with pytest.raises(UserError, match="train_ratio"):
        trained.save(tmp_path / "other", train_ratio=1.0)


def test_what_a_state_has_seen_is_in_the_order_of_time_and_counted(rec):
    state = rec.start(["i3", "i9"])
    size = state.seen.nbytes()
    for item in ("i5", "i7"):
        state = rec.update(state, item)
    tokens = [rec._item_tokens[item] for item in state.seen.all()]
    assert tokens == ["i3", "i9", "i5", "i7"]
    assert [each.id for each in rec.explain(state, 1, steps=0).history] == tokens
    assert state.seen.nbytes() >= size + 2 * 8


def test_popularity_is_that_of_each_item(rec, trained):
    sequences = trained.dataset.sequences
    counts = np.bincount(sequences.items, minlength=sequences.n_items)
    assert rec.popularity.tolist() == [counts[trained.tokens.index(item)] for item in rec.items]


@pytest.mark.parametrize("name", ["RUM_I", "RUM_F"])
def test_of_someone_new_rum_has_the_memory_alone(toy_folder, tmp_path, name):
    trained = Trained(toy_folder, name)
    rec = Recommender.load(trained.save(tmp_path / "model"))
    for nobody in ([], rec.start()):
        with pytest.raises(UserError, match=f"Query 2 has neither a user whom {name} has learned"):
            rec.recommend_batch(["u1", nobody])
    trained.model.user_embedding.weight.data[0] = 0
    expected = trained.scores(0, ["i1", "i5"])
    same(everything(rec, ["i1", "i5"]), expected)
    same(everything(rec, rec.update(rec.start(["i1"]), "i5")), expected)


def test_of_someone_new_without_an_item_nothing_arbitrary_is_recommended(case, tmp_path):
    """A start state that gives all items one score has no order, whatever the model is called."""
    rec = Recommender.load(case.save(tmp_path / "model"))
    blank = SequenceState(*(part.clone() for part in rec._blank))
    with torch.no_grad():
        scores = rec._scores(torch.zeros(1, dtype=torch.long), blank)[0, 1:]
    for nobody in ([], (), np.array([], str), rec.start()):
        if len(scores.unique()) > 1:
            assert len(rec.recommend(nobody, 60)) == 60
            continue
        assert rec.model_name in ("GRU", "GRU++-paper", "GRU_F-paper", "RUM_I", "RUM_F")
        with pytest.raises(UserError, match=r"Query 2 has neither .* all items have the same"):
            rec.recommend_batch(["u1", nobody])
        assert rec.recommend(rec.update(rec.start(), "i3"), 5)


def test_what_a_caller_does_with_vectors_changes_no_recommendation(case, tmp_path):
    rec = Recommender.load(case.save(tmp_path / "model"))
    before = rec.recommend("u1", 5)
    if rec.model.INNER_PRODUCT:
        for vectors in (rec.item_vectors()[1], rec.user_vectors(["u1"]), rec.user_vector("u1")):
            vectors[...] = 0
    state = rec.start(["i1"])
    state.seen.all()[...] = 3
    with pytest.raises(ValueError, match="read-only"):
        rec.popularity[0] = 9
    assert rec.recommend("u1", 5) == before and rec.n_seen(state) == 1
    assert rec.recommend(state, 5) == rec.recommend(["i1"], 5)


def test_an_array_of_items_is_a_history(rec):
    items = rec.items[:3]
    for dtype in (str, object):
        assert rec.recommend(np.array(items, dtype), 4) == rec.recommend(items, 4)
    rows = np.array([rec.items[:3], rec.items[3:6]])
    assert rec.recommend_batch(rows, 4) == rec.recommend_batch(rows.tolist(), 4)


# The directory ------------------------------------------------------------------------------


def test_a_run_is_saved_and_loaded_without_its_data(toy_folder, tmp_path):
    result = run("KSR", "toy", None, toy_values(toy_folder, epochs=1, gate_bias=-1.5))
    directory = save_model(result, tmp_path / "deep" / "model")
    shutil.rmtree(toy_folder)
    torch.manual_seed(5)
    drawn = torch.get_rng_state()
    rec = Recommender.load(directory)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert rec.model.options.gate_bias == -1.5 and rec.about["best_epoch"] == 0
    assert (rec.model_name, rec.about["dataset"]) == ("KSR", "toy")
    assert len(rec.recommend("u1", 4)) == 4
    assert not list(tmp_path.glob("*/.model*"))


def test_a_result_without_a_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="saved=True"):
        save_model({"checkpoint": None, "config": {}}, tmp_path / "model")


def test_nothing_is_pickled(directory, monkeypatch):
    def refuse(*_args, **_named):
        raise AssertionError("pickle")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert Recommender.load(directory).recommend("u1", 1)
    assert sorted(p.name for p in directory.iterdir()) == sorted([MANIFEST, *FILES])
    for path in directory.iterdir():
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            with safe_open(path, framework="numpy") as file:
                assert list(file.keys())


@pytest.mark.parametrize("name", FILES)
def test_an_altered_or_missing_file_is_one_sentence(directory, name):
    path = directory / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is not the file that was saved"):
        Recommender.load(directory)
    path.unlink()
    with pytest.raises(UserError, match=f"lacks the file {name}"):
        Recommender.load(directory)


def test_another_manifest_is_one_sentence(directory, tmp_path):
    path = directory / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["digest"]

    def changed(**entries):
        content = {**manifest, **entries}
        return json.dumps({**content, "digest": digests.of_values(content)})

    cases = {
        "has format 99": changed(format=99),
        "not a model's manifest": changed(kind="cake"),
        "holds no JSON object": "[]",
        "is damaged": "{",
        "it has no digest": json.dumps(manifest),
        "its digest does not match its content": json.dumps(
            {**manifest, "model": "GRU", "digest": digests.of_values(manifest)}
        ),
        "There is no model named 'KSX'": changed(model="KSX"),
        "do not fit the model GRU": changed(model="GRU"),
        "RecBole's": changed(model="BPR"),
        "and no other file": changed(sha256={**manifest["sha256"], "../evil": "x"}),
        "more than texts": changed(dataset=[["x"]]),
    }
    for word, text in cases.items():
        path.write_text(text)
        with pytest.raises(UserError, match=word):
            Recommender.load(directory)
    path.unlink()
    with pytest.raises(UserError, match="is not a model directory"):
        Recommender.load(directory)
    with pytest.raises(UserError, match="There is no model directory"):
        Recommender.load(tmp_path / "nowhere")


def test_a_model_directory_is_replaced_and_nothing_else_is(trained, directory, tmp_path):
    before = directory.stat().st_ino
    assert trained.save(directory).stat().st_ino != before
    assert Recommender.load(directory).recommend("u1", 1)
    (directory / "mine.txt").write_text("precious")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("precious")
    for place in (directory, other, other / "thesis.tex"):
        with pytest.raises(UserError, match="is not replaced"):
            trained.save(place)
    assert (other / "thesis.tex").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    assert trained.save(tmp_path / "empty")


def test_what_only_has_the_names_of_a_model_directory_is_not_replaced(
    trained, directory, tmp_path, capsys
):
    own = (directory / MANIFEST).read_text()
    place = tmp_path / "extension"
    place.mkdir()
    (place / "config.json").write_text('{"mine": 1}')
    for text in ('{"manifest_version": 3}', "[]", "{", own.replace("KSR", "GRU"), "\udcff"):
        (place / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(UserError, match=r"is damaged.*is not replaced"):
            trained.save(place)
    (place / MANIFEST).unlink()
    os.mkfifo(place / MANIFEST)  # nobody waits for it
    status, _, said = command(capsys, f"--output={place}", f"--checkpoint={trained.checkpoint}")
    assert status == 2 and "is not replaced" in said and len(said.splitlines()) == 1
    assert (place / "config.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["[PAD]"], "has no token of 'user'"),
        (["[PAD]", "u", "u"], "has the same token of 'user' twice"),
    ],
)
def test_users_without_tokens_or_with_the_same_are_told_apart(tokens, said):
    with pytest.raises(DamagedFileError, match=said):
        _check_tokens({"user": tokens, "item": ["[PAD]", "i"]}, {})


@pytest.mark.parametrize("name", ["KSR", "GRU"])
def test_what_could_not_be_loaded_again_is_not_saved(toy_folder, tmp_path, name):
    """Whatever is saved is loaded: texts have the same limits both times."""
    file, place = toy_folder / "toy" / "toy.item", tmp_path / "model"
    trained = Trained(toy_folder, name)
    for letters in (30_000, 15_000):
        rows = [f"i{k}\t{'word ' * (letters // 5)}{k}" for k in range(1, 61)]
        file.write_text("\n".join(["item_id:token\tmovie_title:token_seq", *rows]) + "\n")
        if letters == 30_000:
            with pytest.raises(UserError, match=r"is not saved: its names.json would have 1,80"):
                trained.save(place)
            assert not place.exists() and not list(tmp_path.glob(".*"))
        else:
            trained.save(place)
            assert len(Recommender.load(place).titles["i1"]) > letters - 10


def test_a_directory_that_is_replaced_while_it_is_loaded(toy_folder, tmp_path, monkeypatch):
    """Its files are opened one by one: all of them are of the old model or all of the new."""
    place = Trained(toy_folder).save(tmp_path / "model")
    gru = directory_module.read_directory(Trained(toy_folder, "GRU").save(tmp_path / "gru"))
    read, left = directory_module._read_manifest, [1]

    def replaced(folder):
        found = read(folder)
        if left[0] > 0:
            left[0] -= 1
            directory_module.write_directory(place, gru)
        return found

    monkeypatch.setattr(directory_module, "_read_manifest", replaced)
    for exchange in (True, False):
        monkeypatch.setattr(one_step, "_exchanged", one_step._exchanged if exchange else no_way)
        left[0] = 1
        assert Recommender.load(place).model_name == "GRU"
    left[0] = 99
    with pytest.raises(UserError, match=r"model was replaced each of the 5 times"):
        Recommender.load(place)


def no_way(*_) -> bool:
    """A system that cannot exchange two folders."""
    return False


def test_loading_a_model_removes_nothing_next_to_it(directory):
    """A model that was downloaded may have a step of a stranger next to it."""
    left = directory.parent / ".0123456789abcdef.ksr-tmp"
    left.mkdir()
    (left / "ksr-journal.json").write_text('{"names": [], "removed": ["other.txt"]}')
    (directory.parent / "other.txt").write_text("precious")
    assert Recommender.load(directory).recommend("u1", 1)
    assert (directory.parent / "other.txt").read_text() == "precious" and left.exists()


def test_a_full_disk_leaves_what_was_there(trained, directory, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    monkeypatch.setattr(Path, "write_bytes", full)
    for place in (directory, tmp_path / "new"):
        with pytest.raises(UserError, match="No space left on device"):
            trained.save(place)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".*"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        trained.save(tmp_path / "file" / "model")


@pytest.mark.parametrize("exchange", [True, False])
def test_an_interruption_leaves_the_old_directory_or_the_new(
    trained, directory, tmp_path, monkeypatch, exchange
):
    if not exchange:  # a system that cannot exchange two folders in one step
        monkeypatch.setattr(one_step, "_exchanged", lambda *_: False)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    replace, left, seen = os.replace, [0], set()

    def interrupted(source, target):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    for stop in range(1, 10):
        left[0] = stop
        (directory / "manifest.json").write_bytes(before["manifest.json"] + b"\n")
        try:
            trained.save(directory)
        except KeyboardInterrupt:
            found = {path.name: path.read_bytes() for path in directory.iterdir()}
            old = found.pop("manifest.json") != before["manifest.json"]
            seen.add("old" if old else "new")
            assert found.keys() | {"manifest.json"} == before.keys()
        else:
            break
        assert not list(tmp_path.glob(".*"))
    assert left[0] > 0 and seen == (set() if exchange else {"old", "new"})


# Questions that cannot be answered ----------------------------------------------------------


def test_bad_questions_are_one_sentence(rec, toy_folder, tmp_path):
    two = Trained(toy_folder, num_layers=2).save(tmp_path / "two")
    foreign = Recommender.load(two).start()
    cases = {
        "There is no user 'nobody'": lambda: rec.recommend("nobody"),
        "There is no item 'i999'": lambda: rec.recommend(["i1", "i999"]),
        "There is no item 7 .tokens are strings": lambda: rec.recommend([7]),
        r"There is no item '\[PAD\]'": lambda: rec.recommend(["[PAD]"]),
        r"There is no user '\[PAD\]'": lambda: rec.recommend("[PAD]"),
        "Cannot recommend to 7": lambda: rec.recommend(7),
        "There is no item 'i0'": lambda: rec.update(rec.start(), "i0"),
        "A str is no state": lambda: rec.update("u1", "i1"),
        "state is of another model": lambda: rec.update(foreign, "i1"),
        "device 'gpu7'": lambda: Recommender.load(two, device="gpu7"),
        "device 'meta' cannot be used .it is neither": lambda: Recommender.load(two, device="meta"),
        "device 'hpu'": lambda: Recommender.load(two, device="hpu"),
    }
    cases |= {
        "queries is None; give a list": lambda: rec.recommend_batch(None),
        "queries is 5; give a list": lambda: rec.user_vectors(5),
        "queries is UserState": lambda: rec.recommend_batch(rec.start()),
        "queries is <generator": lambda: rec.recommend_batch(q for q in ["u1"]),
        "items is <generator": lambda: rec.explain("u1", items=(i for i in ["i1", "x"])),
        "items is 5; give a list": lambda: rec.explain("u1", items=5),
        "exclude_history is 'no'": lambda: rec.recommend("u1", exclude_history="no"),
        r"There is no user '\\x1b\[31m'": lambda: rec.recommend("\x1b[31m"),
        "Cannot recommend to b''": lambda: rec.recommend(b""),
        r"Cannot recommend to range\(0, 0\)": lambda: rec.recommend(range(0)),
        "Cannot recommend to <memory": lambda: rec.recommend(memoryview(b"")),
        r"Cannot recommend to array\(5": lambda: rec.recommend(np.array(5)),
        r"Cannot recommend to array\(\[1": lambda: rec.recommend(np.array([1, 2])),
        r"Cannot recommend to array\(\[b": lambda: rec.recommend(np.array([b"i1"])),
        r"Cannot recommend to array\(\[\[": lambda: rec.recommend(np.array([["i1"], ["i2"]])),
        "There is no item None": lambda: rec.recommend(np.array(["i1", None])),
        r"queries is array\('u1'": lambda: rec.recommend_batch(np.array("u1")),
        "queries is range": lambda: rec.recommend_batch(range(0)),
        "items is range": lambda: rec.explain("u1", items=range(0)),
        "k is -5": lambda: rec.explain("u1", k=-5, items=["i1"]),
        "titles is 'yes'": lambda: rec.recommend("u1", titles="yes"),
        "The file of vectors is 123": lambda: rec.export_vectors(123),
        "The file of vectors is None": lambda: rec.export_vectors(None),
        "The file of vectors is b'x.npz'": lambda: rec.export_vectors(b"x.npz"),
        "The file of vectors is .*; give its path": lambda: rec.export_vectors("a\0.npz"),
        "The model directory is 1;": lambda: save_model("x.pth", 1),
        "The model directory is x\0": lambda: save_model("x.pth", "x\0"),
        "The checkpoint is None": lambda: save_model(None, tmp_path / "new"),
        "The checkpoint is 1;": lambda: save_model(1, tmp_path / "new"),
        "The model directory is None": lambda: Recommender.load(None),
        "The model directory is b'x'": lambda: Recommender.load(b"x"),
        "The model directory is ": lambda: Recommender.load("a\0b"),
    }
    cases |= {f"k is {k}": lambda k=k: rec.recommend("u1", k) for k in (0, -1, 2.5, True)}
    for sentence, question in cases.items():
        with pytest.raises(UserError, match=sentence):
            question()


# Vectors ------------------------------------------------------------------------------------


def test_scores_are_inner_products_of_the_vectors(rec):
    tokens, items = rec.item_vectors()
    assert tokens == rec.items and items.dtype == np.float32
    for query in ("u2", ["i3", "i4"], rec.update(rec.start(), "i5")):
        user = rec.user_vector(query)
        assert user.dtype == np.float32 and user.shape == (items.shape[1],)
        same(everything(rec, query), dict(zip(tokens, (items @ user).tolist(), strict=True)))
    assert rec.user_vectors([]).shape == (0, items.shape[1])


def test_exported_vectors_are_those_of_items_and_users(rec, tmp_path):
    rec.export_vectors(tmp_path / "v.npz")
    rec.export_vectors(tmp_path / "v.safetensors")
    with np.load(tmp_path / "v.npz", allow_pickle=False) as file:
        npz = {name: file[name] for name in file.files}
    with safe_open(tmp_path / "v.safetensors", framework="numpy") as file:
        tokens = {name: json.loads(text) for name, text in file.metadata().items()}
        safe = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert npz["items"].tolist() == tokens["items"] == rec.items
    assert npz["users"].tolist() == tokens["users"] == rec.users
    for name in ("item_vectors", "user_vectors"):
        np.testing.assert_array_equal(npz[name], safe[name])
    np.testing.assert_allclose(npz["user_vectors"][4], rec.user_vector(rec.users[4]), rtol=1e-5)
    np.testing.assert_array_equal(npz["item_vectors"], rec.item_vectors()[1])
    with pytest.raises(UserError, match=r"v\.csv ends in neither"):
        rec.export_vectors(tmp_path / "v.csv")


@pytest.mark.parametrize("name", ["RUM_I", "RUM_F"])
def test_rum_has_no_vectors_and_says_why(toy_folder, tmp_path, name):
    rec = Recommender.load(Trained(toy_folder, name).save(tmp_path / "model"))
    export = partial(rec.export_vectors, "v.npz")
    for ask in (rec.item_vectors, partial(rec.user_vector, "u1"), export):
        with pytest.raises(UserError, match=f"{name} has no item and user vectors"):
            ask()


# The command --------------------------------------------------------------------------------


# Reasons and titles ----------------------------------------------------------------------------


def test_a_user_a_list_and_a_state_are_explained_alike_and_as_from_the_dataset(trained, rec):
    told = rec.explain("u2", 5, steps=3)
    wanted = ksr_recbole.explain(trained.model, trained.dataset, "u2", steps=3, recommendations=5)
    assert (told.user, told.attributes, told.history) == ("u2", wanted.attributes, wanted.history)
    state = rec.start(trained.history(trained.dataset.field2token_id["user_id"]["u2"])[:-1])
    state = rec.update(state, wanted.history[-1].id)
    items = [item.id for item in wanted.history]
    for other in (wanted, rec.explain(items, 5, steps=3), rec.explain(state, 5, steps=3)):
        assert [s.number for s in other.steps] == [s.number for s in told.steps]
        for one, two in zip(told.recommendations, other.recommendations, strict=True):
            assert (one.item, one.score) == (two.item, pytest.approx(two.score, rel=1e-4))
            assert {r.phrase for r in one.reasons} == {r.phrase for r in two.reasons}
    assert rec.explain(state, steps=0).steps == () and rec.explain([], 2).history == ()
    (one,) = rec.explain("u2", items=["i9"]).recommendations
    everything = dict(rec.recommend("u2", len(rec.items), exclude_history=False))
    assert one.item.id == "i9" and one.score == pytest.approx(everything["i9"], rel=1e-4)


def test_what_train_ratio_left_out_is_no_history_of_an_explanation(toy_folder, tmp_path):
    trained = Trained(toy_folder, train_ratio=0.5)
    rec = Recommender.load(trained.save(tmp_path / "model"))
    start = int(trained.dataset.split.train_start[1])
    told = rec.explain("u0", 3, steps=2)
    assert start > 0 and [item.id for item in told.history] == trained.history(1, start)
    wanted = ksr_recbole.explain(trained.model, trained.dataset, "u0", steps=2, recommendations=3)
    assert told.history == wanted.history and told.n_interactions == wanted.n_interactions


@pytest.mark.parametrize("exclude_history", [True, False])
@pytest.mark.parametrize("query", [[], ["i3", "i9"]], ids=str)
def test_an_item_that_is_asked_for_has_its_rank(rec, query, exclude_history):
    scores, had = everything(rec, query), query if exclude_history else []
    asked = ["i9", "i40", max(scores, key=scores.get), min(scores, key=scores.get), "i9"]
    told = rec.explain(query, items=asked, exclude_history=exclude_history, steps=0)
    for item, each in zip(asked, told.recommendations, strict=True):
        rivals = [other for other in scores if other not in (item, *had)]
        assert each.item.id == item
        assert each.rank == 1 + sum(scores[other] >= scores[item] for other in rivals)
        told_of = [c.item.id for r in (*each.reasons, *each.common, *each.shared) for c in r.chosen]
        assert item not in told_of
        assert (each.sentence == f"It has rank {each.rank} for somebody new.") == (not query)
    best = rec.explain(query, 3, exclude_history, steps=0).recommendations
    assert [each.rank for each in best] == [1, 2, 3]
    assert all(("model recommends to somebody new" in e.sentence) == (not query) for e in best)


def test_equal_scores_count_against_an_item_that_is_asked_for(rec):
    rec.__dict__["_vectors"] = torch.zeros_like(rec._vectors)
    (one,) = rec.explain(["i3"], items=["i9"], steps=0).recommendations
    assert one.rank == len(rec.items) - 1


def test_titles_come_with_the_directory(trained, toy_folder, tmp_path):
    rows = [f"i{k}\t{'Alien' if k == 1 else ''}" for k in range(1, 61)]
    lines = ["item_id:token\tmovie_title:token_seq", *rows]
    (toy_folder / "toy" / "toy.item").write_text("\n".join(lines) + "\n")
    rec = Recommender.load(trained.save(tmp_path / "model"))
    assert rec.titles["i1"] == "Alien" and rec.titles["i3"] == "i3"
    pairs = rec.recommend("u1", 3)
    assert rec.recommend("u1", 3, titles=True) == [(rec.titles[i], score) for i, score in pairs]


def test_what_cannot_be_explained_is_one_sentence(rec, toy_folder, tmp_path):
    gru = Recommender.load(Trained(toy_folder, "GRU").save(tmp_path / "gru"))
    with pytest.raises(UserError, match="GRU has no memory of attributes"):
        gru.explain("u1")
    for options, said in (
        ({"steps": -1}, "steps is -1; it must be a whole number from 0 up"),
        ({"top": 0}, "top is 0"),
        ({"k": 0}, "k is 0"),
        ({"items": ["i999"]}, "There is no item 'i999'"),
    ):
        with pytest.raises(UserError, match=said):
            rec.explain("u1", **options)


def command(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(["export", *arguments])
    said = capsys.readouterr()
    return status, said.out.strip(), said.err.strip()


def test_what_export_does_not_read_is_said_to_have_no_effect(trained, toy_folder, capsys, caplog):
    given = [f"--data_path={toy_folder}", f"--checkpoint_dir={toy_folder / 'saved'}", "--epochs=9"]
    wanted = "Config key {} has no effect on a KSR that is trained already."
    found = ["--dataset=toy"], [f"--checkpoint={trained.checkpoint}"]
    for which, idle in zip(found, (["epochs"], ["checkpoint_dir", "epochs"]), strict=True):
        caplog.clear()
        status, _, _ = command(capsys, "--output=model", *given, *which, "--gpu_id=0")
        assert status == 0
        said = [record.getMessage() for record in caplog.records]
        assert said == [wanted.format(key) for key in [*idle, "gpu_id"]]


def test_the_command_exports_the_newest_or_a_named_checkpoint(trained, toy_folder, capsys):
    saved = str(toy_folder / "saved")
    data = f"--data_path={toy_folder}"
    newest = ["--dataset=toy", f"--checkpoint_dir={saved}"]
    for number, which in enumerate([newest, [f"--checkpoint={trained.checkpoint}"]]):
        status, said, error = command(capsys, f"--output=model{number}", data, *which)
        assert status == 0 and "error:" not in error
        assert said == (
            f"model{number}: KSR on toy, best epoch 0 (counted from 0), 60 items, 30 users, "
            f"from {trained.checkpoint}"
        )
        assert len(Recommender.load(f"model{number}").recommend("u1", 3)) == 3


def test_bad_commands_are_one_sentence(trained, toy_folder, tmp_path, capsys):
    here = [f"--checkpoint={trained.checkpoint}", f"--data_path={toy_folder}"]
    out = "--output=model"
    (tmp_path / "no.pth").write_bytes(b"no")
    other = tmp_path / "other"
    shutil.copytree(toy_folder, other)
    inter = other / "toy" / "toy.inter"
    inter.write_text(inter.read_text() + "u0\ti1\t9000000\n")
    cases = {
        "No --output": here,
        "does not exist": [out, "--checkpoint=none.pth"],
        "is damaged": [out, "--checkpoint=no.pth"],
        "no.pth (output)": [f"--output={tmp_path / 'no.pth' / 'model'}", "--checkpoint=none.pth"],
        "There is no checkpoint KSR-toy": [out, "--dataset=toy", "--checkpoint_dir=empty"],
        "other toy files": [out, here[0], f"--data_path={other}"],
        "hidden_size = 8, but": [out, *here, "--hidden_size=9"],
        "leave --model": [out, *here, "--model=KSR"],
        "Unknown config key 'daat_path'": [out, *here, "--daat_path=x"],
        "does not exist.": [out, here[0], "--data_path=nowhere"],
    }
    for sentence, arguments in cases.items():
        status, said, error = command(capsys, *arguments)
        errors = [line for line in error.splitlines() if line.startswith("error: ")]
        assert (status, said, len(errors)) == (2, "", 1), error
        assert sentence in errors[0] and "Traceback" not in error
    assert not Path("model").exists()
    assert main(["export", "--help"]) == 0


@pytest.mark.parametrize("key", ["pretrain_path", "resume", "data_path", "results_dir",
                                 "checkpoint_dir", "pretrain_dir", "data_cache_dir"])  # fmt: skip
def test_a_folder_with_a_name_too_long_is_one_sentence(key, toy_folder):
    with pytest.raises(UserError, match=r"x{50}"):
        run("KSR", "toy", None, toy_values(toy_folder, epochs=1, **{key: "x" * 300}))


def test_a_model_directory_with_a_name_too_long_is_one_sentence(trained):
    with pytest.raises(UserError, match=r"There is no model directory x{50}"):
        Recommender.load("x" * 300)
    with pytest.raises(UserError, match=r"Cannot write .*x{50}"):
        trained.save("x" * 300)


@pytest.mark.parametrize("part", ["given", "settings"])
@pytest.mark.parametrize("key", ["data_cache_dir", "checkpoint_dir", "results_dir", "pretrain_dir",
                                 "pretrain_export_path", "dataset_save_path"])  # fmt: skip
def test_a_checkpoint_does_not_say_where_files_are_written(toy_folder, tmp_path, key, part):
    """It may be a stranger's; who reads it says so, or the usual folders are taken."""
    trained = Trained(toy_folder, "GRU")
    content = checkpoint.load(trained.checkpoint)
    content[part][key] = str(tmp_path / "elsewhere")
    checkpoint.save(tmp_path / "other.pth", content)
    assert Recommender.load(save_model(tmp_path / "other.pth", tmp_path / "model"))
    assert not (tmp_path / "elsewhere").exists() and list(tmp_path.glob("cache/*"))
    own = tmp_path / "mine"
    save_model(tmp_path / "other.pth", tmp_path / "model", {"data_cache_dir": str(own)})
    assert list(own.iterdir())


def test_a_checkpoint_does_not_have_raw_data_converted(toy_folder, tmp_path):
    """It says where its data lie, and there a reader of it makes none."""
    trained = Trained(toy_folder, "GRU")
    content = checkpoint.load(trained.checkpoint)
    raw = tmp_path / "chosen" / "ml-1m"
    raw.mkdir(parents=True)
    (raw / "ratings.dat").write_text("1::2::5::100\n")
    content["given"]["data_path"], content["dataset"] = str(raw.parent), "ml-1m"
    checkpoint.save(tmp_path / "other.pth", content)
    with pytest.raises(UserError, match=r"ml-1m has no ml-1m.inter; give the folder"):
        save_model(tmp_path / "other.pth", tmp_path / "model")
    assert [path.name for path in raw.iterdir()] == ["ratings.dat"]
    assert [path.name for path in raw.parent.iterdir()] == ["ml-1m"]


def test_models_of_recbole_are_refused(toy_folder, tmp_path):
    result = run("BPR", "toy", None, toy_values(toy_folder, epochs=1))
    with pytest.raises(UserError, match="The model BPR is RecBole's"):
        save_model(result, tmp_path / "model")


def test_an_unfinished_first_epoch_is_refused(toy_folder, tmp_path):
    trained = Trained(toy_folder)
    content = checkpoint.load(trained.checkpoint)
    checkpoint.save(trained.checkpoint, {**content, "best_epoch": -1})
    with pytest.raises(UserError, match="resume it first"):
        trained.save(tmp_path / "model")


# The examples -------------------------------------------------------------------------------


def example(name: str, toy_folder: Path, monkeypatch, capsys, *more: str) -> Any:
    """Run an example on the toy data in the current folder; its ``out`` and ``err``."""
    path = ROOT / "examples" / f"{name}.py"
    data = [f"--{key}={toy_folder}" for key in ("data_path", "pretrain_dir", "data_cache_dir")]
    few = ["--eval_args.mode=full", "--report_modes=['full']", "--epochs=1"]
    given = ["--dataset=toy", *few, *data, *more]
    monkeypatch.setattr(sys, "argv", [str(path), *given])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with suppress(SystemExit):
        runpy.run_path(str(path), run_name="__main__")
    return capsys.readouterr()


def test_the_tour_runs_to_its_end(toy_folder, tmp_path, monkeypatch, capsys):
    """All cells of the notebook, on the toy data."""
    cells = json.loads((ROOT / "examples" / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    data = {key: str(toy_folder) for key in ("data_path", "pretrain_dir", "data_cache_dir")}
    few = {"eval_args": {"mode": "full"}, "report_modes": ["full"], "epochs": 1}
    for old, new in (
        ('"ml-100k", {}', f'"toy", {data | few!r}'),
        ("(Path.cwd(), *Path.cwd().parents)", f"(Path({str(ROOT)!r}),)"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    exec(compile(text, "tour.ipynb", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert "KSR with 60 items and 30 users" in said
    label, _, difference = said[-1].rpartition(": ")
    assert label == "largest difference of a score" and float(difference) < 1e-4


def test_nearest_neighbours_are_compared_with_the_exact_search(toy_folder, monkeypatch, capsys):
    pytest.importorskip("faiss", reason="faiss-cpu is optional, for the example only")
    said = example("nearest_neighbours", toy_folder, monkeypatch, capsys).out.splitlines()
    assert said[0] == "60 items and 30 users in 96 dimensions"
    recalls = [float(line.rpartition(" ")[2]) for line in said[1:]]
    # 80 of 60 items in view: nothing can be missed but what ties.
    assert len(recalls) == 4 and recalls[-1] > 0.99
    bad = example("nearest_neighbours", toy_folder, monkeypatch, capsys, "--directory=nowhere")
    assert bad.out == "" and bad.err.startswith("error: There is no model directory nowhere")


def test_public_names():
    assert {"Recommender", "save_model"} <= set(ksr_recbole.__all__)


def test_one_string_where_a_list_is_meant_is_refused(rec):
    """Python would read it as a list of its letters, which may be users and items."""
    for ask in (rec.recommend_batch, rec.user_vectors):
        with pytest.raises(UserError, match=r"queries is 'u1'; give a list, such as \['u1'\]"):
            ask("u1")
    with pytest.raises(UserError, match="items is 'i1'; give a list"):
        rec.explain("u1", items="i1")


def test_a_state_of_many_events_is_pickled_and_copied(rec):
    """A chain is as long as the updates were; earlier states stay what they were."""
    state = first = rec.start([])
    for event in range(1_500):
        state = rec.update(state, rec.items[event % 7])
    for same_state in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):
        assert rec.recommend(same_state, 5) == rec.recommend(state, 5)
        after = rec.update(same_state, rec.items[9])
        assert rec.recommend(after, 5) == rec.recommend(rec.update(state, rec.items[9]), 5)
    assert len(first.seen.all()) == 0 and len(state.seen.all()) == 1_500


@pytest.mark.parametrize("kind", [np.int64, np.uint8, int])
def test_numbers_of_numpy_are_numbers(rec, kind):
    assert len(rec.recommend(rec.users[0], k=kind(3))) == 3
    for wrong in (np.float64(3), np.bool_(True), True, kind(0)):
        with pytest.raises(UserError, match=r"^k is .* it must be a whole number from 1 up"):
            rec.recommend(rec.users[0], k=wrong)


FORKED = """
import multiprocessing, sys
from ksr_recbole import Recommender

rec = Recommender.load(sys.argv[1], device="cpu")
def scores(user):
    why = [each.item.id for each in rec.explain(user).recommendations]
    return [score for _, score in rec.recommend(user, 5)], why
here = list(map(scores, rec.users[:4]))
with multiprocessing.get_context("fork").Pool(2) as workers:
    there = workers.map(scores, rec.users[:4])
for (ours, why), (theirs, as_well) in zip(here, there):
    assert why == as_well and max(abs(a - b) for a, b in zip(ours, theirs)) < 1e-5
print("the same")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_forked_process_computes_the_same_and_says_how(directory, threads):
    """Numba's and PyTorch's threads are not in it; it waited for them, or was ended."""
    variables = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FORKED, str(directory)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240)
    assert done.stdout == "the same\n", done.stderr
    assert done.stderr.count("forked after the model was used") == 2


TOGETHER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from ksr_recbole import Recommender

rec = Recommender.load(sys.argv[1], device="cpu")
users = rec.users[:6]
def asked(user):
    state = rec.update(rec.start(user), rec.items[3])
    scores = [s for query in (user, state) for _, s in rec.recommend(query, 5)]
    return scores, [each.item.id for each in rec.explain(user).recommendations]
alone = list(map(asked, users))
with ThreadPoolExecutor(4) as threads:
    together = list(threads.map(asked, users * 5))
for (ours, why), (theirs, as_well) in zip(alone * 5, together):
    assert why == as_well and max(abs(a - b) for a, b in zip(ours, theirs)) < 1e-5
print("the same")
"""


@pytest.mark.parametrize(("name", "layer"), [("KSR", "workqueue"), ("KSR-exact", "default")])
def test_threads_of_python_that_ask_at_the_same_time_get_the_same(toy_folder, name, layer):
    directory = Trained(toy_folder, name).save(toy_folder / "model")
    variables = {**os.environ, "NUMBA_THREADING_LAYER": layer, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TOGETHER, str(directory)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240)
    assert done.stdout == "the same\n", done.stderr
