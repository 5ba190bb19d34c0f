"""A line for each trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ksr_recbole.tuning.plan import Plan
from ksr_recbole.tuning.trials import Trial, best_of


def told(params: Mapping[str, Any]) -> str:
    """Settings in one line."""
    return ", ".join(f"{name} {_short(value)}" for name, value in params.items())


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class Progress:
    """Tells of trials as they come, with the best one so far.

    Args:
        plan: the search.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._count = 0
        self.best: Trial | None = None

    def begin(self, params: Mapping[str, Any]) -> None:
        """A trial starts; its own progress bars come below."""
        print(f"trial {self._count + 1} of {self._plan.n_trials}: {told(params)}", flush=True)

    def end(self, trial: Trial, known: bool = False) -> None:
        """A trial has ended."""
        self._count += 1
        if trial.score is not None:
            self.best = best_of([*filter(None, [self.best]), trial], self._plan.bigger)
        head = f"trial {self._count}"
        if known:
            head += f" of {self._plan.n_trials}: {told(trial.params)} (finished before)"
        if trial.score is None:
            print(f"{head} failed: {trial.error}", flush=True)
            return
        metric, best = self._plan.selected_by, self.best.score if self.best else None
        text = f"{head}: {metric} {trial.score:.4f}, best {best:.4f}"
        print(f"{text}, {trial.seconds:.1f} s", flush=True)

    def known(self, trial: Trial) -> None:
        """A trial was finished before."""
        self.end(trial, known=True)
