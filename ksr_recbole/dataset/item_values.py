"""The values that items have under the attributes of a knowledge graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from ksr_recbole.dataset.sequences import ragged_positions, sorted_distinct

_SAMPLED = 1000
"""At least as many items, if there are, and less than twice as many: their pairs tell how large an
attribute's matches are."""


@dataclass(frozen=True)
class ItemValues:
    """The values that items have, as a sparse matrix of items and values.

    A *value* is an entity under an attribute: a person is one value as director and another as
    writer.  Values that only one item has match no other item and are left out.  Column 0 is no
    value: every item has it, so that in a slot it counts the items.

    Attributes:
        starts: where each item's values begin in ``columns``, ``int64 [n_items + 1]``.
        columns: the values of each item, rising, ``int64 [n]``.
        attributes: position in A of each column's attribute, rising, 0 for column 0, ``int64 [V]``.
        entities: entity id of each column, 0 for column 0, ``int64 [V]``.
        weights: what a match in a column counts, 0 for column 0, ``float32 [V]``: the logarithm
            of the items per item that has the value (idf), over the root mean square of the
            attribute's matches between items.
    """

    starts: np.ndarray
    columns: np.ndarray
    attributes: np.ndarray
    entities: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(
        cls, triples: np.ndarray, attributes: np.ndarray, item_entities: np.ndarray
    ) -> ItemValues:
        """The values in a graph.

        Args:
            triples: head, relation and tail ids, ``int64 [n_triples, 3]``.
            attributes: relation ids of the attributes, ``int64 [A]``.
            item_entities: entity id of every item, padding first, ``int64 [n_items]``.
        """
        facts = facts_of_items(triples, attributes, item_entities)
        items, slots, tails = facts.items, facts.attributes, facts.entities
        n_entities = int(tails.max(initial=0)) + 1
        pairs, value, counts = np.unique(
            slots * n_entities + tails, return_inverse=True, return_counts=True
        )
        shared = counts > 1
        number = np.where(shared, np.cumsum(shared), 0)[value]
        kept = number > 0
        items, columns = items[kept], number[kept]
        every = np.arange(1, len(item_entities))  # column 0, which padding has not
        items = np.concatenate([every, items])
        columns = np.concatenate([np.zeros_like(every), columns])
        order = np.lexsort((columns, items))
        held = cls(
            np.searchsorted(items[order], np.arange(len(item_entities) + 1)),
            columns[order],
            np.concatenate([[0], pairs[shared] // n_entities]).astype(np.int64),
            np.concatenate([[0], pairs[shared] % n_entities]).astype(np.int64),
            np.zeros(1 + int(shared.sum()), np.float32),
        )
        return held._weighted(len(every), np.concatenate([[len(every)], counts[shared]]))

    def _weighted(self, n_items: int, counts: np.ndarray) -> ItemValues:
        idf = np.log(n_items / counts)
        matrix = self._matrix(np.arange(1, n_items + 1, max(1, n_items // _SAMPLED)))
        weights = np.zeros(len(idf), np.float32)
        for a in np.unique(self.attributes[1:]):
            columns = 1 + np.flatnonzero(self.attributes[1:] == a)
            part = matrix[:, columns]
            match = part.multiply(idf[columns]).tocsr() @ part.T
            squares = match.multiply(match).sum() - np.square(match.diagonal()).sum()
            size = np.sqrt(max(squares, 0) / max(1, match.shape[0] * (match.shape[0] - 1)))
            weights[columns] = idf[columns] / (size if size > 0 else 1.0)
        return replace(self, weights=weights)

    def _matrix(self, items: np.ndarray) -> Any:
        shape = (len(self.starts) - 1, len(self.attributes))
        ones = np.ones(len(self.columns))
        return sparse.csr_matrix((ones, self.columns, self.starts), shape=shape)[items]


@dataclass(frozen=True)
class Facts:
    """Which value entities items have: one row for each item, attribute and entity.

    All are ``int64 [m]``, in a model directory ``int32 [m]``.

    Attributes:
        items: item ids.
        attributes: positions in the model's attributes.
        entities: entity ids.
    """

    items: np.ndarray
    attributes: np.ndarray
    entities: np.ndarray


def facts_of_items(triples: np.ndarray, attributes: np.ndarray, item_entities: np.ndarray) -> Facts:
    """Every fact of a graph once; for the arguments see :meth:`ItemValues.of`."""
    heads, relations, tails = triples.T
    slot_of = np.full(max(int(relations.max(initial=0)), int(attributes.max(initial=0))) + 1, -1)
    slot_of[attributes] = np.arange(len(attributes))
    chosen = slot_of[relations] >= 0
    heads, slots, tails = heads[chosen], slot_of[relations[chosen]], tails[chosen]
    order = np.argsort(item_entities[1:], kind="stable") + 1
    owned = item_entities[order]  # several items may have one entity
    first, last = (np.searchsorted(owned, heads, side) for side in ("left", "right"))
    times = last - first
    fact, within = ragged_positions(times)
    # One number for each fact: to sort columns of three takes many times as long.
    n_slots, n_tails = len(attributes), int(tails.max(initial=0)) + 1
    codes = (order[first[fact] + within] * n_slots + slots[fact]) * n_tails + tails[fact]
    rows, tails = np.divmod(sorted_distinct(codes), n_tails)
    return Facts(rows // n_slots, rows % n_slots, tails)
