"""Users' interaction sequences as flat arrays, and where training, validation and test end.

Everything that needs a history (the training loader, pretraining, negative sampling,
evaluation, explanation) reads these two objects; nothing expands prefixes or pads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np

from ksr_recbole.text import counted

Phase = Literal["train", "valid", "test"]
EvalPhase = Literal["valid", "test"]

GIVEN_FILES = "given files"
"""Name of a split that the user made."""


def ragged_ranges(first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers from ``first[k]`` on, as many as ``lengths[k]`` says, row after row.

    Args:
        first: ``int64 [n_rows]``.
        lengths: ``int64 [n_rows]``.

    Returns:
        ``int64 [lengths.sum()]``.
    """
    ends = np.cumsum(lengths)
    return np.repeat(first - ends + lengths, lengths) + np.arange(lengths.sum())


def ragged_positions(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row number and position within the row of every cell of a ragged array.

    Args:
        lengths: cells per row, shape ``[n_rows]``.

    Returns:
        ``(row, position)``, both of shape ``[lengths.sum()]``.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return rows, ragged_ranges(np.zeros_like(lengths), lengths)


def sorted_distinct(numbers: np.ndarray) -> np.ndarray:
    """The different numbers of ``[n]``, ascending, as ``np.unique`` gives them.

    Since NumPy 2.3 that fills a hash table, which takes many times as long for millions of
    numbers of which few are equal.
    """
    ordered = np.sort(numbers)
    new = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return ordered[new]


@dataclass(frozen=True)
class UserSequences:
    """Every user's whole interaction sequence in time order (Sec. 3 of the paper).

    User ``u``'s sequence is ``items[offsets[u]:offsets[u + 1]]``; user 0 is RecBole's
    padding user and has an empty one.  Memory is O(number of interactions).

    Attributes:
        items: item ids, 1-based as in RecBole, ``int64 [n_interactions]``.
        timestamps: as in the ``.inter`` file, ``float64 [n_interactions]``.
        offsets: ``int64 [n_users + 1]``, ``n_users`` counting the padding user.
        n_items: number of item ids, counting padding (RecBole's ``item_num``).
        order: row of the ``.inter`` frame that each interaction came from,
            ``int64 [n_interactions]``.
    """

    items: np.ndarray
    timestamps: np.ndarray
    offsets: np.ndarray
    n_items: int
    order: np.ndarray

    @cached_property
    def distinct_items(self) -> np.ndarray:
        """How many different items each user has, ``int64 [n_users]``."""
        owners = np.repeat(np.arange(self.n_users), self.lengths)
        pairs = sorted_distinct(owners * self.n_items + self.items)
        return np.bincount(pairs // self.n_items, minlength=self.n_users)

    @classmethod
    def from_interactions(
        cls,
        users: np.ndarray,
        items: np.ndarray,
        timestamps: np.ndarray,
        n_users: int,
        n_items: int,
        parts: np.ndarray | None = None,
    ) -> UserSequences:
        """Sort interactions by user, then time; equal timestamps keep the file's order.

        With ``parts``, what is in an earlier file comes before what is in a later one, whatever
        the times.

        Args:
            users: ``int64 [N]``; 0 is padding.
            items: ``int64 [N]``; 0 is padding.
            timestamps: in any unit, ``float64 [N]``.
            n_users: number of user ids, counting padding.
            n_items: number of item ids, counting padding.
            parts: numbers of the files that interactions were split into, ``int64 [N]``.
        """
        by_time = (timestamps,) if parts is None else (timestamps, parts)
        order = np.lexsort((*by_time, users))  # a stable sort
        counts = np.bincount(users, minlength=n_users)
        return cls(
            items=np.ascontiguousarray(items[order], dtype=np.int64),
            timestamps=np.ascontiguousarray(timestamps[order], dtype=np.float64),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            n_items=int(n_items),
            order=order,
        )

    @property
    def n_users(self) -> int:
        """Number of user ids, counting padding."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Interactions per user, ``int64 [n_users]``."""
        return np.diff(self.offsets)

    def spans(self, users: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Flat indices of positions ``start[k]..end[k]`` (exclusive) of ``users[k]``, in order."""
        return ragged_ranges(self.offsets[users] + start, np.maximum(end - start, 0))

    def padded(
        self, users: np.ndarray, start: np.ndarray, end: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Items at positions ``start[k]..end[k]`` (exclusive) of ``users[k]``, padded at the end.

        Returns:
            Items ``int64 [B, T]``, 0 where there is none, and how many there are, ``int64 [B]``.
        """
        lengths = end - start
        rows, columns = ragged_positions(lengths)
        items = np.zeros((len(users), int(lengths.max(initial=0))), np.int64)
        items[rows, columns] = self.items[self.spans(users, start, end)]
        return items, lengths


@dataclass(frozen=True)
class Split:
    """How far each user's sequence belongs to training and to validation.

    Positions ``[train_start, train_end)`` are training, ``[train_end, valid_end)`` validation
    and ``[valid_end, length)`` test; a task (Sec. 5.1) only decides the last two ends.  What
    comes before ``train_start`` is left out by ``train_ratio`` (Sec. 5.3, Fig. 3): no model
    reads it, and in evaluation it is still no candidate of the user's.

    Attributes:
        train_end: ``int64 [n_users]``.
        valid_end: ``int64 [n_users]``.
        name: short name of the task, part of cache keys (``"next-item"``).
        train_start: ``int64 [n_users]``, zeros unless ``train_ratio`` is given.
    """

    train_end: np.ndarray
    valid_end: np.ndarray
    name: str
    train_start: np.ndarray

    def history_end(self, phase: Phase) -> np.ndarray:
        """Position up to which the model may read in ``phase``, ``int64 [n_users]``."""
        return self.valid_end if phase == "test" else self.train_end

    def training_interactions(self, sequences: UserSequences) -> tuple[np.ndarray, np.ndarray]:
        """Flat indices into ``sequences.items`` of all training interactions, and their users.

        Returns:
            ``(indices, users)``, each ``int64 [n]``, users ascending and in time order.
        """
        users = np.arange(sequences.n_users)
        indices = sequences.spans(users, self.train_start, self.train_end)
        return indices, np.repeat(users, self.train_end - self.train_start)

    def target_range(
        self, phase: EvalPhase, sequences: UserSequences
    ) -> tuple[np.ndarray, np.ndarray]:
        """First position of the targets of ``phase`` and the one past the last, ``[n_users]``."""
        if phase == "valid":
            return self.train_end, self.valid_end
        return self.valid_end, sequences.lengths

    def line(self, sequences: UserSequences) -> str:
        """How many users and interactions each phase has, and how many users are too short."""
        users = sequences.lengths > 0
        ends = (self.train_start, self.train_end, self.valid_end, sequences.lengths)
        sizes = [end - start for start, end in pairwise(ends)]
        train, valid, test = (
            f"{counted(int(n.sum()), 'interaction')} of {counted(int((n > 0).sum()), 'user')}"
            for n in sizes
        )
        told = f"Split ({self.name}): {train} in training, {valid} in validation, {test} in test"
        if early := int(self.train_start.sum()):
            told += f", {early:,} left out by train_ratio"
        if short := int((users & (sizes[2] == 0)).sum()):
            told += f"; {counted(short, 'user has', 'users have')} too few to be tested"
        return f"{told}."

    def keep_latest(self, ratio: float) -> Split:
        """The split with the latest ``ratio`` of each user's training part (Sec. 5.3, Fig. 3).

        The paper takes 20 to 80 % "from the complete training data" and does not say which;
        the latest part leaves each sequence whole up to its targets.  At least one
        interaction stays, so every user keeps a history.
        """
        kept = np.ceil(self.train_end * ratio - 1e-9).astype(np.int64)
        kept = np.maximum(kept, np.minimum(self.train_end, 1))
        return replace(self, train_start=self.train_end - kept)


def split_of_parts(users: np.ndarray, parts: np.ndarray, n_users: int) -> Split:
    """The split of interactions that the user split into files.

    Args:
        users: user of each interaction, ``int64 [n]``.
        parts: 0, 1 or 2 where it is one of training, validation or test, ``int64 [n]``.
        n_users: number of user ids, counting padding.
    """
    train_end = np.bincount(users[parts == 0], minlength=n_users)
    valid_end = train_end + np.bincount(users[parts == 1], minlength=n_users)
    return Split(train_end, valid_end, GIVEN_FILES, np.zeros_like(train_end))


def leave_one_out(sequences: UserSequences) -> Split:
    """Next-item split (Sec. 5.1): the last item is the test, the one before validation.

    As in RecBole's ``LS: valid_and_test``, a user with two interactions has no validation
    item and a user with one has neither.
    """
    lengths = sequences.lengths
    valid_end = np.where(lengths >= 2, lengths - 1, lengths)
    train_end = np.where(lengths >= 3, lengths - 2, valid_end)
    return Split(train_end, valid_end, "next-item", np.zeros_like(train_end))


def leave_one_session_out(sequences: UserSequences, session_length: float) -> Split:
    """Next-session split (Sec. 5.1): the last session is the test, the one before validation.

    "A day is considered as a session": interactions with the same
    ``timestamp // session_length`` are one session.  As with single items, a user with two
    sessions has no validation session and a user with one has neither.

    Args:
        sequences: all users' sequences, timestamps in the unit of ``session_length``.
        session_length: 86,400 for days (UTC) where timestamps are seconds.
    """
    users = np.repeat(np.arange(sequences.n_users), sequences.lengths)
    days = np.floor_divide(sequences.timestamps, session_length)
    begins = np.ones(len(users), dtype=bool)
    begins[1:] = (users[1:] != users[:-1]) | (days[1:] != days[:-1])
    at = np.flatnonzero(begins)
    position = at - sequences.offsets[users[at]]  # where each session starts in its sequence
    n_sessions = np.bincount(users[at], minlength=sequences.n_users)
    after = np.cumsum(n_sessions)  # index behind each user's last session

    def start_of(nth_last: int) -> np.ndarray:
        found = sequences.lengths.copy()
        has = n_sessions > nth_last
        found[has] = position[after[has] - nth_last]
        return found

    valid_end = start_of(1)
    train_end = np.where(n_sessions > 2, start_of(2), valid_end)
    return Split(train_end, valid_end, "next-session", np.zeros_like(train_end))
