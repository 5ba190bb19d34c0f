"""Negative items for training: items the user has not interacted with in training."""

from __future__ import annotations

import numpy as np

from ksr_recbole.errors import UserError


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
        distribution: str = "uniform",
        alpha: float = 1.0,
    ) -> None:
        self._n_items = n_items
        self._seen = np.unique(users * n_items + items)
        distinct = np.bincount(self._seen // self._n_items, minlength=1)
        if distinct.max() >= self._n_items - 1:
            raise UserError(
                "A user has interacted with every item in training, so no negative item "
                "exists; drop such users with user_inter_num_interval."
            )
        self._cumulative = None
        if distribution == "popularity":
            counts = np.bincount(items, minlength=self._n_items).astype(np.float64)
            weights = np.where(counts > 0, counts**alpha, 0.0)
            self._cumulative = np.cumsum(weights) / weights.sum()

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
        for k in pending:
            row = np.arange(1, self._n_items)
            free = row[~np.isin(owners[k] * self._n_items + row, self._seen)]
            drawn[k] = rng.choice(free)
        return drawn.reshape(len(users), n)

    def _draw(self, size: int, rng: np.random.Generator, uniform: bool = False) -> np.ndarray:
        if self._cumulative is None or uniform:
            return rng.integers(1, self._n_items, size)
        return np.searchsorted(self._cumulative, rng.random(size), side="right")
