"""The last steps of an explanation: what was computed of each, with names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ksr_recbole.explanation.knowledge import Knowledge
from ksr_recbole.explanation.parts import AttributeView, Step, ValueEntity
from ksr_recbole.explanation.trace import History, Ranking


@dataclass(frozen=True, eq=False)
class LastSteps:
    """What the last ``S`` of a user's steps are made of.

    Attributes:
        knowledge: names everything.
        history: all the model read.
        attention: Eq. 6, ``float64 [S, A]``.
        rankings: by attribute, its range ranked at each step.
    """

    knowledge: Knowledge
    history: History
    attention: np.ndarray
    rankings: list[Ranking]

    def named(self) -> tuple[Step, ...]:
        """The steps, the oldest first."""
        return tuple(self._step(s) for s in range(len(self.attention)))

    @cached_property
    def first(self) -> int:
        """Position in the history of the first step's item."""
        return len(self.history.items) - len(self.attention)

    @cached_property
    def times(self) -> list[str | None]:
        """Times of all interactions."""
        return self.history.times()

    def _entity(self, a: int, position: int) -> tuple[str, str]:
        """Id and name of an entity by its position in the range of attribute ``a``."""
        entity = self.knowledge.values.ranges[a][position]
        return self.knowledge.entity_tokens[entity], self.knowledge.entity_names[entity]

    def _step(self, s: int) -> Step:
        number = self.first + s + 1
        items = self.history.items
        following = self.knowledge.item(items[number]) if number < len(items) else None
        views = [self._view(a, s, following is not None) for a in range(len(self.rankings))]
        item, time = self.knowledge.item(items[number - 1]), self.times[number - 1]
        return Step(number, item, time, tuple(views), following)

    def _view(self, a: int, s: int, known: bool) -> AttributeView:
        """Attribute ``a`` after step ``s``; ``known``: whether the next item is."""
        ranking = self.rankings[a]
        mine = slice(*np.searchsorted(ranking.right_steps, [s, s + 1]))
        right = ranking.right[mine]
        order = np.argsort(ranking.right_ranks[mine], kind="stable")
        hits = tuple(
            ValueEntity(*self._entity(a, position), int(rank), float(distance), True)
            for position, rank, distance in zip(
                right[order],
                ranking.right_ranks[mine][order],
                ranking.right_distances[mine][order],
                strict=True,
            )
        )
        nearest = zip(ranking.nearest[s], ranking.nearest_distances[s], strict=True)
        values = tuple(
            ValueEntity(
                *self._entity(a, position),
                rank,
                float(distance),
                bool(position in right) if known else None,
            )
            for rank, (position, distance) in enumerate(nearest, start=1)
        )
        return AttributeView(float(self.attention[s, a]), values, hits)
