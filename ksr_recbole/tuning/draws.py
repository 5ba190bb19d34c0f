"""Which settings to try next: every combination, draws, or hyperopt's tree of Parzen estimators.

The names are RecBole's.  Its ``HyperTuning`` is not used: it evaluates what stands in the file of
ranges as Python and runs one trial after the other.  hyperopt is asked for one trial at a time and
hears how it ended, so that trials may run side by side, and versions 0.2.5 to 0.3 all work.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from typing import Any, Protocol

import numpy as np

from ksr_recbole.errors import UserError
from ksr_recbole.tuning.space import Range

ALGORITHMS = ("exhaustive", "random", "bayes")
"""RecBole's names of what can draw the trials."""


class Draws(Protocol):
    """What draws the trials."""

    def ask(self, number: int) -> dict[str, Any] | None:
        """The config values of a new trial, to be called ``number``; ``None`` if none is left."""

    def tell(self, number: int, loss: float | None) -> None:
        """How the trial of that number ended: less is better, ``None`` if it failed."""


def draws_of(algo: str, ranges: Sequence[Range], seed: int) -> Draws:
    """What draws the trials of a search; with the same seed and losses it draws the same.

    Raises:
        UserError: hyperopt is needed and cannot be imported.
    """
    if algo == "exhaustive":
        return Exhaustive(ranges, seed)
    try:
        return Hyperopt(algo, ranges, seed)
    except ModuleNotFoundError as error:
        raise UserError(
            f"--algo={algo} needs {error.name}; run `pip install -r requirements.txt` first."
        ) from error


class Exhaustive:
    """Every combination of the choices once, in an order drawn by the seed."""

    def __init__(self, ranges: Sequence[Range], seed: int) -> None:
        combinations = list(product(*(each.values for each in ranges)))
        random.Random(seed).shuffle(combinations)
        self._names = [each.name for each in ranges]
        self._left = iter(combinations)

    def ask(self, number: int) -> dict[str, Any] | None:
        """See :class:`Draws`."""
        values = next(self._left, None)
        return None if values is None else dict(zip(self._names, values, strict=True))

    def tell(self, number: int, loss: float | None) -> None:
        """Nothing depends on it."""


class Hyperopt:
    """hyperopt's ``rand`` or ``tpe``, as its ``fmin`` calls them."""

    def __init__(self, algo: str, ranges: Sequence[Range], seed: int) -> None:
        import hyperopt
        from hyperopt.base import Domain

        self._suggest = {"random": hyperopt.rand, "bayes": hyperopt.tpe}[algo].suggest
        self._domain = Domain(lambda drawn: 0.0, hyperopt_space(ranges))
        self._trials = hyperopt.Trials()
        self._seeds = np.random.RandomState(seed)
        self._ranges = ranges
        self._running: dict[int, dict[str, Any]] = {}

    def ask(self, number: int) -> dict[str, Any]:
        """See :class:`Draws`."""
        seed = int(self._seeds.randint(2**31 - 1))
        [trial] = self._suggest([number], self._domain, self._trials, seed)
        self._running[number] = trial
        drawn = trial["misc"]["vals"]
        return {each.name: each.decode(drawn[each.name][0]) for each in self._ranges}

    def tell(self, number: int, loss: float | None) -> None:
        """See :class:`Draws`."""
        from hyperopt import JOB_STATE_DONE, STATUS_FAIL, STATUS_OK

        trial = self._running.pop(number)
        trial["state"] = JOB_STATE_DONE
        failed = loss is None
        trial["result"] = {"status": STATUS_FAIL} if failed else {"status": STATUS_OK, "loss": loss}
        self._trials.insert_trial_docs([trial])
        self._trials.refresh()


def hyperopt_space(ranges: Sequence[Range]) -> dict[str, Any]:
    """The ranges as hyperopt draws from them; of choices their numbers, whatever they are."""
    from hyperopt import hp

    draw = {"uniform": hp.uniform, "quniform": hp.quniform, "loguniform": hp.loguniform}
    return {
        each.name: hp.choice(each.name, list(range(len(each.values))))
        if each.kind == "choice"
        else draw[each.kind](each.name, *each.values)
        for each in ranges
    }
