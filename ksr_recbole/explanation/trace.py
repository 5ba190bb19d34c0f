"""One user's memory step by step, and the rankings of value entities read from it (Sec. 5.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from torch import Tensor

from ksr_recbole.explanation.cases import batches
from ksr_recbole.explanation.value_entities import ValueEntities, l1_distances
from ksr_recbole.model.ksr import KSR
from ksr_recbole.model.packing import Packing
from ksr_recbole.model.sequence_recommender import SequenceState

_BLOCK = 64
"""Steps of one forward pass, in which step k is the k-th of as many prefixes."""


@dataclass(frozen=True, eq=False)
class Trace:
    """A user's memory after each of the last ``S`` steps.

    Attributes:
        attention: Eq. 6, ``[S, A]``.
        values: value matrices (Eq. 9, or the shared one), ``[S, A, E]``.
        state: the state after the last step, of one row.
    """

    attention: Tensor
    values: Tensor
    state: SequenceState

    @classmethod
    def of(cls, model: KSR, items: Tensor, steps: int) -> Trace:
        """Read ``items`` ``int64 [T]`` and keep the last ``steps`` of the ``T`` steps."""
        before = len(items) - min(steps, len(items))
        state = model.initial_state(1)
        if before:
            state = model.write(
                items[:before], Packing.of(torch.tensor([before], device=items.device)), state
            )
        attention, values = [], []
        for block in items[before:].split(_BLOCK):
            states = _after_each(model, block, state)
            attention.append(model.attention(states.hidden[-1]))
            values.append(model.value_matrices(states))
            state = SequenceState(states.hidden[:, -1:].contiguous(), states.values[-1:])
        return cls(torch.cat(attention), torch.cat(values), state)


def _after_each(model: KSR, items: Tensor, state: SequenceState) -> SequenceState:
    """The state after each of ``items [n]`` read from ``state``: ``n`` rows in one pass."""
    n = len(items)
    packing = Packing.of(torch.arange(1, n + 1, device=items.device))
    repeated = SequenceState(
        state.hidden.expand(-1, n, -1).contiguous(),
        state.values.repeat_interleave(n, dim=0),
    )
    packed = packing.pack(items.expand(n, n))
    return model.write(packed, packing, repeated).to_rows(packing)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The range of one attribute ranked at each of ``S`` steps; entities are range positions.

    Attributes:
        nearest: the first ``k`` entities, ``int64 [S, k]``.
        nearest_distances: their distances, ``[S, k]``.
        right_steps: step of each right entity, ``int64 [m]``, ascending.
        right: the right entities, ``int64 [m]``.
        right_ranks: their ranks from 1, ``int64 [m]``.
        right_distances: their distances, ``[m]``.
    """

    nearest: np.ndarray
    nearest_distances: np.ndarray
    right_steps: np.ndarray
    right: np.ndarray
    right_ranks: np.ndarray
    right_distances: np.ndarray


def rank_values(
    model: KSR, found: ValueEntities, values: Tensor, next_items: np.ndarray, top: int
) -> list[Ranking]:
    """Rank each attribute's range by the distance to the value vector (Sec. 5.4).

    Args:
        model: gives the entities' vectors.
        found: the ranges.
        values: value matrices after each step, ``[S, A, E]``.
        next_items: the item chosen after each step, 0 if not known, ``int64 [S]``; its
            entities are the right ones.
        top: how many entities to keep.

    Returns:
        A ranking for each attribute; of equal distances the smaller entity id comes first.
    """
    rankings = []
    for a, entities in enumerate(found.ranges):
        vectors = model.entity_vectors(torch.from_numpy(entities).to(values.device))
        right = found.of_items[a][next_items].tocoo()
        blocks = [
            _rank_block(values[block, a], vectors, top, right, block.start)
            for block in batches(len(values), len(entities))
        ]
        rankings.append(Ranking(*(np.concatenate(part) for part in zip(*blocks, strict=True))))
    return rankings


def _rank_block(
    values: Tensor, vectors: Tensor, top: int, right: coo_matrix, start: int
) -> tuple[np.ndarray, ...]:
    """The fields of a :class:`Ranking` for the steps ``start, start + 1, ...`` of ``values``."""
    distances = l1_distances(values, vectors)
    order = distances.argsort(dim=1, stable=True)
    ranks = order.argsort(dim=1) + 1
    nearest = order[:, :top]
    within = (right.row >= start) & (right.row < start + len(values))
    steps, columns = right.row[within], right.col[within]
    cells = torch.from_numpy(steps - start).long(), torch.from_numpy(columns).long()
    return (
        nearest.cpu().numpy(),
        distances.gather(1, nearest).cpu().numpy(),
        steps,
        columns,
        ranks.cpu()[cells].numpy(),
        distances.cpu()[cells].numpy(),
    )
