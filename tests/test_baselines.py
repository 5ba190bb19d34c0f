"""The baselines: GRU and RUM against plain loops, and the data and scores of RecBole's models."""

from __future__ import annotations

import sys
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from recbole.data.interaction import Interaction

from ksr_recbole.config import Config
from ksr_recbole.config.keys import known_keys, model_options
from ksr_recbole.dataset.dataloader import CANDIDATES, PairTrainLoader, data_preparation
from ksr_recbole.dataset.sequence_datasets import load_dataset
from ksr_recbole.errors import UserError
from ksr_recbole.evaluation.scorer import PairScorer
from ksr_recbole.paths import CONFIGS
from ksr_recbole.quick_start import run
from ksr_recbole.quick_start.prepare import make_trainer
from ksr_recbole.registry import MODELS, PAPER_MODELS, VARIANTS, model_class, needs_kg
from tests import reference
from tests.models import random_vectors, training_batch
from tests.toy import toy_values

ITEMS = [[3, 1, 7, 7, 2, 9], [4, 5], [2, 8, 6, 1]]
NEGATIVES = [[[11, 12], [10, 9], [4, 4], [30, 31], [40, 1]], [[5, 6]], [[20, 21], [9, 3], [7, 50]]]
USERS = torch.tensor([1, 2, 3])
LENGTHS = torch.tensor([len(sequence) for sequence in ITEMS])
PADDED = torch.nn.utils.rnn.pad_sequence([torch.tensor(s) for s in ITEMS], batch_first=True)


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


@pytest.fixture
def make(toy_folder, toy_dataset):
    """``make(name, **changes)`` gives a float64 model on random vectors."""

    def make(name, **changes):
        values = {"dropout_prob": 0.0, "loss_type": "BPR", **changes}
        config = Config(name, "toy", None, toy_values(toy_folder, **values))
        toy_dataset.pretrained = random_vectors(config, toy_dataset)
        torch.manual_seed(0)
        return model_class(name)(config, toy_dataset).double()

    return make


def candidates_of(scores_of, n_items: int) -> np.ndarray:
    """``scores_of(row, item)`` for every user and item."""
    return np.array([[scores_of(row, item) for item in range(n_items)] for row in range(3)])


def check_all_scores(model, expected: np.ndarray) -> None:
    """Candidates, single predictions and full ranking all give ``expected [3, n_items]``."""
    items = torch.tensor([[1, 2, 3], [9, 9, 60], [5, 6, 7]])
    batch = {"user_id": USERS, "item_id_list": PADDED, "item_length": LENGTHS}
    few = model.score_candidates(Interaction({**batch, CANDIDATES: items}))
    everything = model.full_sort_predict(Interaction(batch))
    one = model.predict(Interaction({**batch, "item_id": items[:, 1]}))
    wanted = np.take_along_axis(expected, items.numpy(), axis=1)
    np.testing.assert_allclose(array(few), wanted, atol=1e-10)
    np.testing.assert_allclose(array(one), wanted[:, 1], atol=1e-10)
    np.testing.assert_allclose(array(everything)[:, 1:], expected[:, 1:], atol=1e-10)


def check_loss(model, score) -> None:
    """``score(row, n_read, item)`` gives the loss of Eq. 11 and its gradients."""

    def total() -> float:
        loss = 0.0
        for row, sequence in enumerate(ITEMS):
            for k, target in enumerate(sequence[1:]):
                for negative in NEGATIVES[row][k]:
                    margin = score(row, k + 1, target) - score(row, k + 1, negative)
                    loss += float(np.logaddexp(0, -margin))
        return loss / model.options.train_batch_size

    loss = model.calculate_loss(training_batch(ITEMS, NEGATIVES))
    assert loss.item() == pytest.approx(total(), rel=1e-10)
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
            for k in np.random.default_rng(0).integers(0, len(flat), 3):
                kept = flat[k].item()
                flat[k] = kept + 1e-6
                above = total()
                flat[k] = kept - 1e-6
                numeric = (above - total()) / 2e-6
                flat[k] = kept
                assert gradient[k].item() == pytest.approx(numeric, abs=2e-8), name


# GRU, GRU++ and GRU_F -----------------------------------------------------------------------


def gru_score(model, row: int, n_read: int, item: int) -> float:
    """Eq. 1, then Eq. 2 or Eq. 10 without a memory, by plain loops."""
    gru = {name: array(value) for name, value in model.gru.named_parameters()}
    params = reference.random_parameters(0)
    params.gru_weight_ih, params.gru_weight_hh = gru["weight_ih_l0"], gru["weight_hh_l0"]
    params.gru_bias_ih, params.gru_bias_hh = gru["bias_ih_l0"], gru["bias_hh_l0"]

    def features(i: int, with_kb: bool) -> np.ndarray:
        q = array(model.item_embedding.weight)[i]
        if not with_kb:
            return q
        entity = array(model.entity_embedding.weight)[model.item_entities[i]]
        return np.concatenate([q, entity])

    def layers(mlp):
        return [(array(part.weight), array(part.bias)) for part in list(mlp)[::2]]

    h = np.zeros(model.options.hidden_size)
    for i in ITEMS[row][:n_read]:
        h = reference.gru_step(params, h, features(i, model.options.kb_input))
    user = reference.mlp(layers(model.user_mlp), h)
    return float(
        user @ reference.mlp(layers(model.item_mlp), features(item, model.options.kb_score))
    )


@pytest.mark.parametrize("name", ["GRU", "GRU++", "GRU_F", "GRU++-trained"])
@pytest.mark.parametrize("layers", [0, 1])
def test_gru_equals_the_plain_loops(make, name, layers):
    changes = {"kb_score": False} if layers == 0 else {}
    model = make(name, score_mlp_layers=layers, **changes)
    scores = candidates_of(lambda r, i: gru_score(model, r, len(ITEMS[r]), i), model.n_items)
    check_all_scores(model, scores)
    check_loss(model, lambda *position: gru_score(model, *position))


def test_which_item_embeddings_are_trained(make):
    trained = {name: make(name).item_embedding.weight.requires_grad for name in ("GRU", "GRU++")}
    assert trained == {"GRU": True, "GRU++": False}
    assert make("GRU++-trained").item_embedding.weight.requires_grad


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"hidden_size": 9}, "score_mlp_layers is 0"),
        ({"item_init": "random"}, "never be learned"),
        ({"item_init": "ones"}, "item_init"),
        ({"loss_type": "XY"}, "loss_type"),
    ],
)
def test_gru_refuses_what_does_not_fit(make, changes, word):
    with pytest.raises(UserError, match=word):
        make("GRU++", score_mlp_layers=0, **changes)


# RUM ----------------------------------------------------------------------------------------


def softmax(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x - x.max())
    return exponentials / exponentials.sum()


def rum_vectors(model, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x of every item, e of every item, and the user embedding."""
    entity = array(model.entity_embedding.weight)[array(model.item_entities)]
    x = np.concatenate([array(model.item_embedding.weight), entity], axis=1)
    return x, entity, array(model.user_embedding.weight)[row + 1]


def rum_item_score(model, row: int, n_read: int, item: int) -> float:
    x, _, user = rum_vectors(model, row)
    slots = ITEMS[row][:n_read][-model.options.memory_slots :]
    z = softmax(np.array([model.options.attention_scale * (x[item] @ x[k]) for k in slots]))
    found = sum(z[k] * x[slots[k]] for k in range(len(slots)))
    return float((user + model.options.memory_weight * found) @ x[item])


def rum_feature_score(model, row: int, n_read: int, item: int) -> float:
    x, entity, user = rum_vectors(model, row)
    keys = array(model.relation_embedding.weight)[array(model.attributes)]
    query = array(model.query.weight)

    def attention(i: int) -> np.ndarray:
        return softmax(
            np.array([model.options.attention_scale * ((query @ x[i]) @ key) for key in keys])
        )

    values = np.zeros((len(keys), entity.shape[1]))
    for i in ITEMS[row][:n_read]:
        erase = reference.sigmoid(array(model.erase.weight) @ entity[i] + array(model.erase.bias))
        add = np.tanh(array(model.add.weight) @ entity[i] + array(model.add.bias))
        for a, z in enumerate(attention(i)):
            values[a] = values[a] * (1 - z * erase) + z * add
    found = sum(z * values[a] for a, z in enumerate(attention(item)))
    return float(user @ x[item] + model.options.memory_weight * (found @ entity[item]))


@pytest.mark.parametrize("scale", [1.5, 0.0])
@pytest.mark.parametrize(
    ("name", "score"), [("RUM_I", rum_item_score), ("RUM_F", rum_feature_score)]
)
def test_rum_equals_the_plain_loops(make, name, score, scale):
    changes = {"memory_slots": 3} if name == "RUM_I" else {}
    model = make(name, memory_weight=0.7, attention_scale=scale, **changes)
    scores = candidates_of(lambda r, i: score(model, r, len(ITEMS[r]), i), model.n_items)
    check_all_scores(model, scores)
    check_loss(model, lambda *position: score(model, *position))


def test_an_empty_memory_adds_nothing(make):
    model = make("RUM_I", memory_slots=2)
    read = model.read_last(USERS, PADDED * 0, LENGTHS)
    assert torch.equal(model.all_scores(read), read.users @ model.item_vectors().T)


def test_rum_has_no_softmax_over_all_items(make):
    with pytest.raises(UserError, match="loss_type is 'CE'"):
        make("RUM_F", loss_type="CE")


# RecBole's models ---------------------------------------------------------------------------


def prepared(toy_folder, name, **changes):
    config = Config(name, "toy", None, toy_values(toy_folder, **changes))
    dataset = load_dataset(config)
    return config, dataset, data_preparation(config, dataset)


@pytest.mark.parametrize("name", ["BPR", "NeuMF", "CKE", "FPMC"])
def test_pairs_are_the_training_interactions_with_true_negatives(toy_folder, name):
    negatives = {"distribution": "uniform", "sample_num": 2}
    _, dataset, (train, _, _) = prepared(
        toy_folder, name, train_neg_sample_args=negatives, train_batch_size=50
    )
    assert isinstance(train, PairTrainLoader)
    batches = list(train)
    assert len(batches) == len(train) > 1
    sequences, split = dataset.sequences, dataset.split
    indices, users = split.training_interactions(sequences)
    if name == "FPMC":  # no first item has one before it
        follows = indices > sequences.offsets[users]
        indices, users = indices[follows], users[follows]
    expected = sorted(zip(users, sequences.items[indices], strict=True))
    seen = {(u, i) for u, i in zip(*_training_pairs(dataset), strict=True)}
    positive, negative = [], []
    for batch in batches:
        pairs = list(zip(batch["user_id"].tolist(), batch["item_id"].tolist(), strict=True))
        if name == "NeuMF":
            label = batch["label"].tolist()
            positive += [p for p, one in zip(pairs, label, strict=True) if one]
            negative += [p for p, one in zip(pairs, label, strict=True) if not one]
        else:
            positive += pairs[: len(pairs) // 2]
            assert pairs[: len(pairs) // 2] == pairs[len(pairs) // 2 :]
            users_of = batch["user_id"].tolist()
            negative += list(zip(users_of, batch["neg_item_id"].tolist(), strict=True))
    assert sorted(positive) == expected
    assert len(negative) == 2 * len(expected) and not seen & set(negative)
    again = list(train)
    assert all(torch.equal(a["item_id"], b["item_id"]) for a, b in zip(batches, again, strict=True))
    train.set_epoch(1)
    assert any(
        not torch.equal(a["item_id"], b["item_id"]) for a, b in zip(batches, train, strict=True)
    )


def _training_pairs(dataset):
    indices, users = dataset.split.training_interactions(dataset.sequences)
    return users.tolist(), dataset.sequences.items[indices].tolist()


def test_the_item_before_is_the_one_before(toy_folder):
    _, dataset, (train, _, _) = prepared(toy_folder, "FPMC")
    follows = set()
    users, items = _training_pairs(dataset)
    for k in range(1, len(users)):
        if users[k] == users[k - 1]:
            follows.add((users[k], items[k - 1], items[k]))
    batches = list(train)
    assert len(batches) == len(train) > 0
    for batch in batches:
        found = zip(
            batch["user_id"].tolist(),
            batch["item_id_list"][:, 0].tolist(),
            batch["item_id"].tolist(),
            strict=True,
        )
        assert set(found) <= follows


@pytest.mark.parametrize("phase", ["valid", "test"])
def test_fpmc_is_asked_after_the_last_item_of_the_history(toy_folder, phase):
    config, dataset, (train, _, _) = prepared(toy_folder, "FPMC")
    model = make_trainer(config, train.dataset).model.eval()
    sequences = dataset.sequences
    users = np.arange(1, sequences.n_users)
    ends = dataset.split.history_end(phase)[users]
    last = sequences.items[sequences.offsets[users] + ends - 1]
    batch = PairScorer(model, config, sequences, dataset.split).history(users, ends)
    assert batch["item_id_list"][:, 0].tolist() == last.tolist()
    assert batch["user_id"].tolist() == users.tolist()


@pytest.mark.parametrize("name", ["BPR", "NeuMF", "CKE", "FPMC"])
def test_pair_scores_are_the_models_own(toy_folder, name, monkeypatch):
    config, dataset, (train, _, _) = prepared(toy_folder, name)
    model = make_trainer(config, train.dataset).model.eval()
    scorer = PairScorer(model, config, dataset.sequences, dataset.split)
    users, ends = np.array([3, 1]), dataset.split.history_end("test")[[3, 1]]
    with torch.no_grad():
        everything = scorer.score_all(users, ends)
        monkeypatch.setattr("ksr_recbole.evaluation.scorer.PAIRS", 7)
        few = scorer.score_candidates(users, ends, torch.tensor([[5, 9], [2, 2]]))
        assert torch.allclose(few, everything.gather(1, torch.tensor([[5, 9], [2, 2]])))
        if name != "NeuMF":  # which has no full_sort_predict
            expected = model.full_sort_predict(scorer.history(users, ends)).view(2, -1)
            torch.testing.assert_close(everything, expected)


# All of them --------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["next-item", "next-session"])
@pytest.mark.parametrize("name", [*PAPER_MODELS, *VARIANTS])
def test_every_model_runs_under_the_protocol(toy_folder, name, task):
    values = toy_values(toy_folder, task=task, epochs=1, session_length=10_800)
    result = run(name, "toy", None, values)
    assert 0 < result["test_result"]["mrr"] <= 1
    assert result["model"] == name
    ranks = result["eval_results"]["uni5pop5"]["test"].ranks
    assert len(ranks) == len(result["eval_results"]["full"]["test"].ranks)


def test_candidates_are_the_same_for_all_models(toy_folder):
    drawn = {
        str(run(name, "toy", None, toy_values(toy_folder, epochs=1))["candidates"])
        for name in ("BPR", "FPMC", "RUM_F", "GRU", "KSR")
    }
    assert len(drawn) == 1


def test_without_a_graph_only_models_with_one_are_refused(toy_folder):
    for suffix in ("kg", "link"):
        (toy_folder / "toy" / f"toy.{suffix}").unlink()
    for name in PAPER_MODELS:
        values = toy_values(toy_folder, epochs=1)
        if needs_kg(name):
            with pytest.raises(UserError, match=f"{name} needs a knowledge graph"):
                run(name, "toy", None, values)
        else:
            assert run(name, "toy", None, values)["test_result"]["mrr"] > 0


def test_a_lone_graph_file_is_a_mistake(toy_folder):
    (toy_folder / "toy" / "toy.link").unlink()
    with pytest.raises(UserError, match=r"toy\.link"):
        run("GRU", "toy", None, toy_values(toy_folder))


def test_every_entry_has_its_options():
    for name in MODELS:
        config = Config(name, "ml-100k", None, {"gpu_id": ""})
        assert config["model"] == name and config["learning_rate"] > 0


@pytest.mark.parametrize("name", MODELS)
def test_a_run_reads_every_option_of_its_model(name, toy_folder, monkeypatch):
    read = set()
    look_up = Config.__getitem__

    def recording(self, key):
        read.add(key)
        return look_up(self, key)

    monkeypatch.setattr(Config, "__getitem__", recording)
    # What a checkpoint notes down is read for no other reason.
    module = sys.modules["ksr_recbole.quick_start.prepare"]
    monkeypatch.setattr(module, "compared_keys", lambda *_: frozenset())
    run(name, "toy", None, toy_values(toy_folder, epochs=1))
    other = {"time_scales", "memory_fit"}  # of memories that the model has not
    if name == "KSR-exact":
        other = {"gamma", "gate_bias", "memory_backend", "memory_scale", "project_entities"}
        other |= {"query_mlp_layers"}
    assert set(model_options(name)) - read <= (other if name.startswith("KSR") else set())


def test_what_suits_a_model_on_a_dataset_or_task_is_its_default_there(tmp_path, monkeypatch):
    mine = tmp_path / "configs"
    copytree(CONFIGS, mine)
    for where, content in {
        "toy": "gamma: 3\nkb_scale: 2.0\n",
        "next-session": "gamma: 4\n",
    }.items():
        (mine / "model" / where).mkdir(exist_ok=True)
        (mine / "model" / where / "KSR.yaml").write_text(content)
    monkeypatch.setattr("ksr_recbole.config.keys.CONFIGS", mine)

    def values(model="KSR", dataset="toy", **given):
        config = Config(model, dataset, None, {"gpu_id": "", **given})
        return config["gamma"], config["kb_scale"]

    assert values(dataset="ml-100k") == values(model="KSR-paper") == (10, 1)
    assert values() == (3, 2)
    assert values(task="next-session") == (4, 2)
    assert values(task="next-session", dataset="ml-100k") == (4, 1)
    assert values(task="next-session", gamma=5) == (5, 2)


def test_on_ml_1m_every_model_but_the_papers_setting_is_averaged():
    for name in MODELS:
        decay = Config(name, "ml-1m", None, {"gpu_id": ""})["ema_decay"]
        assert decay == (None if name.endswith("-paper") else 0.996), name


def test_training_items_leaves_the_pretrained_vectors_alone(make, toy_dataset):
    model = make("GRU++-trained").float()
    before = toy_dataset.pretrained.items.copy()
    with torch.no_grad():
        model.item_embedding.weight += 1
    assert np.array_equal(toy_dataset.pretrained.items, before)


def _given_by(name: str) -> dict[str, Any]:
    """What a model's YAML file itself says."""
    return yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "chain"),
    [
        ("KSR-paper", ("KSR",)),
        ("GRU++", ("GRU",)),
        ("GRU++-trained", ("GRU++", "GRU")),
        ("GRU_F-trained", ("GRU_F", "GRU++", "GRU")),
    ],
)
def test_a_variant_has_the_values_of_its_base_and_says_only_what_differs(name, chain):
    own = _given_by(name)
    assert own.pop("based_on") == chain[0]
    base = model_options(chain[0])
    assert all(key not in base or base[key] != value for key, value in own.items())
    expected: dict[str, Any] = {}
    for each in reversed((name, *chain)):
        expected |= _given_by(each)
    expected.pop("based_on")
    assert model_options(name) == expected
    assert "based_on" not in known_keys()
