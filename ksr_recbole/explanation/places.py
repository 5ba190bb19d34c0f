"""Where true entities stand among the others of their range, with ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ksr_recbole.dataset.sequences import ragged_positions


@dataclass(frozen=True, eq=False)
class Places:
    """The place of each of ``T`` true entities among the false ones of its range.

    An item may have several true entities; each is ranked against the false ones only, as in
    the filtered ranking of knowledge graph completion.

    Attributes:
        better: false entities with a higher score, ``int64 [T]``.
        equal: false entities with the same score, ``int64 [T]``.
    """

    better: np.ndarray
    equal: np.ndarray

    @classmethod
    def of(cls, scores: Tensor, rows: np.ndarray, columns: np.ndarray, lists: np.ndarray) -> Places:
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
    def all_equal(cls, n_false: np.ndarray) -> Places:
        """The places if every entity has the same score, ``n_false int64 [T]`` of them false."""
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


def _among_all(scores: Tensor, rows: np.ndarray, own: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Entities of each row with a higher score than ``own [T]``, and with the same (itself too)."""
    counts = np.bincount(rows, minlength=len(scores))
    _, places = ragged_positions(counts)
    at = torch.from_numpy(rows), torch.from_numpy(places)
    asked = own.new_zeros(len(scores), int(counts.max(initial=0)))
    asked[at] = own
    ordered = scores.sort(dim=1).values
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
