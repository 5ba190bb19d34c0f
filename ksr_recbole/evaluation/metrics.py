"""Ranks of the positives, and the ranking metrics of Sec. 5.1 computed from them.

A rank is the position of a positive in the list of everything it competes with, best score
first.  Ties never help: at equal scores every negative comes before every positive, so that a
model which gives all items one score gets the worst ranks, not the best.

The metrics at ``k`` are RecBole's (``recbole.evaluator.metrics``, version 1.2.1), unrounded.
RecBole has no MAP and MRR of the whole list, which the paper reports; they are the same
formulas without a cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ksr_recbole.config.evaluation_keys import WHOLE_LIST_METRICS, parse_metrics, parse_topk
from ksr_recbole.errors import UserError


def rank_of_positives(positive_scores: np.ndarray, negative_scores: np.ndarray) -> np.ndarray:
    """Rank of each positive among its own negatives: 1 + negatives that score at least as much.

    Args:
        positive_scores: ``[P]``.
        negative_scores: ``[P, N]``.

    Returns:
        ``int64 [P]``, from 1 to ``N + 1``.

    Raises:
        UserError: a score is NaN.
    """
    check_scores(positive_scores, negative_scores)
    above = negative_scores >= positive_scores[:, None]
    return np.asarray(1 + above.sum(axis=1, dtype=np.int64))


def joint_ranks(
    users: np.ndarray,
    positive_scores: np.ndarray,
    negatives: np.ndarray,
    negative_scores: np.ndarray,
) -> np.ndarray:
    """Rank of each positive in its user's joint list (next-session, Sec. 5.1).

    The joint list of a user holds the positives and the negatives of all the user's rows.  A
    negative drawn in several rows is one item and stands in the list once (with the highest
    score it was given: rounding can differ between rows).  A positive's rank is 1 + negatives
    of the list scoring at least as much + other positives of the user scoring more, positives
    of equal score following the order of the rows.  With one row per user this is
    :func:`rank_of_positives`.

    Args:
        users: whose row it is, ``int [P]``, in any order.
        positive_scores: ``[P]``.
        negatives: item ids, ``int [P, N]``, none of them a positive of the same user.
        negative_scores: ``[P, N]``.

    Returns:
        ``int64 [P]``.

    Raises:
        UserError: a score is NaN.
    """
    check_scores(positive_scores, negative_scores)
    owners = np.repeat(users, negatives.shape[1])
    items, scores = negatives.ravel(), negative_scores.ravel()
    best_first = np.lexsort((-scores, items, owners))
    owners, items, scores = owners[best_first], items[best_first], scores[best_first]
    new = np.ones(len(items), dtype=bool)
    new[1:] = (owners[1:] != owners[:-1]) | (items[1:] != items[:-1])

    # The negatives stand first, so at equal scores they stay before the positives.
    owners = np.concatenate([owners[new], users])
    scores = np.concatenate([scores[new], positive_scores])
    return 1 + positions_within_users(owners, -scores)[-len(users) :]


def positions_within_users(users: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Position, from 0, of each row among its user's rows sorted by ``keys`` (the last one first).

    Rows equal in every key keep their order.

    Args:
        users: ``int [P]``, in any order.
        keys: each ``[P]``, ascending.

    Returns:
        ``int64 [P]``.
    """
    order = np.lexsort((*keys, users))
    _, starts, counts = np.unique(users[order], return_index=True, return_counts=True)
    positions = np.empty(len(users), dtype=np.int64)
    positions[order] = np.arange(len(users)) - np.repeat(starts, counts)
    return positions


def check_scores(*scores: np.ndarray) -> None:
    """Raise if a score is NaN, which compares as false and would rank as the best.

    Raises:
        UserError: naming how many scores are NaN.
    """
    missing = sum(int(np.isnan(array).sum()) for array in scores)
    if missing:
        raise UserError(
            f"{missing} of {sum(array.size for array in scores)} scores of the model are NaN, "
            "so items cannot be ranked. Training diverged, or a given embedding contains NaN. "
            "Lower learning_rate and train again."
        )


def ranking_metrics(
    users: np.ndarray, ranks: np.ndarray, names: Sequence[str], topk: Sequence[int]
) -> dict[str, float]:
    """Mean over users of :func:`per_user_metrics`, unrounded.

    Raises:
        UserError: a metric or cut is unknown, or there is no user.
    """
    _, values = per_user_metrics(users, ranks, names, topk)
    if not len(users):
        raise UserError(
            "There is no user to evaluate, because no user has an item held out in this phase; "
            "give users with at least three interactions."
        )
    return {key: float(np.mean(value)) for key, value in values.items()}


def per_user_metrics(
    users: np.ndarray, ranks: np.ndarray, names: Sequence[str], topk: Sequence[int]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Every metric of every user (what a significance test pairs).

    Args:
        users: user of each positive, ``int [P]``.
        ranks: rank of each positive in its user's list, ``int [P]``, different within a user.
        names: as in RecBole's ``metrics``, in any case: ``map``, ``mrr``, ``hit``, ``ndcg``,
            ``recall``, ``precision``.
        topk: the cuts.

    Returns:
        ``(users, values)``: the ``U`` different users ascending, and ``float64 [U]`` for each
        of ``hit@10`` and so on; MAP and MRR are also given of the whole list, as ``map`` and
        ``mrr``.

    Raises:
        UserError: a metric or cut is unknown.
    """
    hits = _Hits.from_ranks(np.asarray(users), np.asarray(ranks))
    values: dict[str, np.ndarray] = {}
    for name in parse_metrics(names):
        if name in WHOLE_LIST_METRICS:
            values[name] = getattr(hits, name)(None)
        for cut in parse_topk(topk):
            values[f"{name}@{cut}"] = getattr(hits, name)(cut)
    return hits.users, values


@dataclass(frozen=True, eq=False)
class _Hits:
    """The positives sorted by user, then rank, and the metrics of each user.

    There is a method for each of :data:`~ksr_recbole.config.evaluation_keys.KNOWN_METRICS`.  It
    takes the cut ``k``, or ``None`` for the whole list, and returns ``float64 [U]``.

    Attributes:
        users: the different users, ``[U]``.
        totals: positives of each user, |R(u)|, ``int64 [U]``.
        owners: index into ``users`` of each positive, ``int64 [P]``.
        ranks: rank of each positive, ``int64 [P]``.
        numbers: 1 for a user's best ranked positive, 2 for the next, ..., ``int64 [P]``.
    """

    users: np.ndarray
    totals: np.ndarray
    owners: np.ndarray
    ranks: np.ndarray
    numbers: np.ndarray

    @classmethod
    def from_ranks(cls, users: np.ndarray, ranks: np.ndarray) -> _Hits:
        order = np.lexsort((ranks, users))
        unique, starts, totals = np.unique(users[order], return_index=True, return_counts=True)
        owners = np.repeat(np.arange(len(unique)), totals)
        return cls(unique, totals, owners, ranks[order], np.arange(len(users)) - starts[owners] + 1)

    def _sum(self, values: np.ndarray, k: int | None) -> np.ndarray:
        """Sum of ``values`` ``[P]`` over each user's positives within the cut, ``[U]``."""
        inside = values if k is None else np.where(self.ranks <= k, values, 0.0)
        return np.bincount(self.owners, weights=inside, minlength=len(self.users))

    def _ideal(self, k: int | None) -> np.ndarray:
        """Hits of a perfect list: min(|R(u)|, k), ``int64 [U]``."""
        return self.totals if k is None else np.minimum(self.totals, k)

    def map(self, k: int | None) -> np.ndarray:
        """Precision at each hit, summed, over the hits of a perfect list."""
        return self._sum(self.numbers / self.ranks, k) / self._ideal(k)

    def mrr(self, k: int | None) -> np.ndarray:
        """Reciprocal rank of the first hit."""
        return self._sum(np.where(self.numbers == 1, 1.0 / self.ranks, 0.0), k)

    def hit(self, k: int | None) -> np.ndarray:
        """1 where there is a hit."""
        return (self._sum(np.ones(len(self.ranks)), k) > 0).astype(np.float64)

    def ndcg(self, k: int | None) -> np.ndarray:
        """Discounted gain over that of a perfect list."""
        ideal = self._ideal(k)
        gains = 1.0 / np.log2(np.arange(2, ideal.max(initial=0) + 2))
        perfect = np.concatenate([[0.0], np.cumsum(gains)])
        return self._sum(1.0 / np.log2(self.ranks + 1), k) / perfect[ideal]

    def recall(self, k: int | None) -> np.ndarray:
        """Hits over positives."""
        return self._sum(np.ones(len(self.ranks)), k) / self.totals

    def precision(self, k: int | None) -> np.ndarray:
        """Hits over the length of the cut list, which has to be given."""
        assert k is not None
        return self._sum(np.ones(len(self.ranks)), k) / k
