"""Whether reasons matter: the deletion test and the shares, against plain loops."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ksr_recbole.dataset.dataloader import SequenceEvalData
from ksr_recbole.explanation.knowledge import Knowledge
from ksr_recbole.interpretability import reason_level
from ksr_recbole.interpretability.measures import measure_explanations
from ksr_recbole.interpretability.reason_level import _others, paired, without_common
from tests.models import make_model


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


@torch.no_grad()
def plain_user(model, knowledge, history):
    """Readable share of the top, and the loss without the named items and without the others."""
    whole = scores_after(model, history)
    rest = whole.clone()
    rest[0] = rest[history] = -torch.inf
    best = rest.topk(reason_level.TOP).indices.tolist()
    losses = []
    for k in range(max(0, len(history) - 50), len(history)):
        without = scores_after(model, history[:k] + history[k + 1 :])
        losses.append((k, (whole - without)[best].tolist()))
    facts = knowledge.of_items.toarray() > 0
    readable, first = 0, None
    for row, item in enumerate(best):
        in_favour = sum(max(lost[row], 0) for _, lost in losses)
        found = []
        for fact in np.flatnonzero(facts[item] & facts[history].any(axis=0)):
            weight = sum(lost[row] for k, lost in losses if facts[history[k], fact])
            n_with = facts[:, fact].sum()
            if weight > 0 and weight >= 0.01 * in_favour and n_with <= 0.2 * (len(facts) - 1):
                found.append((-weight * np.log((len(facts) - 1) / n_with), fact))
        readable += bool(found)
        if row == 0 and found:
            first = min(found)[1]
    if first is None:
        return readable / len(best), None
    named = [k for k, item in enumerate(history) if facts[item, first]]
    others = plain_nearest(named, len(history))
    if others is None:
        return readable / len(best), None
    pair = []
    for left_out in (named, others):
        kept = [item for k, item in enumerate(history) if k not in left_out]
        pair.append(float((whole - scores_after(model, kept))[best[0]]))
    return readable / len(best), pair


def test_the_deletion_test_is_that_of_plain_loops(toy_config, toy_dataset):
    model = make_model(toy_config(memory_backend="torch"), toy_dataset).eval()
    config = toy_config(memory_backend="torch")
    data = SequenceEvalData(config, toy_dataset, "test")
    told, arrays = measure_explanations(SimpleNamespace(model=model, config=config), data)
    knowledge, pairs = Knowledge.of(toy_dataset), []
    for user, share, difference in zip(
        arrays["reasons/users"], arrays["reasons/readable"], arrays["reasons/reason/loss"],
        strict=True,
    ):  # fmt: skip
        sequences, split = toy_dataset.sequences, toy_dataset.split
        end = int(split.history_end("test")[user])
        history = sequences.items[sequences.offsets[user] :][:end].tolist()
        readable, pair = plain_user(model, knowledge, history)
        assert share == pytest.approx(readable)
        if pair is None:
            assert np.isnan(difference)
        else:
            assert difference == pytest.approx(pair[0] - pair[1], abs=1e-9)
            pairs.append(pair)
    loss = told["reasons"]["reason"]["loss"]
    assert len(pairs) == loss["users"] > 5
    assert [loss["first"], loss["second"]] == pytest.approx(np.mean(pairs, axis=0).tolist())
    assert told["reasons"]["readable"] == pytest.approx(arrays["reasons/readable"].mean())
    agreement = told["reasons"]["strongest"]["agreement"]
    assert 0 < agreement["random"] <= 1


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
