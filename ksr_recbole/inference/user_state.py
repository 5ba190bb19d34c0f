"""What a recommender remembers of a user between events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ksr_recbole.model.sequence_recommender import SequenceState

_OF_A_LINK = 200
"""Bytes of a link of :class:`Seen` besides its items, about."""


class Seen(NamedTuple):
    """Items known to a state: those of the latest event, and before it those of the others.

    A chain of what was added shares all earlier links, so that an event costs the same however
    long the history is, and earlier states stay as they are.
    """

    items: np.ndarray
    before: Seen | None = None

    def __reduce__(self) -> tuple[type[Seen], tuple[np.ndarray]]:
        # pickle and copy would go down the chain by recursion
        return Seen, (self.all(),)

    def all(self) -> np.ndarray:
        """Item ids in the order of time, ``int64 [n_items_seen]``."""
        return np.concatenate([link.items for link in self._links()][::-1])

    def nbytes(self) -> int:
        """What all links take, about, in bytes."""
        return sum(_OF_A_LINK + link.items.nbytes for link in self._links())

    def _links(self) -> Iterator[Seen]:
        """The links of the chain, the latest first."""
        link: Seen | None = self
        while link is not None:
            yield link
            link = link.before


@dataclass(frozen=True, eq=False)
class UserState:
    """All that a model remembers of a user after some events; it never changes.

    Attributes:
        user: the user's id, 0 for someone the model was not trained with.
        memory: the model's state of one user.
        seen: items that ``exclude_history`` excludes.
        of: digest of the model directory, whose every recommender can read the state.
    """

    user: int
    memory: SequenceState
    seen: Seen = field(repr=False)
    of: str = field(repr=False)
