"""What an item that a user had before means, as in the plays of a track: see docs/protocol.md."""

from __future__ import annotations

import numpy as np
import torch

from ksr_recbole.dataset.negatives import NegativeSampler
from ksr_recbole.dataset.sequences import (
    Split,
    UserSequences,
    leave_one_out,
    leave_one_session_out,
)
from ksr_recbole.evaluation.candidates import draw_candidates, phase_targets
from ksr_recbole.evaluation.evaluator import evaluate_full

DAY = 86_400
N_ITEMS = 12
PLAYS = [(1, 0), (2, 10), (1, 20), (1, DAY), (3, DAY + 1), (1, 2 * DAY), (4, 2 * DAY + 1),
         (1, 2 * DAY + 2)]  # fmt: skip
"""Track and time: 1 is played again within a day, on the next day, and twice on the last one."""


def sequences() -> UserSequences:
    items, times = map(np.array, zip(*PLAYS, strict=True))
    users = np.ones(len(PLAYS), dtype=np.int64)
    return UserSequences.from_interactions(users, items, times, n_users=2, n_items=N_ITEMS)


class ByNumber:
    """The higher the id of an item, the better."""

    def score_all(self, users: np.ndarray, history_end: np.ndarray) -> torch.Tensor:
        return torch.arange(N_ITEMS).float().repeat(len(users), 1)


def full_ranks(split: Split) -> list[int]:
    ranked = evaluate_full(ByNumber(), sequences(), split, "test", ["MRR"], [10], 4)
    return ranked.ranks.tolist()


def test_a_repeated_target_is_a_positive_and_never_a_candidate():
    split = leave_one_out(sequences())
    users, items = phase_targets(sequences(), split, "test")
    assert (users.tolist(), items.tolist()) == ([1], [1])
    drawn = draw_candidates(sequences(), split, "test", 2020, n_uniform=3, n_popular=3)
    assert not {1, 2, 3, 4} & set(drawn.negatives.ravel().tolist())


def test_a_repeated_target_is_ranked_although_the_history_has_it():
    # Items 5 to 11 are ahead of track 1; 2, 3 and 4 are of the history and left out.
    assert full_ranks(leave_one_out(sequences())) == [8]


def test_what_is_played_twice_in_a_session_is_one_positive():
    split = leave_one_session_out(sequences(), DAY)
    assert phase_targets(sequences(), split, "test")[1].tolist() == [1, 4]
    assert full_ranks(split) == [9, 8]  # 1 behind 4, which is new, and both behind 5 to 11


def test_what_was_played_in_training_is_no_negative():
    plays = sequences()
    indices, users = leave_one_out(plays).training_interactions(plays)
    sampler = NegativeSampler(users, plays.items[indices], N_ITEMS, "uniform", 1.0)
    drawn = sampler.sample(np.ones(200, dtype=np.int64), 1, np.random.default_rng(0))
    assert set(drawn.ravel().tolist()) == set(range(4, N_ITEMS))
