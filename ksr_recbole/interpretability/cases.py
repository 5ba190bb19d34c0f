"""The items that are explained, and the histories before them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from ksr_recbole.dataset.dataloader import SequenceEvalData
from ksr_recbole.dataset.sequences import Split, UserSequences, ragged_positions
from ksr_recbole.evaluation.candidates import phase_targets
from ksr_recbole.evaluation.popularity import training_counts


@dataclass(frozen=True, eq=False)
class Cases:
    """The items explained.  ``U`` users have ``P`` of them (next-item: one each).

    Attributes:
        sequences: all users' sequences.
        split: where they are cut.
        users: the users, ascending, ``int64 [U]``.
        items: the items, by user, ``int64 [P]``.
        owners: index into ``users`` of each item's user, ascending, ``int64 [P]``.
        starts: position where each user's history begins, ``int64 [U]``.
        ends: position before which it ends, the same for all items of a user, ``int64 [U]``.
    """

    sequences: UserSequences
    split: Split
    users: np.ndarray
    items: np.ndarray
    owners: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, sequences: UserSequences, split: Split, data: SequenceEvalData) -> Cases:
        """The targets of a phase; in next-session all are explained from the session's start."""
        of_items, items = phase_targets(sequences, split, data.phase)
        users, owners = np.unique(of_items, return_inverse=True)
        starts, ends = split.train_start[users], split.history_end(data.phase)[users]
        return cls(sequences, split, users, items, owners, starts, ends)

    @cached_property
    def histories(self) -> csr_matrix:
        """How often each user has each item in the history, ``float64 [U, n_items]``."""
        return items_before(self.sequences, self.users, self.starts, self.ends)

    def seen(self, batch: slice) -> np.ndarray:
        """All items that the users of a slice of ``users`` had before, ``int64 [B, T]``, padded.

        What ``train_ratio`` leaves out is among them, as in the evaluation: no model reads it, and
        it is no candidate either.
        """
        users, ends = self.users[batch], self.ends[batch]
        return self.sequences.padded(users, np.zeros_like(ends), ends)[0]

    @cached_property
    def training_counts(self) -> np.ndarray:
        """Training interactions of each item, ``int64 [n_items]``."""
        return training_counts(self.sequences, self.split)

    def of_users(self, batch: slice) -> slice:
        """The items of a slice of ``users``."""
        return slice(*np.searchsorted(self.owners, (batch.start, batch.stop)))

    def per_user(self, values: np.ndarray) -> np.ndarray:
        """Mean of ``values [P]`` over each user's items, ``float64 [U]``."""
        return np.bincount(self.owners, weights=values) / np.bincount(self.owners)


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
