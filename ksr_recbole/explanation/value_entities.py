"""Value entities (Sec. 5.4): the entities that items have on each attribute, and their ranking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.dataset.sequences import ragged_ranges

_CELLS = 1 << 22
"""Cells of an array over users that are computed at a time, which bounds the memory."""


@dataclass(frozen=True, eq=False)
class ValueEntities:
    """Which entities each item has on each attribute.

    ``E_a`` is the number of different entities on attribute ``a``: its range, the candidates of
    the ranking of Sec. 5.4.

    Attributes:
        attributes: relation ids in the model's order, ``int64 [A]``.
        ranges: by attribute, the entity ids of its range, ascending, ``int64 [E_a]``.
        of_items: by attribute, a sparse ``float64 [n_items, E_a]`` with 1 where the item has the
            entity; row 0 (padding) is empty.
    """

    attributes: np.ndarray
    ranges: tuple[np.ndarray, ...]
    of_items: tuple[csr_matrix, ...]

    @classmethod
    def of(cls, dataset: KGSequenceDataset) -> ValueEntities:
        """The value entities of a dataset: tails of the triples whose heads are items."""
        ranges, of_items = [], []
        heads, relations, tails = dataset.triples.T
        for attribute in dataset.attributes:
            rows = relations == attribute
            items, entities = _items_with(dataset.item_entities, heads[rows], tails[rows])
            found, columns = np.unique(entities, return_inverse=True)
            shape = (len(dataset.item_entities), len(found))
            matrix = csr_matrix((np.ones(len(items)), (items, columns)), shape=shape)
            matrix.data[:] = 1  # a triple listed twice is one
            ranges.append(found)
            of_items.append(matrix)
        return cls(dataset.attributes, tuple(ranges), tuple(of_items))


def _items_with(
    item_entities: np.ndarray, heads: np.ndarray, tails: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Items and tails of the triples whose head is the item's entity (items may share one)."""
    items = np.arange(1, len(item_entities))
    by_entity = items[np.argsort(item_entities[1:], kind="stable")]
    ordered = item_entities[by_entity]
    first = np.searchsorted(ordered, heads, side="left")
    counts = np.searchsorted(ordered, heads, side="right") - first
    return by_entity[ragged_ranges(first, counts)], np.repeat(tails, counts)


def l1_distances(values: Tensor, entities: Tensor) -> Tensor:
    """L1 distance of value vectors ``[B, E]`` to entity vectors ``[n, E]``: ``[B, n]`` (Sec. 5.4).

    The smaller the distance, the more the user prefers the entity.
    """
    return torch.cdist(values, entities, p=1)


def batches(stop: int, columns: int, start: int = 0) -> Iterator[slice]:
    """Slices of ``start..stop``, so that an array with as many rows and ``columns`` is not large.

    A single row may be.
    """
    size = max(1, _CELLS // max(1, columns))
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))
