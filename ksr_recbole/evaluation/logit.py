"""A conditional logit: how much each of some features says of which item is the positive."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp


def conditional_logit(features: np.ndarray, penalties: np.ndarray | None = None) -> np.ndarray:
    """The weights under which the positives are most likely among their candidates.

    A sample of the candidates stands for all of them: the weights are estimated consistently from
    it (McFadden 1978).

    Args:
        features: of each positive, in column 0, and its negatives, ``[P, C, F]``; the first is
            the one that the search begins with.
        penalties: what each squared weight costs next to the mean loss of a positive, ``[F]``.

    Returns:
        ``float64 [F]``.
    """
    n_features = features.shape[2]
    features = features - features[:, :1]  # a positive's own are 0, so that its logit is 0
    rows = features.reshape(-1, n_features)
    costs = np.zeros(n_features) if penalties is None else penalties

    def chances_of(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = (rows @ weights.astype(rows.dtype)).reshape(features.shape[:2]).astype(float)
        total = logsumexp(logits, axis=1)
        return total, np.exp(logits - total[:, None]).astype(rows.dtype)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total, chances = chances_of(weights)
        slope = (chances.ravel() @ rows).astype(float) / len(features)
        return float(total.mean() + costs @ weights**2), slope + 2 * costs * weights

    def curvature(weights: np.ndarray) -> np.ndarray:
        _, chances = chances_of(weights)
        weighted = features * chances[:, :, None]
        means = weighted.sum(1)
        spread = weighted.reshape(rows.shape).T @ rows - means.T @ means
        return spread.astype(float) / len(features) + 2 * np.diag(costs)

    start = np.zeros(n_features)
    start[0] = 1.0
    return minimize(loss, start, jac=True, hess=curvature, method="trust-exact").x
