"""Trials: runs that are compared on validation, to choose settings.

They are cells as any other.  Here is what the trials of ``run_benchmark.py --study=tuning``, which
come from a file (:mod:`ksr_recbole.comparison.trial_files`), and those of ``run_hyper.py``, which a
search draws, have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ksr_recbole.comparison.results import Row, on_candidates, spread
from ksr_recbole.comparison.table import Line, Table, Value, with_rules


@dataclass(frozen=True, eq=False)
class Trial:
    """A trial's validation results.

    Attributes:
        row: the row.
        score: the mean over seeds of what trials are chosen by, ``None`` if it failed.
        chosen: it is its model's best.
    """

    row: Row
    score: float | None
    chosen: bool

    @property
    def seconds(self) -> float | None:
        """Mean wall-clock seconds of its finished runs that were not interrupted, if there are."""
        whole = (cell.record for cell in self.row.finished() if not cell.record["resumed"])
        seconds = [record["wall_seconds"] for record in whole]
        return float(np.mean(seconds)) if seconds else None


def rank_trials(
    rows: Sequence[Row], score: Callable[[Row], float], bigger: bool = True
) -> list[Trial]:
    """Trials model by model, the best on validation first, the failed last.

    Args:
        rows: the trials; of equal ones the first is the better.
        score: what they are chosen by, of a row without an error.
        bigger: whether more of it is better.
    """
    sign = -1 if bigger else 1
    trials: list[Trial] = []
    for model in dict.fromkeys(row.setting.model for row in rows):
        mine = [row for row in rows if row.setting.model == model]
        scored = [(None if row.error else score(row), row) for row in mine]
        scored.sort(key=lambda pair: np.inf if pair[0] is None else sign * pair[0])
        trials += [
            Trial(row, found, chosen=position == 0 and found is not None)
            for position, (found, row) in enumerate(scored)
        ]
    return trials


@dataclass(frozen=True)
class TrialTable:
    """How the table of some trials looks.

    Attributes:
        caption: what it shows.
        mode: the evaluation mode shown.
        metrics: heads of columns, and RecBole's names of the metrics below them.
        texts: heads of the columns after these, and what stands in them.
        error: what stands there for a trial that failed.
        mark: what stands behind the best trial of a model.
        selected_by: name of the metric that trials are chosen by.
    """

    caption: str
    mode: str
    metrics: Mapping[str, str]
    texts: Mapping[str, Callable[[Trial], str]]
    error: Callable[[Trial], str]
    mark: str
    selected_by: str


def trial_table(trials: Sequence[Trial], layout: TrialTable) -> Table:
    """All trials, the best one of each model first and marked.

    Args:
        trials: from :func:`rank_trials`.
        layout: how it looks.
    """
    lines = []
    for trial in trials:
        label = f"{trial.row.setting.label}{f' ({layout.mark})' if trial.chosen else ''}"
        if trial.score is None:
            lines.append(Line(label, error=layout.error(trial)))
            continue
        values = trial.row.values(layout.mode, "valid", layout.metrics.values()).values()
        figures = [Value(float(np.mean(v)), spread(v), best=trial.chosen) for v in values]
        texts = [text(trial) for text in layout.texts.values()]
        lines.append(Line(label, (*figures, *texts)))
    return Table(
        layout.caption,
        (*layout.metrics, *layout.texts),
        tuple(with_rules(lines, [trial.row.setting.model for trial in trials])),
        (
            f"Chosen by {layout.selected_by} on validation; test items play no part.",
            *on_candidates([trial.row for trial in trials], layout.mode, "valid"),
        ),
    )


def describe(params: Mapping[str, Any], written: Callable[[Any], str] = str) -> str:
    """Settings in one line.

    Args:
        params: config values by key.
        written: a value as it stands there.
    """
    return ", ".join(f"{name} {written(value)}" for name, value in params.items())


def short(value: Any) -> str:
    """A setting's value in a few letters."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def seconds_of(trial: Trial) -> str:
    """A trial's seconds as they are shown; those of an interrupted one are not known."""
    return "-" if trial.seconds is None else f"{trial.seconds:.1f}"
