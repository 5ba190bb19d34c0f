"""The paired t-test of two methods over the same users."""

from __future__ import annotations

import numpy as np
from scipy.stats import ttest_rel


def paired_p_value(first: np.ndarray, second: np.ndarray) -> float:
    """The p-value of a paired two-sided t-test.

    Args:
        first: a value of each user, ``float64 [U]``.
        second: the same of another method, ``float64 [U]``.

    Returns:
        1 if the methods are equal for every user or there are fewer than two users, so that
        nothing can be told; 0 if all users differ by the same amount, so that the statistic is
        infinite.
    """
    differences = first - second
    if len(differences) < 2 or not differences.any():
        return 1.0
    if np.all(differences == differences[0]):
        return 0.0  # SciPy would divide by a spread of zero
    return float(ttest_rel(first, second).pvalue)
