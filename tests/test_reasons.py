"""Reasons: against plain loops, and in words."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from ksr_recbole.explanation import reasons as reasons_module
from ksr_recbole.explanation.explain import AskedItems, explain, recommendations_of
from ksr_recbole.explanation.influence import LOOKED_BACK, influence, influences
from ksr_recbole.explanation.knowledge import Knowledge
from ksr_recbole.explanation.parts import Chosen, Item
from ksr_recbole.explanation.reasons import Candidates, SharedFacts, among_covered
from ksr_recbole.explanation.trace import History
from ksr_recbole.explanation.wording import (
    NOT_THE_MODELS,
    _once,
    often_chosen,
    phrase_of,
    plain_label,
    sentence_of,
)
from tests.films import FILMS, SEQUENCES, films_model, write_films
from tests.models import make_model, match_terms


def plain_reasons(dataset, history, item, attention, parts, rest, lost=None):
    """The reasons of one item by loops over triples: rows as of :class:`SharedFacts`.

    ``parts`` are what each attribute and entity adds to the score, ``rest`` is what else does.
    """
    triples, heads = dataset.triples.tolist(), dataset.item_entities.tolist()
    relations = dataset.attributes.tolist()
    n_items = len(heads) - 1

    def values(i, relation):
        return {t for h, r, t in triples if h == heads[i] and r == relation}

    having = [bool(values(item, relation)) for relation in relations]
    total = sum(w for w, h in zip(attention, having, strict=True) if h)
    own = [parts[a, e] for a, relation in enumerate(relations) for e in values(item, relation)]
    speaks = sum(max(t, 0) for t in ([*own, rest] if lost is None else lost))
    found = []
    for a, relation in enumerate(relations):
        for entity in values(item, relation):
            times = sum(entity in values(i, relation) for i in history)
            if not times:
                continue
            n_with = sum(entity in values(i, relation) for i in range(1, n_items + 1))
            share = attention[a] / total
            weight = parts[a, entity]
            if lost is not None:
                pairs = zip(history, lost, strict=True)
                weight = sum(w for i, w in pairs if entity in values(i, relation))
            by_model = weight > 0 and weight >= 0.01 * speaks
            common = n_with > 0.2 * n_items
            gain = max(weight, 0) * math.log(n_items / n_with)
            key = (not by_model, common, -round(gain, 9), a, entity)
            found.append((key, (a, entity, share, weight, times, by_model, common)))
    return [row for _, row in sorted(found)]


@pytest.mark.parametrize("split", [True, False], ids=["split", "left out"])
def test_shared_facts_equal_plain_loops(toy_dataset, split):
    knowledge, rng = Knowledge.of(toy_dataset), np.random.default_rng(3)
    n, n_attributes = len(knowledge.item_tokens), len(knowledge.attributes)
    histories = [
        rng.permutation(n - 1)[:7] + 1,
        rng.permutation(n - 1)[:3] + 1,
        np.empty(0, np.int64),
    ]
    items, owners = rng.integers(1, n, 9), np.repeat([0, 1, 2], 3)
    items[0] = 0 + toy_dataset.field2token_id["item_id"]["i1"]  # it has no value at all
    attention = rng.dirichlet(np.ones(n_attributes), 3)
    attention[1] = [0.995, 0.0025, 0.0025][:n_attributes] + [0.0] * (n_attributes - 3)
    adds, rest = rng.normal(size=(9, len(knowledge.entity_of))), rng.normal(size=9)
    adds[4], rest[4] = 1e-3, 100.0  # so much besides that no value is a reason
    rows = np.repeat([0, 1, 2], [len(h) for h in histories])
    columns = np.concatenate(histories)
    matrix = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(3, n))
    parts = csr_matrix(knowledge.of_items[items].multiply(adds))
    asked = Candidates(items, owners, attention, parts=parts, rest=rest)
    losses = [rng.normal(size=len(histories[owner])) for owner in owners]
    if not split:
        of_rows = np.repeat(np.arange(9), [len(each) for each in losses])
        columns = np.concatenate([histories[owner] for owner in owners])
        cells = (np.concatenate(losses), (of_rows, columns))
        asked = Candidates(items, owners, attention, influence=csr_matrix(cells, shape=(9, n)))
    found = SharedFacts.of(knowledge, matrix, asked)
    first = found.first_readable(9)
    some = 0
    for row, item in enumerate(items):
        history = histories[owners[row]].tolist()
        lost = None if split else losses[row].tolist()
        pairs = zip(knowledge.attribute_of.tolist(), knowledge.entity_of.tolist(), strict=True)
        of_pairs = dict(zip(pairs, adds[row].tolist(), strict=True))
        told = attention[owners[row]], of_pairs, rest[row], lost
        expected = plain_reasons(toy_dataset, history, item, *told)
        mine = np.flatnonzero(found.rows == row)
        facts = found.facts[mine]
        got = zip(
            knowledge.attribute_of[facts], knowledge.entity_of[facts], found.attention[mine],
            found.weight[mine], found.times[mine], found.by_model[mine], found.common[mine],
            strict=True,
        )  # fmt: skip
        for (a, e, *numbers), (a1, e1, *numbers1) in zip(got, expected, strict=True):
            assert (a, e) == (a1, e1) and numbers == pytest.approx(numbers1)
        good = [k for k, row_ in enumerate(expected) if row_[5] and not row_[6]]
        assert first[row] == (mine[good[0]] if good else -1)
        some += len(expected)
    assert some > 8 and len(set(found.by_model)) == 2 and len(set(found.common)) == 2


def test_the_influence_of_an_item_is_what_the_score_loses_without_it(toy_config, toy_dataset):
    model = make_model(toy_config(memory_backend="torch"), toy_dataset).eval()
    histories, candidates = [[3, 4, 5], [6, 7], []], [[8, 9], [10, 3], [4, 5]]
    items = torch.tensor([[*h, *[0] * (3 - len(h))] for h in histories])
    lengths = torch.tensor([len(h) for h in histories])

    def score(history: list[int], candidates: list[int]) -> torch.Tensor:
        ids = torch.tensor([history], dtype=torch.long)
        read = model.read_last(torch.zeros(1).long(), ids, torch.tensor([len(history)]))
        return model.scores(read, torch.tensor([candidates]))[0]

    with torch.no_grad():
        before = model.initial_state(3)
        found = influence(model, items, lengths, before, torch.tensor(candidates))
        for row, history in enumerate(histories):
            for place in range(3):
                expected = torch.zeros(2, dtype=found.dtype)
                if place < len(history):
                    left = [*history[:place], *history[place + 1 :]]
                    expected = score(history, candidates[row]) - score(left, candidates[row])
                torch.testing.assert_close(found[row, place], expected)


@pytest.fixture
def exact_films(tmp_path, monkeypatch):
    """KSR-exact on the films with more genres each; it likes what is old, not what is new."""
    folder = write_films(tmp_path / "films")
    more = {
        "m.alien": "scifi thriller", "m.runner": "thriller", "m.aliens": "horror action",
        "m.term": "action thriller", "m.psycho": "thriller drama", "m.rear": "drama action",
        "m.samurai": "drama", "m.ran": "action", "m.alien4": "scifi action", "m.amelie": "drama",
    }  # fmt: skip
    lines = [f"{k}\tdbo:filmGenre\t{v}\n" for k, values in more.items() for v in values.split()]
    with open(folder / "films" / "films.kg", "a") as file:
        file.writelines(lines)
    monkeypatch.setattr(reasons_module, "COMMON_SHARE", 0.45)  # of ten films all else is common
    model, dataset = films_model(folder, value_matrix="exact")
    with torch.no_grad():
        torch.nn.init.zeros_(model.exact.weights)
        model.exact.weights[0], model.exact.weights[3] = -2.0, 3.0
        torch.nn.init.zeros_(model.exact.gates.weight)
        torch.nn.init.zeros_(model.exact.gates.bias)
    return model, dataset


@pytest.mark.parametrize("user", ["anna", "ben", "cy"])
def test_a_value_weighs_what_it_adds_to_a_score_that_is_a_sum(exact_films, user):
    model, dataset = exact_films
    told = explain(model, dataset, user)
    assert told.split == "exact"
    items = torch.from_numpy(History.of(dataset, user).items)[None]
    with torch.no_grad():
        state = model.advance(items, torch.tensor([items.shape[1]]))
        (adds,) = model.exact.read(state.hidden[-1], state.values).tolist()
    columns = zip(model.exact.attributes.tolist(), model.exact.entities.tolist(), strict=True)
    entities = dataset.field2id_token["entity_id"]
    parts = {(a, entities[e]): adds[k] for k, (a, e) in enumerate(columns) if k}
    against = 0
    for each in told.recommendations:
        for reason in (*each.reasons, *each.common):
            own = [parts[a, reason.entity] for a in reason.attributes]
            assert min(own) > 0 and reason.weight == pytest.approx(sum(own))
        for reason in each.shared:
            assert all(parts[a, reason.entity] < 0 for a in reason.attributes)
            against += 1
    assert against


def test_the_parts_of_an_attribute_sum_to_its_match(exact_films):
    model, dataset = exact_films
    knowledge, best = Knowledge.of(dataset), np.arange(1, dataset.item_num)
    history, items = torch.tensor([[3, 4, 5]]), torch.from_numpy(best)[None]
    lengths = torch.tensor([3])
    with torch.no_grad():
        state = model.advance(history, lengths)
        scores = model.scores(model.read_state(torch.zeros(1).long(), state), items)
        asked = Candidates.of(model, knowledge, (history, lengths), state, items, scores.numpy())
        terms = match_terms(model, state, items)[0].numpy()
    for a in range(len(knowledge.attributes)):
        found = asked.parts[:, knowledge.attribute_of == a].sum(axis=1).A1
        np.testing.assert_allclose(found, terms[:, a], atol=1e-12)
    np.testing.assert_allclose(asked.rest + terms.sum(axis=1), scores.numpy()[0])
    positive = np.maximum(asked.parts.toarray(), 0).sum(axis=1) + np.maximum(asked.rest, 0)
    np.testing.assert_allclose(asked.in_favour(), positive)


def test_the_parts_of_the_score_sum_to_the_score(toy_config, toy_dataset):
    model = make_model(toy_config(memory_backend="torch", value_matrix="exact"), toy_dataset)
    model.eval()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name.startswith("exact"):
            torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        state = model.advance(torch.tensor([[3, 4, 5], [6, 7, 0]]), torch.tensor([3, 2]))
        items = torch.tensor([[8, 9], [10, 3]])
        terms = match_terms(model, state, items)
        read = model.read_state(torch.zeros(2, dtype=torch.long), state)
        inner = torch.einsum("bd,bkd->bk", model.user_vectors(read), model.item_vectors(items))
        torch.testing.assert_close(inner + terms.sum(-1), model.scores(read, items))
    assert terms.shape == (2, 2, len(model.attributes)) and terms.abs().max() > 0


def test_reasons_are_true_of_item_and_history(tmp_path):
    model, dataset = films_model(write_films(tmp_path / "films"))
    names = 0
    for user, sequence in SEQUENCES.items():
        history = sequence.split()
        for each in explain(model, dataset, user).recommendations:
            for reason in (*each.reasons, *each.common, *each.shared):
                if reason.labels == ("prequel",):
                    continue
                assert reason.entity in FILMS[each.item.id][3]
                having = [(i, len(history) - k) for k, i in enumerate(history)]
                having = [(i, ago) for i, ago in having if reason.entity in FILMS[i][3]]
                assert [(c.item.id, c.ago) for c in reason.chosen] == having[::-1]
                names += 1
            assert all(r.weight > 0 for r in (*each.reasons, *each.common))
            assert all("Japan" not in r.value and "United" not in r.value for r in each.reasons)
    assert names > 10


def test_attributes_that_few_items_have_are_left_out_of_what_is_shown(tmp_path, monkeypatch):
    _, dataset = films_model(write_films(tmp_path / "films"))
    knowledge, attention = Knowledge.of(dataset), np.array([[0.1, 0.1, 0.2, 0.6]])
    assert knowledge.coverage.tolist() == [1, 1, 1, 0.2]
    np.testing.assert_allclose(among_covered(knowledge, attention), attention)
    monkeypatch.setattr(reasons_module, "LEAST_COVERAGE", 0.3)
    np.testing.assert_allclose(among_covered(knowledge, attention), [[0.25, 0.25, 0.5, 0]])


def knowledge_of(*facts: tuple[str, str, list[int]], n: int = 30) -> Knowledge:
    """Of ``n`` items; facts are an attribute, a value and the items that have it."""
    from ksr_recbole.explanation.parts import Attribute
    from ksr_recbole.explanation.value_entities import ValueEntities

    labels = list(dict.fromkeys(label for label, _, _ in facts))
    ranges, of_items, names = [], [], ["[PAD]", *(name for _, name, _ in facts)]
    for label in labels:
        mine = [k for k, fact in enumerate(facts) if fact[0] == label]
        pairs = [(item, c) for c, k in enumerate(mine) for item in facts[k][2]]
        rows, columns = zip(*pairs, strict=True)
        shape = (n + 1, len(mine))
        of_items.append(csr_matrix((np.ones(len(pairs)), (rows, columns)), shape=shape))
        ranges.append(np.array(mine) + 1)
    values = ValueEntities(np.arange(len(labels)), tuple(ranges), tuple(of_items))
    items = [f"i{k}" for k in range(n + 1)]
    titles = [f"Film {k}" for k in range(n + 1)]
    attributes = tuple(Attribute(x, x, 2) for x in labels)
    return Knowledge(values, items, titles, names, names, attributes)


def test_rarity_and_coverage_are_of_the_items_without_padding():
    knowledge = knowledge_of(("genre", "Romance", [1, 2, 3]), ("label", "All", [*range(1, 31)]))
    assert knowledge.rarity.tolist() == pytest.approx([np.log(10), 0])
    assert knowledge.coverage.tolist() == [0.1, 1]


def test_an_attribute_of_just_a_tenth_of_the_items_is_shown():
    knowledge = knowledge_of(
        ("actor", "A", [1, 2, 3]), ("genre", "B", [4, 5]), ("label", "C", [*range(1, 31)])
    )
    attention = among_covered(knowledge, np.array([0.25, 0.5, 0.25]))
    assert attention.tolist() == pytest.approx([0.5, 0, 0.5])


def test_what_was_chosen_once_or_what_a_fifth_of_the_items_have_is_not_often():
    knowledge = knowledge_of(
        ("actor", "Meg Ryan", [1, 2]),
        ("director", "Ann", [2, 3]),
        ("country", "US", [*range(1, 8)]),
    )
    found = often_chosen(knowledge, np.array([1, 2]))
    assert [often.phrase for often in found] == ["with Meg Ryan"]


class Told:
    """A model that says what each fact adds to the score of an item that has it."""

    splits_score = True

    def __init__(self, knowledge: Knowledge, adds: list[float]) -> None:
        facts = np.stack([knowledge.attribute_of, knowledge.entity_of])
        attributes, entities = torch.from_numpy(np.pad(facts, ((0, 0), (1, 0))))
        counts = torch.tensor([[0.0, *adds]])
        self.exact = SimpleNamespace(
            attributes=attributes, entities=entities, counts=lambda hidden, slots: counts
        )
        self.n_attributes = len(knowledge.attributes)

    def attention(self, hidden):
        return torch.ones(len(hidden), self.n_attributes) / self.n_attributes


class State:
    hidden = values = torch.zeros(1, 1, 2)


def reasons_in_words(knowledge, adds, history, item):
    model, asked = Told(knowledge, adds), AskedItems(np.array([item]), np.array([1.0]))
    (told,) = recommendations_of(model, knowledge, np.array(history), State(), asked)
    return told


def test_the_same_fact_from_two_relations_is_one_reason():
    knowledge = knowledge_of(
        ("director (dbo)", "Nora Ephron", [1, 2, 9]),
        ("director (omdb)", "Nora Ephron", [1, 3, 9]),
        ("writer", "Ephron Nora", [2, 9]),
        ("category", "Films directed by Nora Ephron", [1, 2, 3, 9]),
        ("actor", "Meg Ryan", [1, 9]),
        ("genre", "Romance", list(range(1, 20))),
    )
    told = reasons_in_words(knowledge, [5.0, 4, 3, 2, 1, 6], [1, 2, 3], 9)
    ephron, ryan = told.reasons
    assert ephron.value == "Nora Ephron" and ephron.labels == ("director", "writer")
    assert ephron.weight == pytest.approx(12) and ephron.attributes == (0, 1, 2)
    assert [(c.item.title, c.ago) for c in ephron.chosen] == [
        ("Film 3", 1), ("Film 2", 2), ("Film 1", 3),
    ]  # fmt: skip
    assert ryan.phrase == "with Meg Ryan"
    assert [r.phrase for r in told.common] == ["Romance (genre)"]
    assert told.sentence == "Nora Ephron (director, writer), like Film 3 and Film 2."


@pytest.mark.parametrize(("n_with", "common"), [(6, False), (7, True)])
def test_a_value_of_a_fifth_of_the_items_is_not_common_yet(n_with, common):
    knowledge = knowledge_of(("genre", "Romance", [9, *range(1, n_with)]), n=30)
    told = reasons_in_words(knowledge, [1.0], [1], 9)
    assert (bool(told.common), bool(told.reasons)) == (common, not common)


def test_only_the_latest_items_of_a_long_history_are_left_out_in_turn(toy_config, toy_dataset):
    model = make_model(toy_config(), toy_dataset).eval()
    items = torch.tensor([[8, 3, *[5, 7] * (LOOKED_BACK // 2)]])
    items[0, 2] = 4  # the first of the latest
    lengths, candidates = torch.tensor([items.shape[1]]), torch.tensor([[2, 9]])
    with torch.no_grad():
        lost = influences(model, items, lengths, candidates, model.n_items).toarray()
    assert not lost[:, [8, 3]].any() and lost[:, [4, 5, 7]].all()


@pytest.fixture
def left_out(monkeypatch):
    """What items of the history weigh for the first item, instead of asking a model."""

    def weigh(weights: dict[int, float], n_items: int = 31) -> None:
        cells = [*weights.values()], ([0] * len(weights), [*weights])
        lost = csr_matrix(cells, shape=(1, n_items))
        monkeypatch.setattr(Told, "splits_score", False)
        monkeypatch.setattr(reasons_module, "influences", lambda *given: lost)

    return weigh


def test_a_reason_of_several_facts_weighs_each_item_once(left_out):
    """Where weights are what the score loses without an item, they are not the attributes'."""
    knowledge = knowledge_of(
        ("director", "Woody Allen", [1, 2, 9]),
        ("writer", "Woody Allen", [2, 3, 9, 20]),
        ("actor", "Mia Farrow", [2, 9]),
        ("genre", "Romance", list(range(1, 20))),
    )
    left_out({1: 0.5, 2: 0.25, 3: 0.125})
    told = reasons_in_words(knowledge, [1.0] * 4, [1, 2, 3], 9)
    allen, farrow = told.reasons
    assert allen.labels == ("director", "writer") and allen.weight == pytest.approx(0.875)
    # As rare as the more frequent of the two.
    assert allen.n_items == 4 and allen.rarity == pytest.approx(np.log(30 / 4))
    assert farrow.weight == pytest.approx(0.25)


def test_a_sentence_names_what_speaks_for_the_item_the_most_first(left_out):
    knowledge = knowledge_of(("actor", "Meg Ryan", [1, 2, 3, 4, 9]))
    left_out({1: 2.0, 2: 0.5, 3: -1.0, 4: 0.5})
    told = reasons_in_words(knowledge, [0.0], [1, 2, 1, 4, 3], 9)
    (reason,) = told.reasons
    assert [(c.item.title, c.ago) for c in reason.chosen] == [
        ("Film 3", 1), ("Film 4", 2), ("Film 1", 3), ("Film 2", 4), ("Film 1", 5),
    ]  # fmt: skip
    assert reason.sentence == (
        "with Meg Ryan: you chose Film 1, Film 4 and 2 more, the first two 3 and 2 choices ago"
    )
    assert told.sentence == "With Meg Ryan, like Film 1 and Film 4."
    left_out({1: 2.0, 2: -0.5, 3: -1.0, 4: 0.0})
    told = reasons_in_words(knowledge, [0.0], [1, 2, 3], 9)
    assert told.sentence == "With Meg Ryan, like Film 1."
    assert told.reasons[0].sentence.endswith("you chose Film 1 and 2 more, the first 3 choices ago")
    left_out({1: -2.0, 2: -0.5})
    told = reasons_in_words(knowledge, [0.0], [1, 2], 9)  # none speaks for it: the latest first
    assert told.shared[0].sentence.endswith("you chose Film 2 and Film 1, 1 and 2 choices ago")


@pytest.mark.parametrize("split", [True, False])
def test_an_item_is_no_reason_for_itself(left_out, split):
    knowledge = knowledge_of(("actor", "Meg Ryan", [1, 2, 9]), ("director", "Ann", [2, 3]))
    if not split:
        left_out({1: 2.0, 2: 5.0})
    told = reasons_in_words(knowledge, [3.0, 4.0], [2, 1, 2], 2)  # asked for, though chosen twice
    (reason,) = told.reasons
    assert [c.item.title for c in reason.chosen] == ["Film 1"]
    assert reason.weight == (3 if split else 2)
    assert told.sentence == "With Meg Ryan, like Film 1."
    alone = reasons_in_words(knowledge, [3.0, 4.0], [2, 2], 2)
    assert alone.reasons == alone.shared == ()


def test_what_does_not_speak_for_an_item_is_not_called_a_reason():
    knowledge = knowledge_of(("actor", "Meg Ryan", [1, 9]), ("director", "Somebody", [2, 3]))
    told = reasons_in_words(knowledge, [-1.0, 5.0], [1, 2], 9)
    assert told.reasons == () and [r.value for r in told.shared] == ["Meg Ryan"]
    assert told.sentence == f"{NOT_THE_MODELS}: with Meg Ryan."
    nothing = reasons_in_words(knowledge, [1.0, 1.0], [4], 9)
    assert nothing.sentence.startswith("It shares nothing")


def test_one_name_on_one_attribute_twice_weighs_both():
    knowledge = knowledge_of(("actor", "Ann Lee", [1, 9]), ("actor", "Lee Ann", [2, 9]))
    (reason,) = reasons_in_words(knowledge, [1.0, 2.0], [1, 2], 9).reasons
    assert reason.weight == pytest.approx(3) and reason.attributes == (0,)
    assert reason.attention == pytest.approx(1)


def test_a_reason_of_several_values_stands_where_all_of_them_put_it():
    """Each of hers weighs less than the thriller, both together more."""
    films = [("genre", "Thriller", [1, 9]), ("director", "May Lin", [2, 9])]
    films += [("writer", "May Lin", [2, 9]), ("label", "A", [3, 9]), ("studio", "B", [4, 9])]
    told = reasons_in_words(knowledge_of(*films), [5.0, 4, 4, 4.5, 4.2], [1, 2, 3, 4], 9)
    weights = [reason.weight * reason.rarity for reason in told.reasons]
    assert told.reasons[0].value == "May Lin" and told.reasons[0].weight == pytest.approx(8)
    assert weights == sorted(weights, reverse=True)
    assert told.sentence == "May Lin (director, writer), like Film 2."


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["director"], "directed by {Ann} B"),
        (["brand"], "brand: {Ann} B"),
        (["artist"], "by {Ann} B"),
        (["director", "actor"], "{Ann} B (director, actor)"),
    ],
)
def test_values_in_words(labels, said):
    assert phrase_of(labels, "{Ann} B") == said
    assert phrase_of(["price"], "price 10 to 20") == "price 10 to 20"
    assert phrase_of(["a{}b"], "V") == "a{}b: V"


def test_sentences_and_labels():
    chosen = [Chosen(Item(str(k), f"F{k}"), ago) for k, ago in enumerate((1, 5, 12, 40))]
    said = [sentence_of("with Ann", chosen[:n], chosen[: min(n, 2)]) for n in (1, 2, 4)]
    said.append(sentence_of("with Ann", chosen[:3], [chosen[2], chosen[0]]))
    said.append(sentence_of("with Ann", chosen[:3], chosen[1:2]))
    assert said == [
        "with Ann: you chose F0, 1 choice ago",
        "with Ann: you chose F0 and F1, 1 and 5 choices ago",
        "with Ann: you chose F0, F1 and 2 more, the first two 1 and 5 choices ago",
        "with Ann: you chose F2, F0 and 1 more, the first two 12 and 1 choices ago",
        "with Ann: you chose F1 and 2 more, the first 5 choices ago",
    ]
    again = [Chosen(Item("a", "Song"), ago) for ago in (2, 3, 9)]  # it was played three times
    assert sentence_of("by Ann", again, again[:1]) == "by Ann: you chose Song, 2 choices ago"
    assert plain_label("director (dbo)") == plain_label("directed by") == "director"
    assert plain_label("shelf (big)") == "shelf"


def test_a_film_that_the_catalogue_has_twice_is_named_once():
    twice = [Chosen(Item("246", "Chasing Amy"), 2), Chosen(Item("268", "Chasing Amy"), 5)]
    other = Chosen(Item("7", "Clerks"), 9)
    assert _once([*twice, other]) == [twice[0], other]
