"""Reverse relations and attributes, on small graphs whose answer is known or found by loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_atomic import attributes
from dataset_atomic.attributes import attribute_relations, repeated_relations, reverse_relations


def columns(triples: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    heads, relations, tails = np.array(triples, dtype=np.int64).reshape(-1, 3).T
    return heads, relations, tails


def test_a_reverse_is_found_from_both_sides():
    triples = [(h, 0, t) for h, t in [(1, 5), (2, 6), (3, 7)]]
    triples += [(t, 1, h) for h, _, t in triples]
    assert reverse_relations(*columns(triples), n_relations=2).tolist() == [1, 0]


def test_a_symmetric_relation_is_its_own_reverse():
    triples = [(1, 0, 2), (2, 0, 1), (3, 0, 4), (4, 0, 3)]
    assert reverse_relations(*columns(triples), n_relations=1).tolist() == [0]


def test_relations_without_a_reverse_and_without_triples():
    triples = [(1, 0, 2), (2, 2, 3)]
    assert reverse_relations(*columns(triples), n_relations=4).tolist() == [-1, -1, -1, -1]


def test_an_empty_graph_has_no_reverses():
    assert reverse_relations(*columns([]), n_relations=3).tolist() == [-1, -1, -1]


def test_the_overlap_must_hold_for_both_sides():
    wide = [(h, 0, 100 + h) for h in range(20)]
    narrow = [(t, 1, h) for h, _, t in wide[:10]]  # all of it is reversed, but half of the other
    assert reverse_relations(*columns(wide + narrow), n_relations=2).tolist() == [-1, -1]
    assert reverse_relations(*columns(wide + narrow), 2, min_overlap=0.5).tolist() == [1, 0]


def test_the_overlap_may_just_reach_the_threshold():
    wide = [(h, 0, 100 + h) for h in range(10)]
    nine = [(t, 1, h) for h, _, t in wide[:9]]
    assert reverse_relations(*columns(wide + nine), n_relations=2).tolist() == [1, 0]


def test_repeated_triples_count_once():
    triples = [(1, 0, 5), (2, 0, 6), (5, 1, 1), (6, 1, 2)] + [(9, 0, 1)] * 1
    once = reverse_relations(*columns(triples), n_relations=2, min_overlap=0.6)
    many = reverse_relations(*columns(triples + [(9, 0, 1)] * 50), 2, min_overlap=0.6)
    assert once.tolist() == many.tolist() == [1, 0]


def test_the_largest_overlap_wins_and_reverses_stay_mutual():
    pairs = [(h, 100 + h) for h in range(20)]
    triples = [(h, 0, t) for h, t in pairs]
    triples += [(t, 1, h) for h, t in pairs[:19]]  # 95 % of relation 0
    triples += [(t, 2, h) for h, t in pairs]  # all of it
    assert reverse_relations(*columns(triples), n_relations=3).tolist() == [2, -1, 0]


def reverse_by_loops(triples, n_relations, min_overlap):
    pairs = [{(h, t) for h, r, t in triples if r == relation} for relation in range(n_relations)]
    candidates = []
    for a in range(n_relations):
        for b in range(a, n_relations):
            both = len({(t, h) for h, t in pairs[a]} & pairs[b])
            if both and both / max(len(pairs[a]), len(pairs[b])) >= min_overlap:
                candidates.append((-both / max(len(pairs[a]), len(pairs[b])), a, b))
    reverse = [-1] * n_relations
    for _, a, b in sorted(candidates):
        if reverse[a] == reverse[b] == -1:
            reverse[a], reverse[b] = b, a
    return reverse


triple_lists = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 4)), max_size=40
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(triples=triple_lists, min_overlap=st.sampled_from([0.3, 0.5, 0.9, 1.0]))
def test_reverses_agree_with_loops(triples, min_overlap):
    reverse = reverse_relations(*columns(triples), 4, min_overlap)
    assert reverse.dtype == np.int64
    assert reverse.tolist() == reverse_by_loops(triples, 4, min_overlap)
    found = np.flatnonzero(reverse >= 0)
    assert (reverse[reverse[found]] == found).all()


def test_entity_ids_beyond_32_bits_of_pairs():
    big = 3_000_000
    triples = [(big, 0, 1), (big - 1, 0, 2), (1, 1, big), (2, 1, big - 1)]
    assert reverse_relations(*columns(triples), n_relations=2).tolist() == [1, 0]


ITEMS = np.arange(10)
"""Entities 0..9 are items in the tests below; 100 and above are not."""


def test_only_the_direction_that_leaves_the_items_is_an_attribute():
    directed_by = [(item, 1, 100 + item % 3) for item in range(10)]
    films_of = [(person, 2, item) for item, _, person in directed_by]
    found = attribute_relations(*columns(directed_by + films_of), 4, ITEMS)
    assert found.tolist() == [1]


def test_a_few_items_at_the_reverse_side_make_no_attribute():
    # One of ten subjects is an item: the share alone (0.1) would admit the reverse side.
    subjects = [(item, 0, 100 + item) for item in range(9)] + [(9, 0, 3)]
    subject_of = [(t, 1, h) for h, _, t in subjects]
    assert attribute_relations(*columns(subjects + subject_of), 2, ITEMS).tolist() == [0]


def test_prequel_and_sequel_are_both_attributes():
    # Of ten sequels in the graph, half are items; all ten prequels are.
    prequel = [(item, 0, (item + 1) % 10) for item in range(5)]
    prequel += [(100 + item, 0, item) for item in range(5)]
    sequel = [(t, 1, h) for h, _, t in prequel]
    assert attribute_relations(*columns(prequel + sequel), 2, ITEMS).tolist() == [0, 1]


def test_a_symmetric_relation_between_items_is_an_attribute():
    remake = [(1, 0, 2), (2, 0, 1)]
    assert attribute_relations(*columns(remake), 1, ITEMS).tolist() == [0]


@pytest.mark.parametrize(("n_items", "expected"), [(1, [0]), (0, [])])
def test_the_share_of_item_heads(n_items, expected, monkeypatch):
    triples = [(item, 0, 200) for item in range(n_items)]
    triples += [(100 + k, 0, 200) for k in range(10 - n_items)]
    assert attribute_relations(*columns(triples), 1, ITEMS).tolist() == expected
    monkeypatch.setattr(attributes, "ITEM_SHARE", 0.2)
    assert attribute_relations(*columns(triples), 1, ITEMS).tolist() == []


def test_no_attribute_is_an_empty_array():
    found = attribute_relations(*columns([(100, 0, 1)]), 3, ITEMS)
    assert found.dtype == np.int64 and found.tolist() == []
    assert attribute_relations(*columns([]), 3, ITEMS).tolist() == []


def test_a_reverse_that_adds_facts_is_an_attribute():
    heads, tails, names = np.array([1, 2, 5, 6]), np.array([3, 4, 1, 2]), ["[PAD]", "x", "y"]
    heads, tails = np.concatenate([heads, tails]), np.concatenate([tails, heads])
    relations = np.array([1, 1, 2, 2, 3, 3, 4, 4])
    found = repeated_relations(heads, relations, tails, [*names, "x_r", "y_r"])
    assert found.tolist() == []
    tails[relations == 4], heads[relations == 4] = [3, 4], [1, 2]  # y_r says what x says
    assert repeated_relations(heads, relations, tails, [*names, "x_r", "y_r"]).tolist() == [4]
    assert repeated_relations(heads, relations, tails, [*names, "x_r", "y_s"]).tolist() == []
    # x says all that y_r does, and as much again.
    heads, tails = np.array([1, 2, 3, 1]), np.array([3, 4, 1, 3])
    names = ["x", "y", "y_r"]
    assert repeated_relations(heads, np.array([0, 0, 1, 2]), tails, names).tolist() == []
    # RecBole makes a reverse of a relation that is there.
    names, relations = ["x", "z_r"], np.array([0, 0, 1, 1])
    heads, tails = np.array([1, 2, 1, 2]), np.array([3, 4, 3, 4])
    assert repeated_relations(heads, relations, tails, names).tolist() == []
    assert repeated_relations(heads, relations, tails, ["x", "x_r"]).tolist() == [1]
