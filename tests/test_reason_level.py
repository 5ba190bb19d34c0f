"""Whether reasons matter: the deletion test and the shares, against plain loops."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ksr_recbole.config import Config
from ksr_recbole.dataset.dataloader import SequenceEvalData
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.explanation import value_entities
from ksr_recbole.explanation.knowledge import Knowledge
from ksr_recbole.interpretability import reason_level
from ksr_recbole.interpretability.measures import measure_explanations
from ksr_recbole.interpretability.reason_level import (
    ReasonLevel,
    _others,
    paired,
    without_common,
)
from tests.models import make_model
from tests.test_interpretability import add_triples
from tests.toy import toy_values, write_toy


def scores_after(model, history):
    ids = torch.tensor([history], dtype=torch.long)
    return model.all_scores(
        model.read_last(torch.zeros(1).long(), ids, torch.tensor([len(history)]))
    )[0]


def plain_nearest(named, n):
    """For each named position, the latest first, the nearest one that is free."""
    free = [p for p in range(n) if p not in named]
    if len(free) < len(named):
        return None
    chosen = set()
    for position in sorted(named, reverse=True):
        nearest = min((p for p in free if p not in chosen), key=lambda p: (abs(p - position), p))
        chosen.add(nearest)
    return chosen


def plain_weights(model, knowledge, history, best):
    """For each item of ``best``: what each fact weighs for it, and all that speaks for it."""
    whole, facts = scores_after(model, history), knowledge.of_items.toarray() > 0
    if model.exact is not None:
        state = model.advance(torch.tensor([history]), torch.tensor([len(history)]))
        (adds,) = model.exact.read(state.hidden[-1], state.values).tolist()
        pairs = zip(model.exact.attributes.tolist(), model.exact.entities.tolist(), strict=True)
        part = dict(zip(pairs, adds, strict=True))
        named = zip(knowledge.attribute_of.tolist(), knowledge.entity_of.tolist(), strict=True)
        of_facts = [part.get(pair, 0.0) for pair in named]
        for item in best:
            own = [of_facts[fact] for fact in np.flatnonzero(facts[item])]
            rest = float(whole[item]) - sum(own)
            yield of_facts, sum(max(each, 0) for each in (*own, rest))
        return
    losses = []
    for k in range(max(0, len(history) - 50), len(history)):
        without = scores_after(model, history[:k] + history[k + 1 :])
        losses.append((k, (whole - without)[best].tolist()))
    for row in range(len(best)):
        of_facts = [
            sum(lost[row] for k, lost in losses if facts[history[k], fact])
            for fact in range(facts.shape[1])
        ]
        yield of_facts, sum(max(lost[row], 0) for _, lost in losses)


@torch.no_grad()
def plain_user(model, knowledge, history, seen, chance):
    """Readable share of the top, by attribute how much speaks for the top, and for each kind of
    fact, without the named items and without the others, what the score loses and log2 of the rank.

    ``seen`` is what is no candidate: the history, and what the user had before it.
    """
    whole = scores_after(model, history)
    rest = whole.clone()
    rest[0] = rest[seen] = -torch.inf
    best = rest.topk(reason_level.TOP).indices.tolist()
    facts = knowledge.of_items.toarray() > 0
    strength, shared, readable, first = np.zeros(len(knowledge.attributes)), [], 0, None
    for row, (of_facts, in_favour) in enumerate(plain_weights(model, knowledge, history, best)):
        found = []
        for fact in np.flatnonzero(facts[best[row]] & facts[history].any(axis=0) & rare(facts)):
            weight, n_with = of_facts[fact], facts[:, fact].sum()
            shared += [fact] if row == 0 else []
            if weight > 0 and weight >= 0.01 * in_favour:
                gain = weight * np.log((len(facts) - 1) / n_with)
                found.append((-gain, fact))
                strength[knowledge.attribute_of[fact]] += gain
        readable += bool(found)
        if row == 0 and found:
            first = min(found)[1]
    kinds = {"reason": first, "chance": shared[int(chance * len(shared))] if shared else None}
    pairs = {}
    for kind, fact in kinds.items():
        named = [k for k, item in enumerate(history) if fact is not None and facts[item, fact]]
        others = plain_nearest(named, len(history))
        pairs[kind] = [] if others else None
        for left_out in (named, others) if others else ():
            kept = [item for k, item in enumerate(history) if k not in left_out]
            scores = scores_after(model, kept)
            above = sum(scores[i] > scores[best[0]] for i in range(1, len(facts)) if i not in seen)
            pairs[kind].append((float((whole - scores)[best[0]]), np.log2(1 + int(above))))
    return readable / len(best), strength, pairs


def rare(facts):
    """The facts that at most a fifth of the items have."""
    return facts.sum(axis=0) <= 0.2 * (len(facts) - 1)


def plain_agreement(knowledge, item, before):
    """On which attributes an item has a value that few items have and one of ``before`` has too."""
    facts = knowledge.of_items.toarray() > 0
    both = facts[item] & facts[before].any(axis=0) & rare(facts)
    return [
        float(both[knowledge.attribute_of == a].any()) for a in range(len(knowledge.attributes))
    ]


def measured(config):
    """Dataset, model with all its weights drawn, and what is measured."""
    dataset = KGSequenceDataset(config)
    dataset.build()
    model = make_model(config, dataset).eval()
    rng = np.random.default_rng(2)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.requires_grad:
                parameter.copy_(torch.from_numpy(rng.normal(0, 0.5, parameter.shape)))
    data = SequenceEvalData(config, dataset, "test")
    trainer = SimpleNamespace(model=model, config=config)
    return dataset, model, *measure_explanations(trainer, data)


@pytest.mark.parametrize("changes", [{}, {"train_ratio": 0.5}, {"value_matrix": "exact"}], ids=str)
def test_the_deletion_test_is_that_of_plain_loops(toy_config, changes):
    config = toy_config(memory_backend="torch", **changes)
    dataset, model, told, arrays = measured(config)
    knowledge, pairs = Knowledge.of(dataset), {"reason": [], "chance": []}
    sequences, split = dataset.sequences, dataset.split
    chances = np.random.default_rng(0).random(len(arrays["reasons/users"]))
    for k, user in enumerate(arrays["reasons/users"]):
        end = int(split.history_end("test")[user])
        seen = sequences.items[sequences.offsets[user] :][:end].tolist()
        history = seen[split.train_start[user] :]
        readable, _, found = plain_user(model, knowledge, history, seen, chances[k])
        assert arrays["reasons/readable"][k] == pytest.approx(readable)
        for kind, pair in found.items():
            own = [arrays[f"reasons/{kind}/{name}"][k] for name in ("loss", "log2_rank")]
            if pair is None:
                assert np.isnan(own).all()
            else:
                assert own == pytest.approx(np.subtract(*pair).tolist(), abs=1e-9)
                pairs[kind].append(pair)
    for kind, of_users in pairs.items():
        for part, name in enumerate(("loss", "log2_rank")):
            mean = told["reasons"][kind][name]
            assert len(of_users) == mean["users"] > 2
            expected = np.mean(of_users, axis=0)[:, part]
            assert [mean["first"], mean["second"]] == pytest.approx(expected.tolist())
    assert told["reasons"]["readable"] == pytest.approx(arrays["reasons/readable"].mean())


def test_the_strongest_attribute_is_that_of_plain_loops(toy_folder, toy_config, monkeypatch):
    add_triples(toy_folder)  # only one attribute of the toy data has values that few items have
    agreement, rates = reason_level.training_agreement, []

    def noted(*given):
        """As if the first attribute agreed most often, so that what is tested decides nothing."""
        rates.append(agreement(*given))
        return np.arange(len(rates[0])) == 0

    monkeypatch.setattr(reason_level, "training_agreement", noted)
    changes = {"value_matrix": "exact", "train_ratio": 0.5}
    dataset, model, told, arrays = measured(toy_config(memory_backend="torch", **changes))
    knowledge, sequences, split = Knowledge.of(dataset), dataset.sequences, dataset.split
    training = []
    for user in range(1, sequences.n_users):
        items = sequences.items[sequences.offsets[user] :][split.train_start[user] :]
        for t in range(1, split.train_end[user] - split.train_start[user]):
            before = items[max(0, t - reason_level.WINDOW) : t]
            training.append(plain_agreement(knowledge, items[t], before))
    assert rates[0] == pytest.approx(np.mean(training, axis=0)) and rates[0].argmax() > 0
    strongest = told["reasons"]["strongest"]
    assert strongest["majority"] == knowledge.attributes[0].label
    for k, user in enumerate(arrays["reasons/users"]):
        seen = sequences.items[sequences.offsets[user] :][: split.valid_end[user]].tolist()
        history, item = (
            seen[split.train_start[user] :],
            sequences.items[sequences.offsets[user + 1] - 1],
        )
        _, strength, _ = plain_user(model, knowledge, history, seen, 0.0)
        agrees = plain_agreement(knowledge, item, history[-reason_level.WINDOW :])
        expected = agrees[strength.argmax()], agrees[0], np.mean(agrees)
        found = [arrays[f"reasons/agreement/{name}"][k] for name in strongest["agreement"]]
        assert found == pytest.approx(expected)
    for name, mean in strongest["agreement"].items():
        assert 0 < mean == pytest.approx(arrays[f"reasons/agreement/{name}"].mean())


def test_no_batch_is_larger_for_many_items_and_none_decides_a_figure(toy_config, monkeypatch):
    config, sizes, read = toy_config(memory_backend="torch"), [], ReasonLevel.read

    def seen(self, batch, items, lengths):
        sizes.append(batch.stop - batch.start)
        return read(self, batch, items, lengths)

    monkeypatch.setattr(ReasonLevel, "read", seen)
    dataset, _, _, whole = measured(config)
    assert len(sizes) == 1
    for n_users in (4, 1):
        sizes.clear()
        monkeypatch.setattr(value_entities, "_CELLS", n_users * dataset.item_num)
        _, _, _, parts = measured(config)
        assert max(sizes) == n_users
        for name, values in whole.items():
            np.testing.assert_allclose(parts[name], values, atol=1e-9, err_msg=name)
    assert np.isfinite(whole["reasons/chance/loss"]).any()
    # Nor does padding, whatever the model gives it: here more than any item.
    scores = reason_level._all_scores
    above = torch.eye(1, dataset.item_num) * 1e6
    monkeypatch.setattr(reason_level, "_all_scores", lambda *given: scores(*given) + above)
    _, _, _, padded = measured(config)
    for name in (name for name in whole if name.startswith("reasons/")):
        np.testing.assert_allclose(padded[name], parts[name], atol=1e-9, err_msg=name)


def test_who_has_had_nearly_all_items_has_as_many_recommendations_as_are_left(
    tmp_path, monkeypatch
):
    """An item that the user had is none, though more are asked for."""
    monkeypatch.setattr(reason_level, "TOP", 24)
    folder = write_toy(tmp_path / "data", n_users=8, n_items=30)
    dataset, model, _, arrays = measured(
        Config("KSR-paper", "toy", None, toy_values(folder, memory_backend="torch"))
    )
    knowledge, sequences = Knowledge.of(dataset), dataset.sequences
    facts, few = knowledge.of_items.toarray() > 0, 0
    for k, user in enumerate(arrays["reasons/users"]):
        seen = sequences.items[sequences.offsets[user] :][: dataset.split.valid_end[user]].tolist()
        left = [i for i in range(1, len(facts)) if i not in seen]
        weights = plain_weights(model, knowledge, seen, left)
        with torch.no_grad():
            good = [
                any(of[f] > 0 and of[f] >= 0.01 * all_ for f in np.flatnonzero(own & rare(facts)))
                for (of, all_), own in zip(weights, facts[left] & facts[seen].any(0), strict=True)
            ]
        if len(left) < reason_level.TOP:
            assert arrays["reasons/readable"][k] == pytest.approx(np.mean(good))
            few += any(good)
    assert few


def test_as_many_others_at_the_nearest_positions():
    rng = np.random.default_rng(0)
    named = rng.random((40, 12)) < 0.4
    lengths = rng.integers(1, 13, 40)
    present = np.arange(12) < lengths[:, None]
    named &= present
    chosen = _others(named, present)
    assert not (chosen & (named | ~present)).any()
    for row in range(40):
        wanted = plain_nearest(set(np.flatnonzero(named[row]).tolist()), lengths[row])
        assert set(np.flatnonzero(chosen[row]).tolist()) == (wanted or set())


def test_a_row_of_which_half_is_named_has_as_many_others():
    named = np.array([[True, True, False, False]])
    assert _others(named, np.ones_like(named)).tolist() == [[False, False, True, True]]


def test_pairs_and_common_values(toy_dataset):
    told = paired(np.array([1.0, 2, 4]), np.array([0.0, 1, 1]))
    assert (told["first"], told["second"], told["users"]) == (7 / 3, 2 / 3, 3)
    assert told["difference"] == pytest.approx(5 / 3) and 0 < told["p_value"] < 1
    assert paired(np.empty(0), np.empty(0))["p_value"] == 1
    knowledge = Knowledge.of(toy_dataset)
    n_items = len(knowledge.item_tokens) - 1
    for of, rare in zip(knowledge.values.of_items, without_common(knowledge).of_items, strict=True):
        kept = of.toarray() * (of.toarray().sum(axis=0) <= 0.2 * n_items)
        np.testing.assert_array_equal(rare.toarray(), kept)
