"""Puts what was computed and the names together as an :class:`Explanation`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.explanation.labels import Names, attribute_labels
from ksr_recbole.explanation.parts import (
    Attribute,
    AttributeView,
    Explanation,
    Item,
    Reason,
    Recommendation,
    Step,
    ValueEntity,
)
from ksr_recbole.explanation.trace import History, Ranking
from ksr_recbole.explanation.value_entities import ValueEntities

LEADING_SHARE = 4
"""Only the first of this many parts of a range is leading: that a film has one of five ratings
supports nothing when the five are the top five."""

LEAST_ATTENTION = 0.01
"""An attribute with less attention than this supports nothing: its value vector is hardly read."""


@dataclass(frozen=True, eq=False)
class Writer:
    """What an explanation is made of, for the last ``S`` of the user's steps.

    Attributes:
        dataset: tells the ids in the files.
        found: the attributes' ranges and the items' entities.
        history: all the model read.
        attention: Eq. 6, ``float64 [S, A]``.
        rankings: by attribute, its range ranked at each step.
        best: the recommended items, best first, ``int64 [k]``.
        scores: their scores, ``[k]``.
    """

    dataset: KGSequenceDataset
    found: ValueEntities
    history: History
    attention: np.ndarray
    rankings: list[Ranking]
    best: np.ndarray
    scores: np.ndarray

    def explanation(self, user: str, value_matrix: str) -> Explanation:
        """All of it; the arguments are fields of :class:`Explanation`."""
        return Explanation(
            model=self.dataset.config["model"],
            dataset=self.dataset.dataset_name,
            user=user,
            n_interactions=len(self.history.items),
            value_matrix=value_matrix,
            attributes=self.attributes,
            steps=tuple(self._step(s) for s in range(len(self.attention))),
            recommendations=self._recommendations(),
            notes=self.names.notes,
        )

    @cached_property
    def first(self) -> int:
        """Position in the history of the first step's item."""
        return len(self.history.items) - len(self.attention)

    @cached_property
    def times(self) -> list[str | None]:
        """Times of all interactions."""
        return self.history.times()

    @cached_property
    def attributes(self) -> tuple[Attribute, ...]:
        """The memory's slots, named."""
        relations = self.dataset.field2id_token[self.dataset.relation_field]
        labels = attribute_labels(self.dataset)
        rows = zip(self.found.attributes, labels, self.found.ranges, strict=True)
        return tuple(Attribute(str(relations[r]), label, len(e)) for r, label, e in rows)

    @cached_property
    def names(self) -> Names:
        """Names of the items and entities that occur."""
        items = np.concatenate([self.history.items[self.first :], self.best])
        entities = [
            self.found.ranges[a][np.concatenate([ranking.nearest.ravel(), ranking.right])]
            for a, ranking in enumerate(self.rankings)
        ]
        item_tokens = self.dataset.field2id_token[self.dataset.iid_field]
        return Names.read(
            self.dataset,
            {str(token) for token in item_tokens[items]},
            {str(token) for token in self._entity_tokens[np.concatenate(entities)]},
        )

    @property
    def _entity_tokens(self) -> np.ndarray:
        return self.dataset.field2id_token[self.dataset.entity_field]

    def _item(self, item: int) -> Item:
        token = str(self.dataset.field2id_token[self.dataset.iid_field][item])
        return Item(token, self.names.item(token))

    def _entity(self, a: int, position: int) -> tuple[str, str]:
        """Id and name of an entity by its position in the range of attribute ``a``."""
        token = str(self._entity_tokens[self.found.ranges[a][position]])
        return token, self.names.entity(token)

    def _step(self, s: int) -> Step:
        number = self.first + s + 1
        items = self.history.items
        following = self._item(items[number]) if number < len(items) else None
        views = [self._view(a, s, following is not None) for a in range(len(self.rankings))]
        item, time = self._item(items[number - 1]), self.times[number - 1]
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

    def _recommendations(self) -> tuple[Recommendation, ...]:
        ranked = zip(self.best, self.scores, self._reasons(), strict=True)
        return tuple(
            Recommendation(rank, self._item(item), float(score), tuple(reasons))
            for rank, (item, score, reasons) in enumerate(ranked, start=1)
        )

    def _reasons(self) -> list[list[Reason]]:
        """For each recommended item, the leading values it has, most attention first."""
        reasons: list[list[Reason]] = [[] for _ in self.best]
        attended = np.flatnonzero(self.attention[-1] >= LEAST_ATTENTION)
        for a in attended[np.argsort(-self.attention[-1, attended], kind="stable")]:
            leading = self._leading(a)
            shared = self.found.of_items[a][self.best][:, leading].tocoo()
            for row, rank in sorted(zip(shared.row, shared.col + 1, strict=True)):
                entity, name = self._entity(a, leading[rank - 1])
                weight, attribute = float(self.attention[-1, a]), self.attributes[a]
                reasons[row].append(
                    Reason(attribute.label, entity, name, weight, int(rank), attribute.n_entities)
                )
        return reasons

    def _leading(self, a: int) -> np.ndarray:
        """The entities of attribute ``a`` that support an item, nearest first, by position."""
        size = len(self.found.ranges[a])
        if size == 1:  # every item with the attribute has it
            return np.zeros(0, dtype=np.int64)
        return self.rankings[a].nearest[-1][: max(1, size // LEADING_SHARE)]
