"""Value entities (Sec. 5.4): the entities that items have on each attribute, and their ranking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from ksr_recbole.dataset.item_values import Facts, facts_of_items
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset

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
        facts = facts_of_items(dataset.triples, dataset.attributes, dataset.item_entities)
        return cls.of_facts(facts, dataset.attributes, len(dataset.item_entities))

    @classmethod
    def of_facts(cls, facts: Facts, attributes: np.ndarray, n_items: int) -> ValueEntities:
        """The value entities in facts.

        Args:
            facts: every fact once.
            attributes: relation ids of the attributes, ``int64 [A]``.
            n_items: number of items with the padding item.
        """
        ranges, of_items = [], []
        for a in range(len(attributes)):
            mine = facts.attributes == a
            found, columns = np.unique(facts.entities[mine], return_inverse=True)
            cells = (np.ones(len(columns)), (facts.items[mine], columns))
            of_items.append(csr_matrix(cells, shape=(n_items, len(found))))
            ranges.append(found.astype(np.int64))
        return cls(attributes, tuple(ranges), tuple(of_items))


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
