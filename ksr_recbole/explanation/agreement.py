"""On which attributes an item agrees with the items before it: shares an entity with one."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from ksr_recbole.dataset.sequences import Split, UserSequences, ragged_positions
from ksr_recbole.explanation.value_entities import ValueEntities

_ROWS = 1 << 15
"""Rows of training interactions looked at together, which bounds the memory."""


def items_before(
    sequences: UserSequences, users: np.ndarray, begin: np.ndarray, end: np.ndarray
) -> csr_matrix:
    """How often each item is at positions ``begin[k]..end[k]`` (exclusive) of ``users[k]``.

    Returns:
        ``float64 [len(users), n_items]``, sparse.
    """
    rows, _ = ragged_positions(np.maximum(end - begin, 0))
    items = sequences.items[sequences.spans(users, begin, end)]
    shape = (len(users), sequences.n_items)
    return csr_matrix((np.ones(len(items)), (rows, items)), shape=shape)


def agreement(entities: ValueEntities, items: np.ndarray, before: csr_matrix) -> np.ndarray:
    """Whether ``items[k]`` shares an entity with an item of row ``k``, by attribute.

    Args:
        entities: the value entities.
        items: item ids, ``int64 [N]``.
        before: from :func:`items_before`, ``[N, n_items]``.

    Returns:
        ``bool [N, A]``; an item without entities on an attribute agrees on it with none.
    """
    columns = [
        (before @ of_items).multiply(of_items[items]).tocsr().getnnz(axis=1) > 0
        for of_items in entities.of_items
    ]
    return np.stack(columns, axis=1)


def training_agreement(
    entities: ValueEntities, sequences: UserSequences, split: Split, window: int
) -> np.ndarray:
    """How often training items agree with one of the ``window`` before them, ``float64 [A]``.

    Over all training interactions but each user's first; nothing else is looked at.
    """
    indices, users = split.training_interactions(sequences)
    position, start = indices - sequences.offsets[users], split.train_start[users]
    later = position > start
    indices, users, position, start = (x[later] for x in (indices, users, position, start))
    begin = np.maximum(start, position - window)
    agreeing = np.zeros(len(entities.attributes))
    for first in range(0, len(indices), _ROWS):
        part = slice(first, first + _ROWS)
        before = items_before(sequences, users[part], begin[part], position[part])
        agreeing += agreement(entities, sequences.items[indices[part]], before).sum(axis=0)
    return agreeing / len(indices)
