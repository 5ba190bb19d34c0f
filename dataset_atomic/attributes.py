"""Which relations of a knowledge graph are attributes of the items (Sec. 4.2.1-4.2.2).

The memory of KSR has one slot per attribute, keyed by a relation's embedding.  A Freebase
subgraph states most facts twice, ``(film, directed_by, person)`` and ``(person, film, film)``;
only the direction that leaves the item describes it, since Eq. 7 adds the relation to the
*item's* embedding (``e_i + r_a`` approximates the tail).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

ITEM_SHARE = 0.1
"""Share of a relation's triples with items as heads from which it is one of the items'."""

SAME_FACTS = 0.9
"""Share of the pairs of two relations, of either, from which both state the same facts."""

REVERSE_SIDE_RATIO = 0.25
"""Below this ratio of item heads to its reverse's item heads, a relation is the reverse side."""


def reverse_relations(
    heads: np.ndarray,
    relations: np.ndarray,
    tails: np.ndarray,
    n_relations: int,
    min_overlap: float = SAME_FACTS,
) -> np.ndarray:
    """The reverse of every relation, or -1.

    ``r'`` is the reverse of ``r`` if at least ``min_overlap`` of the distinct (head, tail)
    pairs of *both* are (tail, head) pairs of the other.  A relation has at most one reverse and
    ``reverse[reverse[r]] == r``; a symmetric relation (spouse) is its own.  If several fit, the
    largest overlap wins, and the smaller ids among equals.

    Args:
        heads: head entity of every triple, ``int [n_triples]``.
        relations: its relation, in ``[0, n_relations)``, ``int [n_triples]``.
        tails: its tail entity, ``int [n_triples]``.
        n_relations: number of relation ids (with padding, where there is one).
        min_overlap: share of pairs that must coincide, in ``(0, 1]``.

    Returns:
        ``int64 [n_relations]``.
    """
    forward, backward = _pair_incidence(heads, relations, tails, n_relations)
    # overlap[r, r'] = number of r's pairs that r' holds the other way round; symmetric.
    overlap = sparse.triu(forward.T @ backward, format="coo")
    sizes = np.asarray(forward.sum(axis=0)).ravel()
    share = overlap.data / np.maximum(sizes[overlap.row], sizes[overlap.col])

    fits = share >= min_overlap
    left, right, share = overlap.row[fits], overlap.col[fits], share[fits]
    reverse = np.full(n_relations, -1, dtype=np.int64)
    # A greedy matching over the few candidate pairs, best first.
    for k in np.lexsort((right, left, -share)):
        if reverse[left[k]] == reverse[right[k]] == -1:
            reverse[left[k]], reverse[right[k]] = right[k], left[k]
    return reverse


def repeated_relations(
    heads: np.ndarray,
    relations: np.ndarray,
    tails: np.ndarray,
    names: list[str],
) -> np.ndarray:
    """Relations that RecBole's ``kg_reverse_r`` made (``r_r`` of ``r``) of facts stated already.

    That is where the graph has both directions itself: ``(film, genre, drama)`` and ``(drama,
    films, film)``, of which ``films_r`` says the former again.

    Args:
        heads: head entity of every triple, ``int [n_triples]``.
        relations: its relation, ``int [n_triples]``.
        tails: its tail entity, ``int [n_triples]``.
        names: of the relations, by id.

    Returns:
        Relation ids, ``int64``.
    """
    made = [r for r, name in enumerate(names) if name.endswith("_r") and name[:-2] in names]
    if not made:
        return np.zeros(0, np.int64)
    forward, _ = _pair_incidence(heads, relations, tails, len(names))
    sizes = np.asarray(forward.sum(axis=0)).ravel()
    stated = np.setdiff1d(np.arange(len(names)), made)
    overlap = (forward[:, made].T @ forward[:, stated]).toarray()
    share = overlap / np.maximum(np.maximum.outer(sizes[made], sizes[stated]), 1)
    return np.array(made, np.int64)[(share >= SAME_FACTS).any(axis=1)]


def attribute_relations(
    heads: np.ndarray,
    relations: np.ndarray,
    tails: np.ndarray,
    n_relations: int,
    item_entities: np.ndarray,
) -> np.ndarray:
    """The attributes A of the memory: the relations whose heads are items.

    Let ``n(r)`` be the number of ``r``'s triples with an item as head.  ``r`` is an attribute if

    1. ``n(r) >= 1`` and ``n(r)`` is at least :data:`ITEM_SHARE` of ``r``'s triples, and
    2. it is not the reverse side of a pair: if ``r`` has a reverse ``r' != r``, ``n(r)`` is at
       least :data:`REVERSE_SIDE_RATIO` times ``n(r')``.

    A few films are also the subject of films, which does not make ``film_subject.films`` an
    attribute; but of ``prequel`` and ``sequel`` both are, as items are heads of either.

    Args:
        heads: head entity of every triple, ``int [n_triples]``.
        relations: its relation, in ``[0, n_relations)``, ``int [n_triples]``.
        tails: its tail entity, ``int [n_triples]``.
        n_relations: number of relation ids.
        item_entities: entity ids that are linked to items, in any order, ``int [n_items]``.

    Returns:
        Relation ids in ascending order, ``int64 [A]``; empty if no relation leaves an item,
        which the caller should report.
    """
    is_item_head = np.isin(heads, item_entities)
    n_triples = np.bincount(relations, minlength=n_relations)
    n_item_heads = np.bincount(relations[is_item_head], minlength=n_relations)
    leaves_items = (n_item_heads > 0) & (n_item_heads >= ITEM_SHARE * n_triples)

    # A relation without a reverse is compared with itself, which it always survives.
    reverse = reverse_relations(heads, relations, tails, n_relations)
    partner = np.where(reverse == -1, np.arange(n_relations), reverse)
    is_front_side = n_item_heads >= REVERSE_SIDE_RATIO * n_item_heads[partner]
    return np.flatnonzero(leaves_items & is_front_side)


def _pair_incidence(
    heads: np.ndarray, relations: np.ndarray, tails: np.ndarray, n_relations: int
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Which relation holds which pair of entities, read forwards and read backwards.

    Returns:
        Two 0/1 matrices ``int64 [n_pairs, n_relations]`` over the same pairs ``(a, b)``:
        whether ``(a, r, b)`` is a triple, and whether ``(b, r, a)`` is one.
    """
    heads, tails = np.asarray(heads, dtype=np.int64), np.asarray(tails, dtype=np.int64)
    n_entities = max(heads.max(initial=-1), tails.max(initial=-1)) + 1
    both_ways = np.concatenate([heads * n_entities + tails, tails * n_entities + heads])
    pairs, index = np.unique(both_ways, return_inverse=True)

    def incidence(pair_index: np.ndarray) -> sparse.csr_matrix:
        shape = (len(pairs), n_relations)
        ones = np.ones(len(pair_index), dtype=np.int64)
        matrix = sparse.csr_matrix((ones, (pair_index, relations)), shape=shape)
        matrix.data[:] = 1  # a repeated triple was summed to 2
        return matrix

    return incidence(index[: len(heads)]), incidence(index[len(heads) :])
