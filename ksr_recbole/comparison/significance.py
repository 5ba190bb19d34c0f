"""Whether one method is better than another by more than chance.

What is tested: for one metric, the mean over users of the difference between two methods, by a
paired two-sided t-test (``scipy.stats.ttest_rel``).  A user's value is the mean over the seeds
of that user's metric; both methods ranked the same positives against the same candidates under
each seed, so that users pair.  The null hypothesis is that the mean difference over the
population of users is zero.  Differences between seeds enter only through each user's mean: the
test says whether other users would show the same, not whether other seeds would.  No correction
is made for testing several methods and metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ksr_recbole.errors import UserError
from ksr_recbole.evaluation.paired_test import paired_p_value

ALPHA = 0.01
"""The p-value below which a difference counts as significant."""

LEAST_P = 1e-99
"""Smaller ones are shown as smaller: they come out as 0 in float64, which no test can give."""


@dataclass(frozen=True, eq=False)
class PerUser:
    """A metric's value for each user.

    Attributes:
        users: user ids, ascending, ``int64 [U]``.
        values: ``float64 [U]``.
    """

    users: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """A method compared with another.

    Attributes:
        difference: mean over users of the first minus the second.
        p_value: of the paired two-sided t-test
            (:func:`~ksr_recbole.evaluation.paired_test.paired_p_value`).
    """

    difference: float
    p_value: float

    @property
    def is_improvement(self) -> bool:
        """Whether the first method is significantly better."""
        return self.difference > 0 and self.p_value < ALPHA


def mean_over_seeds(runs: Sequence[PerUser]) -> PerUser:
    """Each user's mean over several runs.

    Args:
        runs: one metric's values under each seed, at least one.

    Raises:
        UserError: the runs have different users.
    """
    first = runs[0]
    for other in runs[1:]:
        _check_same_users(first, other)
    return PerUser(first.users, np.mean([run.values for run in runs], axis=0))


def compare(first: PerUser, second: PerUser) -> Comparison:
    """Test the difference of two methods over the same users.

    Args:
        first: one metric of the first method.
        second: the same metric of the second.

    Raises:
        UserError: the methods have different users.
    """
    _check_same_users(first, second)
    difference = float(np.mean(first.values - second.values))
    return Comparison(difference, paired_p_value(first.values, second.values))


def _check_same_users(first: PerUser, second: PerUser) -> None:
    if not np.array_equal(first.users, second.users):
        raise UserError(
            f"Two results cannot be compared, because one has {len(first.users)} users and the "
            f"other {len(second.users)}, not the same ones; remove the benchmark's cells of this "
            "dataset and run it again."
        )
