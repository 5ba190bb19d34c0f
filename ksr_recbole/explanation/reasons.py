"""Reasons: what a recommended item shares with the user's own history, in order of weight.

Everything here is arrays over all shared facts of all candidates at once; only the few reasons
that are shown become objects (:mod:`ksr_recbole.explanation.wording`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from torch import Tensor

from ksr_recbole.explanation.influence import influences, parts_of
from ksr_recbole.explanation.knowledge import Knowledge
from ksr_recbole.model.ksr import KSR
from ksr_recbole.model.sequence_recommender import SequenceState

COMMON_SHARE = 0.2
"""A value that more of the items have ("American films", a rating) is folded away: it tells
nothing of this item."""

LEAST_SHARE = 0.01
"""A fact with a smaller part of all that speaks for an item is no reason of the model's."""

LEAST_COVERAGE = 0.1
"""Attributes that fewer of the items have are left out of the attention that is shown: the paper's
attributes "are shared by all the items" (Sec. 4.2.1)."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Items whose reasons are looked for, and what the model says of them.

    ``R`` rows, each an item for a history; ``B`` histories.

    Attributes:
        items: item ids, ``int64 [R]``.
        owners: which history each row is for, ``int64 [R]``.
        attention: attention over the attributes (Eq. 6) after each history, ``float64 [B, A]``.
        parts: what each of the item's values adds to the row's score, ``float64 [R, F]``,
            sparse, where the model's score is a sum of such.
        rest: and what else adds to it (the inner product of Eq. 10), ``float64 [R]``.
        influence: or by how much it falls without an item of the history, ``[R, n]``, sparse.
    """

    items: np.ndarray
    owners: np.ndarray
    attention: np.ndarray
    parts: csr_matrix | None = None
    rest: np.ndarray | None = None
    influence: csr_matrix | None = None

    @classmethod
    def of(
        cls,
        model: KSR,
        knowledge: Knowledge,
        histories: tuple[Tensor, Tensor],
        state: SequenceState,
        best: Tensor,
        scores: np.ndarray,
    ) -> Candidates:
        """Ask a model.

        Args:
            model: reads without dropout and gradients.
            knowledge: what items have.
            histories: items, ``int64 [B, T]``, padded at the end, and how many, ``int64 [B]``.
            state: the states after them.
            best: item ids of each history, ``int64 [B, K]``; a row of the result for each.
            scores: their scores, ``float64 [B, K]``.
        """
        items = best.cpu().numpy().ravel()
        owners = np.repeat(np.arange(len(best)), best.shape[1])
        asked = items, owners, attention_now(model, state)
        if model.splits_score:
            parts = parts_of(model, knowledge, state, items, owners)
            rest = scores.ravel() - np.asarray(parts.sum(axis=1)).ravel()
            return cls(*asked, parts=parts, rest=rest)
        lost = influences(model, *histories, best, len(knowledge.item_tokens))
        return cls(*asked, influence=lost)

    def weights(self, knowledge: Knowledge, rows: np.ndarray, facts: np.ndarray) -> np.ndarray:
        """What speaks for the items of ``rows [P]`` by ``facts [P]``, ``float64 [P]``.

        Where the score is a sum, it is the part that the fact adds.  Elsewhere it is the sum of
        the influences of those items of the history that have the fact.  The row's own item is
        not counted among them.
        """
        if self.parts is not None:
            return _cells(self.parts, rows, facts)
        found = csr_matrix(self._speaking @ knowledge.of_items)
        return _cells(found, rows, facts) - _cells(self._speaking, rows, self.items[rows])

    def in_favour(self) -> np.ndarray:
        """All that speaks for each row's item, ``float64 [R]``: the sum of what is above 0."""
        found = np.asarray(self._speaking.maximum(0).sum(axis=1)).ravel()
        return found if self.rest is None else found + np.maximum(self.rest, 0)

    @property
    def _speaking(self) -> csr_matrix:
        found = self.influence if self.parts is None else self.parts
        assert found is not None
        return found


@dataclass(frozen=True, eq=False)
class SharedFacts:
    """The facts that candidates share with their histories: ``P`` of them, by row, best first.

    Attributes:
        rows: row of :class:`Candidates`, ascending, ``int64 [P]``.
        facts: facts of :class:`Knowledge`, ``int64 [P]``.
        attention: of the fact's attribute, among the attributes that the item has,
            ``float64 [P]``.
        weight: what speaks for the item by it, ``float64 [P]``, see :meth:`Candidates.weights`.
        times: how often the history has the fact, without the row's item, ``int64 [P]``.
        by_model: whether it is a reason of the model, ``bool [P]``.
        common: whether more than a fifth of the items have the value, ``bool [P]``.
    """

    rows: np.ndarray
    facts: np.ndarray
    attention: np.ndarray
    weight: np.ndarray
    times: np.ndarray
    by_model: np.ndarray
    common: np.ndarray

    @classmethod
    def of(cls, knowledge: Knowledge, histories: csr_matrix, asked: Candidates) -> SharedFacts:
        """Find them.

        Args:
            knowledge: what items have.
            histories: how often each item is in each history, ``[B, n]``.
            asked: the candidates.

        Returns:
            Within a row the model's own reasons first, common values last; then by weight times
            rarity, the smaller fact first where it is equal.  An item is no reason for itself.
        """
        had = csr_matrix(histories @ knowledge.of_items)
        shared = knowledge.of_items[asked.items].multiply(had[asked.owners]).tocoo()
        times = shared.data - _cells(histories, asked.owners, asked.items)[shared.row]
        others = times > 0
        rows, facts = (each[others].astype(np.int64) for each in (shared.row, shared.col))
        attributes = knowledge.attribute_of[facts]
        attention = among_own(knowledge, asked)[rows, attributes]
        weight = asked.weights(knowledge, rows, facts)
        by_model = (weight > 0) & (weight >= LEAST_SHARE * asked.in_favour()[rows])
        common = knowledge.n_items_with[facts] > COMMON_SHARE * (len(knowledge.item_tokens) - 1)
        gain = np.maximum(weight, 0) * knowledge.rarity[facts]
        order = np.lexsort((facts, -gain, common, ~by_model, rows))
        found = (rows, facts, attention, weight, times[others].astype(np.int64), by_model, common)
        return cls(*(each[order] for each in found))

    def of_rows(self, kept: np.ndarray) -> SharedFacts:
        """Those of the rows where ``kept`` (``bool [R]``) is true; rows keep their numbers."""
        mine = kept[self.rows]
        return SharedFacts(*(each[mine] for each in vars(self).values()))

    def first_readable(self, n_rows: int) -> np.ndarray:
        """Position of each row's best reason that is the model's and not common, ``int64 [R]``.

        -1 for a row without any.
        """
        good = np.flatnonzero(self.by_model & ~self.common)
        rows, first = np.unique(self.rows[good], return_index=True)
        found = np.full(n_rows, -1)
        found[rows] = good[first]
        return found


def _cells(matrix: csr_matrix, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """What stands at ``rows[k], columns[k]``, ``float64 [P]``; SciPy wants at least one cell."""
    return np.asarray(matrix[rows, columns]).ravel() if len(rows) else np.zeros(0)


def attention_now(model: KSR, state: SequenceState) -> np.ndarray:
    """Attention over the attributes (Eq. 6) in states of ``B`` users, ``float64 [B, A]``."""
    return model.attention(state.hidden[-1]).double().cpu().numpy()


def among_own(knowledge: Knowledge, asked: Candidates) -> np.ndarray:
    """Attention among the attributes that each row's item has, ``float64 [R, A]``.

    A row sums to 1; to 0 if its item has none.
    """
    own = asked.attention[asked.owners] * knowledge.has[asked.items]
    return own / np.maximum(own.sum(axis=1, keepdims=True), 1e-300)


def among_covered(knowledge: Knowledge, attention: np.ndarray) -> np.ndarray:
    """Attention ``[..., A]`` among the attributes that enough items have; it sums to 1.

    All attributes stay if few items have any of them.
    """
    covered = knowledge.coverage >= LEAST_COVERAGE
    own = attention * (covered if covered.any() else True)
    return own / np.maximum(own.sum(axis=-1, keepdims=True), 1e-300)
