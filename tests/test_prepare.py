"""What a run says of its data before it trains."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ksr_recbole.dataset.sequences import UserSequences
from ksr_recbole.quick_start.prepare import n_repeats, say_repeats


@pytest.mark.parametrize("seed", range(5))
def test_repeated_interactions_are_counted(seed):
    random = np.random.default_rng(seed)
    users, items, times = (random.integers(1, most, 200) for most in (5, 6, 7))
    sequences = UserSequences.from_interactions(users, items, times.astype(float), 5, 6)
    seen = Counter(zip(users.tolist(), items.tolist(), times.tolist(), strict=True))
    assert n_repeats(sequences) == sum(count - 1 for count in seen.values()) > 0


def test_no_interactions_and_no_repeats_are_no_line(caplog):
    class Data:
        sequences = UserSequences.from_interactions(*(np.zeros(0, np.int64),) * 3, 3, 3)

    say_repeats(Data())
    assert n_repeats(Data.sequences) == 0 and caplog.text == ""
