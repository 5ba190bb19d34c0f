"""Negative items for training: a few for each position, or a sample that a batch shares."""

from __future__ import annotations

import numpy as np

from ksr_recbole.dataset.sequences import sorted_distinct
from ksr_recbole.errors import UserError


def no_negative_item() -> UserError:
    """The error for a user for whom no negative item can be drawn."""
    return UserError(
        "A user has interacted with every item in training, so no negative item exists; drop such "
        "users with user_inter_num_interval."
    )


class NegativeSampler:
    """Draws the items of :math:`I_u^-` in Eq. 11, for many positions at once.

    Args:
        users: user ids of the training interactions, ``int64 [n]``.
        items: their item ids, ``int64 [n]``.
        n_items: number of item ids, counting padding.
        distribution: ``"uniform"`` or ``"popularity"`` (training counts to the power alpha),
            as in RecBole's ``train_neg_sample_args``.
        alpha: that power.

    Raises:
        UserError: a user has interacted with every item, so no negative exists.
    """

    def __init__(
        self,
        users: np.ndarray,
        items: np.ndarray,
        n_items: int,
        distribution: str,
        alpha: float,
    ) -> None:
        self._n_items = n_items
        self._seen = sorted_distinct(users * n_items + items)
        distinct = np.bincount(self._seen // self._n_items, minlength=1)
        if distinct.max() >= self._n_items - 1:
            raise no_negative_item()
        self._cumulative = None
        if distribution == "popularity":
            counts = np.bincount(items, minlength=self._n_items).astype(np.float64)
            with np.errstate(over="ignore"):
                sums = np.cumsum(np.where(counts > 0, counts**alpha, 0.0))
            if not np.isfinite(sums[-1]):  # not in any case: other rounding is other draws
                sums = np.cumsum(np.where(counts > 0, (counts / counts.max()) ** alpha, 0.0))
            self._cumulative = sums / sums[-1]  # which ends with 1, so that no draw is beyond it

    def sample(self, users: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw ``n`` negatives (with replacement) for each entry of ``users``.

        Args:
            users: user ids, ``int64 [P]``.
            n: negatives per entry.
            rng: the source of randomness.

        Returns:
            Item ids, ``int64 [P, n]``.
        """
        owners = np.repeat(users.astype(np.int64), n)
        drawn = self._draw(len(owners), rng)
        pending = np.arange(len(owners))
        # Rejection: each round redraws only what hit an item of the user's.  A popularity
        # draw could have no accepted outcome, so late rounds draw uniformly.
        for attempt in range(1_000):
            codes = owners[pending] * self._n_items + drawn[pending]
            at = np.searchsorted(self._seen, codes)
            hit = self._seen[np.minimum(at, len(self._seen) - 1)] == codes
            pending = pending[hit]
            if len(pending) == 0:
                return drawn.reshape(len(users), n)
            drawn[pending] = self._draw(len(pending), rng, uniform=attempt >= 100)
        # Reached only by users who have seen nearly everything: choose among what is left.
        for user in np.unique(owners[pending]):
            at = pending[owners[pending] == user]
            drawn[at] = rng.choice(self._not_seen_by(user), len(at))
        return drawn.reshape(len(users), n)

    def _not_seen_by(self, user: int) -> np.ndarray:
        first = user * self._n_items
        low, high = np.searchsorted(self._seen, (first, first + self._n_items))
        free = np.ones(self._n_items, dtype=bool)
        free[0] = False
        free[self._seen[low:high] - first] = False
        return np.flatnonzero(free)

    def _draw(self, size: int, rng: np.random.Generator, uniform: bool = False) -> np.ndarray:
        if self._cumulative is None or uniform:
            return rng.integers(1, self._n_items, size)
        return np.searchsorted(self._cumulative, rng.random(size), side="right")


class SharedSampler:
    """Draws the items that all positions of a batch are compared with.

    Every sample has ``n`` different items.  An item's chance to be in it grows with the mixture
    of its share of the training interactions and of an equal share; popular items may be in every
    sample.  Drawing is systematic, in an order of the items that :meth:`shuffle` draws, so that
    the chances are exact and a sample costs nothing by the item.

    Reference:
        William G. Madow: "On the Theory of Systematic Sampling, II", Annals of Mathematical
        Statistics 20, 1949.

    Args:
        items: item ids of the training interactions, ``int64 [n_interactions]``.
        n_items: number of item ids, counting padding.
        n: size of a sample; all items if there are not as many.
        popularity: weight of the share of the interactions in the mixture, in [0, 1).
    """

    def __init__(self, items: np.ndarray, n_items: int, n: int, popularity: float) -> None:
        counts = np.bincount(items, minlength=n_items)[1:].astype(np.float64)
        weights = popularity * counts / max(counts.sum(), 1) + (1 - popularity) / len(counts)
        self.inclusion_probs = _inclusion(weights, n)
        """Chance of every item but padding to be in a sample, ``float64 [n_items - 1]``."""
        certain = self.inclusion_probs > 1 - 1e-9
        self._certain, self._others = np.flatnonzero(certain), np.flatnonzero(~certain)
        self._n_drawn = min(n, len(counts)) - len(self._certain)
        self.shuffle(np.random.default_rng(0))

    def shuffle(self, rng: np.random.Generator) -> None:
        """Draw a new order, which takes as long as there are items: once an epoch."""
        self._order = rng.permutation(self._others)
        ends = np.cumsum(self.inclusion_probs[self._order])
        # Without rounding the sum would be a whole number.
        self._ends = ends * (self._n_drawn / ends[-1]) if self._n_drawn else ends

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw a sample.

        Returns:
            Item ids in rising order, ``int64 [n]``, and the logarithm of their chances to be
            drawn, ``float32 [n]``.
        """
        points = rng.random() + np.arange(self._n_drawn)
        at = np.searchsorted(self._ends, points, side="right").clip(max=len(self._order) - 1)
        found = np.sort(np.concatenate([self._certain, self._order[at]]))
        return found + 1, np.log(self.inclusion_probs[found]).astype(np.float32)


def _inclusion(weights: np.ndarray, n: int) -> np.ndarray:
    """Chances in proportion to positive ``weights``, at most 1, whose sum is ``n`` (or all 1)."""
    if n >= len(weights):
        return np.ones_like(weights)
    certain = np.zeros(len(weights), dtype=bool)
    while True:
        left = weights[~certain]
        factor = (n - np.count_nonzero(certain)) / left.sum()
        more = ~certain & (weights * factor >= 1)
        if not more.any():
            return np.where(certain, 1.0, weights * factor)
        certain |= more
