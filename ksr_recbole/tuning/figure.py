"""The figure of a search: the score by each setting."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from ksr_recbole.drawing import HIGHLIGHT, new_figure
from ksr_recbole.tuning.plan import Plan
from ksr_recbole.tuning.space import Range
from ksr_recbole.tuning.trials import Trial

_COLUMNS = 3
_LOGARITHMIC = 30.0
"""A range of positive numbers this many times as large as its smallest is shown in logarithms."""


def draw(plan: Plan, trials: Sequence[Trial], best: Trial, path: str | os.PathLike[str]) -> None:
    """Draw a panel for each range as a PNG file; trials that failed are left out.

    Args:
        plan: the search.
        trials: its trials.
        best: the best of them, which stands out.
        path: where to.
    """
    scored = [trial for trial in trials if trial.score is not None]
    columns = min(_COLUMNS, len(plan.ranges))
    rows = ceil(len(plan.ranges) / columns)
    figure = new_figure(4 * columns + 1, 3.2 * rows + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, each in zip(panels, plan.ranges, strict=False):
        _draw_panel(axes, each, scored, best)
        axes.set_ylabel(plan.selected_by)
    for axes in panels[len(plan.ranges) :]:
        axes.set_axis_off()
    request = plan.request
    figure.suptitle(f"{request.model} on {request.dataset}, validation, {plan.mode}")
    figure.savefig(path, format="png", dpi=150)


def _draw_panel(axes: Any, each: Range, scored: Sequence[Trial], best: Trial) -> None:
    places = _places(each, [trial.params[each.name] for trial in scored])
    scores = [trial.score for trial in scored]
    axes.scatter(places, scores, s=18, color="#4477aa", alpha=0.7)
    at = next(k for k, trial in enumerate(scored) if trial is best)
    axes.scatter([places[at]], [best.score], s=60, color=HIGHLIGHT, marker="*")
    axes.set_xlabel(each.name)
    if each.kind == "choice":
        axes.set_xticks(np.arange(len(each.values)), [str(value) for value in each.values])
    elif each.kind == "loguniform" or 0 < each.values[0] * _LOGARITHMIC <= each.values[1]:
        axes.set_xscale("log")


def _places(each: Range, values: Sequence[Any]) -> list[float]:
    """Where on the axis: choices side by side, whatever they are."""
    if each.kind != "choice":
        return [float(value) for value in values]
    choices = [list(v) if isinstance(v, tuple) else v for v in each.values]  # as JSON has them
    return [float(choices.index(value)) for value in values]
