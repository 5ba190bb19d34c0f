"""One user's history, the memory after each step of it, and the value entities read from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_matrix
from torch import Tensor

from dataset_atomic.raw.timestamps import SECONDS_BELOW, UNITS
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.errors import UserError
from ksr_recbole.explanation.value_entities import ValueEntities, batches, l1_distances
from ksr_recbole.model.kernels.packing import Packing
from ksr_recbole.model.ksr import KSR
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
        for block in items[before:].split(_BLOCK) if steps else ():
            states = _after_each(model, block, state)
            attention.append(model.attention(states.hidden[-1]))
            values.append(model.value_matrices(states))
            state = states.of_users(slice(-1, None))
        if not attention:
            return cls.at(model, state)
        return cls(torch.cat(attention), torch.cat(values), state)

    @classmethod
    def at(cls, model: KSR, state: SequenceState) -> Trace:
        """A state of one row, with no step before it."""
        nothing = model.attention(state.hidden[-1])[:0], model.value_matrices(state)[:0]
        return cls(*nothing, state)


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


@dataclass(frozen=True, eq=False)
class History:
    """A user's interactions, held-out ones too.

    Attributes:
        items: item ids in the order of time, ``int64 [T]``.
        timestamps: as in the ``.inter`` file, ``float64 [T]``; none where they are not known.
        seen: item ids of these and of what ``train_ratio`` leaves out before them.
    """

    items: np.ndarray
    timestamps: np.ndarray
    seen: np.ndarray

    @classmethod
    def of(cls, dataset: KGSequenceDataset, user: str) -> History:
        """The history of a user of a built dataset.

        Raises:
            UserError: there is no such user.
        """
        known = dataset.field2token_id[dataset.uid_field]
        number = known.get(str(user), 0)
        if number == 0:
            path = Path(dataset.dataset_path) / f"{dataset.dataset_name}.inter"
            examples = ", ".join(map(str, dataset.field2id_token[dataset.uid_field][1:4]))
            raise UserError(
                f"There is no user '{user}' with linked items in {path}; its "
                f"{dataset.user_num - 1:,} users are called {examples}, and so on."
            )
        sequences = dataset.sequences
        # What train_ratio leaves out at the beginning is not read here either.
        first, end = sequences.offsets[number], sequences.offsets[number + 1]
        span = slice(first + dataset.split.train_start[number], end)
        return cls(sequences.items[span], sequences.timestamps[span], sequences.items[first:end])

    def times(self) -> list[str | None]:
        """UTC times as ``YYYY-MM-DD HH:MM``, each ``None`` if the numbers are no dates."""
        if len(self.timestamps) == 0:
            return [None] * len(self.items)
        largest = np.abs(self.timestamps).max()
        scale = next((n for n in UNITS.values() if largest < SECONDS_BELOW * n), None)
        # Before 1973: positions or normalised numbers, as RecBole's files may have them.
        if scale is None or largest < SECONDS_BELOW // 1000:
            return [None] * len(self.timestamps)
        seconds = (self.timestamps / scale).astype("datetime64[s]")
        return [text.replace("T", " ") for text in np.datetime_as_string(seconds, unit="m")]
