"""Value level (Sec. 5.4): where value vectors rank the entities of the item that comes next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ksr_recbole.dataset.sequences import ragged_positions
from ksr_recbole.errors import UserError
from ksr_recbole.explanation.value_entities import ValueEntities, batches, l1_distances
from ksr_recbole.interpretability.cases import Cases
from ksr_recbole.model.ksr import KSR


@dataclass(frozen=True, eq=False)
class TiedRanks:
    """The rank of each of ``T`` true entities among the false ones of its range.

    An item may have several true entities; each is ranked against the false ones only, as in
    the filtered ranking of knowledge graph completion.

    Attributes:
        better: false entities with a higher score, ``int64 [T]``.
        equal: false entities with the same score, ``int64 [T]``.
    """

    better: np.ndarray
    equal: np.ndarray

    @classmethod
    def of(
        cls, scores: Tensor, rows: np.ndarray, columns: np.ndarray, lists: np.ndarray
    ) -> TiedRanks:
        """Count who is ahead, with one sort of each row of scores.

        Args:
            scores: of every entity of the range, none NaN, ``[R, E]``; the higher the better.
            rows: row of ``scores`` of each true entity, ascending, ``int64 [T]``.
            columns: column of each, ``int64 [T]``.
            lists: which are true together (of one item), ascending, ``int64 [T]``.
        """
        own = scores[torch.from_numpy(rows), torch.from_numpy(columns)]
        better, equal = _among_all(scores, rows, own)
        better_true, equal_true = _among_true(own.numpy(), lists)
        return cls(better - better_true, equal - equal_true)

    @classmethod
    def all_equal(cls, n_false: np.ndarray) -> TiedRanks:
        """The ranks if every entity has the same score, ``n_false int64 [T]`` of them false."""
        return cls(np.zeros_like(n_false), n_false)

    def hit(self, cut: int) -> np.ndarray:
        """1 where the rank is at most ``cut``; ties count as ranked above, ``float64 [T]``."""
        return (self.better + self.equal < cut).astype(np.float64)

    def reciprocal(self) -> np.ndarray:
        """1 over the rank; ties count as ranked above, ``float64 [T]``."""
        return 1.0 / (1 + self.better + self.equal)

    def expected_hit(self, cut: int) -> np.ndarray:
        """Chance of a rank of at most ``cut`` if ties were broken at random, ``float64 [T]``.

        The rank is then uniform on ``better + 1, ..., better + equal + 1``.
        """
        return np.clip(cut - self.better, 0, self.equal + 1) / (self.equal + 1)

    def expected_reciprocal(self) -> np.ndarray:
        """Mean of 1 over the rank if ties were broken at random, ``float64 [T]``."""
        most = int((self.better + self.equal).max(initial=0)) + 1
        harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, most + 1))])
        last = self.better + self.equal + 1
        return (harmonic[last] - harmonic[self.better]) / (self.equal + 1)


CUT = 10
"""The cut of Hit@10."""
RANKINGS = ("memory", "frequency", "frequency-popularity", "popularity", "random")
"""By what the entities of a range are ranked."""
EXPECTED = "expected"
"""And by how much of the model's expectation (softmax of its scores) is on items that have them."""
_ALL = (*RANKINGS, EXPECTED)
RANKING_MEASURES = {
    f"hit@{CUT}": lambda ranks: ranks.hit(CUT),
    "mrr": TiedRanks.reciprocal,
    f"expected_hit@{CUT}": lambda ranks: ranks.expected_hit(CUT),
    "expected_mrr": TiedRanks.expected_reciprocal,
}
"""Ties count as ranked above the true entity; ``expected`` ones break them at random."""


def _metrics_of(ranking: str) -> Mapping[str, Callable[[TiedRanks], np.ndarray]]:
    """The metrics; a random order has no ties, so that all of its are the expected ones."""
    if ranking != "random":
        return RANKING_MEASURES
    return {
        name: RANKING_MEASURES[f"expected_{name.removeprefix('expected_')}"]
        for name in RANKING_MEASURES
    }


class ValueLevel:
    """Value level: ranks of the true entities, batch after batch of users.

    Args:
        entities: the value entities.
        cases: the items explained.
        model: gives the entities' vectors.
    """

    def __init__(self, entities: ValueEntities, cases: Cases, model: KSR) -> None:
        self._entities = entities
        self._cases = cases
        self._model = model
        self._popularity = [of.T @ cases.training_counts for of in entities.of_items]
        shape = (len(cases.users), len(entities.attributes))
        # NaN where a user has no item that can be ranked on an attribute.
        self._table = {
            (ranking, metric): np.full(shape, np.nan)
            for ranking in _ALL
            for metric in RANKING_MEASURES
        }

    def rank(self, batch: slice, values: Tensor, scores: Tensor) -> None:
        """Rank the entities of every attribute for the users ``batch``.

        Args:
            batch: the users.
            values: their value matrices before their items, ``[B, A, E]``.
            scores: their scores of all items then, ``[B, n_items]``.
        """
        chances = scores[:, 1:].softmax(dim=1).double().cpu().numpy()
        for attribute, entities in enumerate(self._entities.ranges):
            for part in batches(batch.stop, len(entities), batch.start):
                rows = slice(part.start - batch.start, part.stop - batch.start)
                self._rank_attribute(part, attribute, values[rows, attribute], chances[rows])

    def _rank_attribute(
        self, batch: slice, attribute: int, values: Tensor, chances: np.ndarray
    ) -> None:
        true = _TrueEntities.of(self._entities, self._cases, batch, attribute)
        if len(true.columns) == 0:
            return
        for ranking, ranks in self._ranks(batch, attribute, values, chances, true):
            for metric, compute in _metrics_of(ranking).items():
                self._table[ranking, metric][batch, attribute] = true.per_user(compute(ranks))

    def _ranks(
        self,
        batch: slice,
        attribute: int,
        values: Tensor,
        chances: np.ndarray,
        true: _TrueEntities,
    ) -> Iterator[tuple[str, TiedRanks]]:
        """Each ranking's ranks of the true entities."""
        ids = torch.from_numpy(self._entities.ranges[attribute]).to(values.device)
        distances = l1_distances(values, self._model.entity_vectors(ids)).cpu()
        yield "memory", true.ranks(-distances)
        of_items = self._entities.of_items[attribute]
        frequency = torch.from_numpy((self._cases.histories[batch] @ of_items).toarray())
        popularity = torch.from_numpy(self._popularity[attribute])
        yield "frequency", true.ranks(frequency)
        # Frequencies are whole numbers, so that less than 1 decides among equal ones only.
        yield "frequency-popularity", true.ranks(frequency + popularity / (popularity.max() + 1))
        yield "popularity", true.ranks(popularity[None])
        yield EXPECTED, true.ranks(torch.from_numpy(chances @ of_items[1:]))
        yield "random", TiedRanks.all_equal(true.n_false)

    def summary(self, names: list[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Means over users and attributes as JSON values, and every user's mean.

        Raises:
            UserError: there is nothing to take a mean of.
        """
        counted = ~np.isnan(self._table["memory", "mrr"])
        users, kept = counted.sum(axis=0), counted.any(axis=0)
        if not kept.any():
            raise UserError(
                "No attribute can be ranked, since no test item has an entity on an attribute "
                "with two or more entities; add triples of the items to the knowledge graph."
            )
        sizes = [len(entities) for entities in self._entities.ranges]
        per_attribute = {
            names[a]: {"entities": sizes[a], "users": int(users[a]), **self._of_attribute(a)}
            for a in np.flatnonzero(kept).tolist()
        }
        left_out = {
            names[a]: "it has a single entity" if sizes[a] == 1 else "no test item can be ranked"
            for a in np.flatnonzero(~kept)
        }
        overall = {ranking: self._overall(ranking) for ranking in _ALL}
        told = {"attributes": per_attribute, "overall": overall, "left_out": left_out}
        some = counted.any(axis=1)
        arrays = {"values/users": self._cases.users[some]}
        for (ranking, metric), values in self._table.items():
            arrays[f"values/{ranking}/{metric}"] = np.nanmean(values[some], axis=1)
        return told, arrays

    def _of_attribute(self, attribute: int) -> dict[str, dict[str, float]]:
        """Means over users, by ranking and metric."""
        return {
            ranking: {
                metric: float(np.nanmean(self._table[ranking, metric][:, attribute]))
                for metric in RANKING_MEASURES
            }
            for ranking in _ALL
        }

    def _overall(self, ranking: str) -> dict[str, dict[str, float]]:
        """``macro``: mean over attributes of the means over users; ``micro``: over all pairs."""
        tables = {metric: self._table[ranking, metric] for metric in RANKING_MEASURES}
        kept = ~np.isnan(tables["mrr"]).all(axis=0)
        return {
            "macro": {m: float(np.nanmean(t[:, kept], axis=0).mean()) for m, t in tables.items()},
            "micro": {m: float(np.nanmean(t)) for m, t in tables.items()},
        }


@dataclass(frozen=True, eq=False)
class _TrueEntities:
    """What the items of a batch of ``B`` users have on one attribute, ``T`` true entities in all.

    Items that have none of the range, or all of it, are left out: there is nothing to rank.

    Attributes:
        columns: the entities, as columns of the range, ``int64 [T]``.
        items: index of each one's item within the batch, ascending, ``int64 [T]``.
        n_false: entities of the range that this item has not, ``int64 [T]``.
        owners: row of the batch of each item's user, ascending, ``int64 [items of the batch]``.
        n_users: ``B``.
    """

    columns: np.ndarray
    items: np.ndarray
    n_false: np.ndarray
    owners: np.ndarray
    n_users: int

    @classmethod
    def of(
        cls, entities: ValueEntities, cases: Cases, batch: slice, attribute: int
    ) -> _TrueEntities:
        """What the items of the users ``batch`` have."""
        part = cases.of_users(batch)
        of_items = entities.of_items[attribute][cases.items[part]]
        n_true = np.diff(of_items.indptr)
        items = np.repeat(np.arange(len(n_true)), n_true)
        n_false = of_items.shape[1] - n_true[items]
        some = n_false > 0
        return cls(
            of_items.indices[some].astype(np.int64),
            items[some],
            n_false[some].astype(np.int64),
            cases.owners[part] - batch.start,
            batch.stop - batch.start,
        )

    def ranks(self, scores: Tensor) -> TiedRanks:
        """Ranks by ``scores [B, E]``, or ``[1, E]`` if they are the same for all users."""
        rows = self.owners[self.items] if len(scores) > 1 else np.zeros_like(self.items)
        return TiedRanks.of(scores, rows, self.columns, self.items)

    def per_user(self, values: np.ndarray) -> np.ndarray:
        """Means of ``values [T]`` over each item's entities, then over each user's items.

        Returns:
            ``float64 [B]``, NaN for a user with no item here.
        """
        n_true = np.bincount(self.items, minlength=len(self.owners))
        sums = np.bincount(self.items, weights=values, minlength=len(self.owners))
        some = n_true > 0
        owners, means = self.owners[some], sums[some] / n_true[some]
        totals = np.bincount(owners, weights=means, minlength=self.n_users)
        counts = np.bincount(owners, minlength=self.n_users)
        return np.divide(totals, counts, out=np.full(self.n_users, np.nan), where=counts > 0)


def _among_all(scores: Tensor, rows: np.ndarray, own: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Entities of each row with a higher score than ``own [T]``, and with the same (itself too)."""
    counts = np.bincount(rows, minlength=len(scores))
    _, columns = ragged_positions(counts)
    at = torch.from_numpy(rows), torch.from_numpy(columns)
    asked = own.new_zeros(len(scores), int(counts.max(initial=0)))
    asked[at] = own
    ordered = scores.sort(dim=1).values.contiguous()  # searchsorted would copy it twice
    below = torch.searchsorted(ordered, asked)[at].numpy()
    up_to = torch.searchsorted(ordered, asked, right=True)[at].numpy()
    return scores.shape[1] - up_to, up_to - below


def _among_true(own: np.ndarray, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same counts among the true entities of each list."""
    _, level = np.unique(own, return_inverse=True)
    n_levels = int(level.max(initial=0)) + 1
    keys = lists * n_levels + level  # by list, then by score
    ordered = np.sort(keys)
    up_to = np.searchsorted(ordered, keys, side="right")
    ends = np.searchsorted(ordered, (lists + 1) * n_levels, side="left")
    return ends - up_to, up_to - np.searchsorted(ordered, keys, side="left")
