"""One trial after the other, chosen by hyperopt through RecBole's ``HyperTuning``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from hyperopt import STATUS_FAIL, STATUS_OK, Trials, fmin, hp
from hyperopt.exceptions import AllTrialsFailed
from recbole.trainer import HyperTuning

from ksr_recbole.tuning.objective import run_trial
from ksr_recbole.tuning.plan import Plan
from ksr_recbole.tuning.progress import Progress
from ksr_recbole.tuning.space import Range
from ksr_recbole.tuning.trials import Trial, TrialLog


def hyperopt_space(ranges: Sequence[Range]) -> dict[str, Any]:
    """The ranges as hyperopt draws from them; choices by their place, whatever they are."""
    draw = {"uniform": hp.uniform, "quniform": hp.quniform, "loguniform": hp.loguniform}
    return {
        each.name: hp.choice(each.name, list(range(len(each.values))))
        if each.kind == "choice"
        else draw[each.kind](each.name, *each.values)
        for each in ranges
    }


class Search(HyperTuning):
    """RecBole's search, with trials that may fail, are kept, and are not run again.

    The draws depend on the seed and the scores alone.  So a search that was interrupted is
    simply searched again: what it draws is answered from the log until it comes to what was
    not finished.

    Args:
        plan: what is searched.
        log: the finished trials.
    """

    def __init__(self, plan: Plan, log: TrialLog) -> None:
        request = plan.request
        super().__init__(
            None,
            space=hyperopt_space(plan.ranges),
            algo=request.algo,
            max_evals=plan.n_trials,
        )
        self.plan, self.log = plan, log
        self.early_stop_fn = self._stop
        self.finished: list[Trial] = []
        self._progress = Progress(plan)

    def run(self) -> list[Trial]:
        """Search, and return the trials in their order."""
        with suppress(AllTrialsFailed):  # the report says so, with each trial's error
            fmin(
                self.trial,
                self.space,
                algo=self.algo,
                max_evals=self.max_evals,
                trials=Trials(),
                allow_trials_fmin=False,
                rstate=np.random.RandomState(self.plan.seed),
                early_stop_fn=self.early_stop_fn,
                show_progressbar=False,
                return_argmin=False,
            )
        return self.finished

    def trial(self, params: dict[str, Any]) -> dict[str, Any]:
        """Answer hyperopt: from the log, or by running the trial."""
        decoded = self.plan.decode(params)
        found = self.log.find(self.plan.trial_key(decoded))
        if found is None or (found.error and self.plan.request.retry_failed):
            self._progress.begin(decoded)
            found = run_trial(self.plan, decoded)
            self.log.add(found)
            self._progress.end(found)
        else:
            self._progress.known(found)
        self.finished.append(found)
        if found.score is None:
            return {"status": STATUS_FAIL}
        return {"status": STATUS_OK, "loss": -found.score if self.plan.bigger else found.score}

    def _stop(self, trials: Trials, *_: Any) -> tuple[bool, list]:
        """Whether the last ``early_stop`` trials brought nothing better."""
        patience, best = self.plan.request.early_stop, self._progress.best
        if patience is None or best is None:
            return False, []
        return len(self.finished) - 1 - self.finished.index(best) >= patience, []
