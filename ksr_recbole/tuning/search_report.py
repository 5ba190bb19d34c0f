"""What a search leaves: a table of trials, a figure, everything as JSON, and the best settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ksr_recbole.comparison.cells import environment_without_places
from ksr_recbole.comparison.report import used_table1, write_tables
from ksr_recbole.comparison.results import Row
from ksr_recbole.comparison.store import Failed, Outcome
from ksr_recbole.comparison.text_table import as_printed
from ksr_recbole.comparison.trials import (
    Trial,
    TrialTable,
    describe,
    seconds_of,
    short,
    trial_table,
)
from ksr_recbole.config.config import nest
from ksr_recbole.drawing import HIGHLIGHT, new_figure, plain_text
from ksr_recbole.files import replacing
from ksr_recbole.quick_start.result import environment
from ksr_recbole.records import as_json_values
from ksr_recbole.tuning.request import Plan
from ksr_recbole.tuning.space import Range


@dataclass(frozen=True, eq=False)
class Tried:
    """A trial that has ended.

    Attributes:
        key: of its cell, or of its settings if they are refused.
        row: its number as the label, its settings, and how it ended.
    """

    key: str
    row: Row

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        [outcome] = self.row.cells.values()
        return outcome


def report(plan: Plan, tried: Sequence[Tried]) -> tuple[str, list[Path]]:
    """Write a search's files, all or none of them.

    Args:
        plan: the search.
        tried: its trials in the order of their numbers.

    Returns:
        The table as text, and the files.  Without a trial that succeeded there is no figure
        and no file of best settings, and none of an earlier search stays.

    Raises:
        UserError: the files cannot be written.
    """
    trials = plan.rank([each.row for each in tried])
    best = next((each for each in trials if each.chosen), None)
    table = trial_table(trials, _layout(plan, best))
    paths = {
        "md": plan.request.output_file or plan.file("md"),
        "json": plan.file("json"),
        "png": plan.request.display_file or plan.file("png"),
        "yaml": plan.file("yaml"),
    }
    stale: list[Path] = []
    if best is None:
        stale = [plan.file("png"), plan.file("yaml")]  # never one that a user has named
        del paths["png"], paths["yaml"]

    def owned(name: str) -> bool:
        return name.startswith(plan.file("").name)

    with replacing(*paths.values(), removed=stale, owned=owned) as temporaries:
        files = dict(zip(paths, temporaries, strict=True))
        content = _as_json(plan, tried, best)
        write_tables(files["md"], files["json"], [table], content)
        if best is not None:
            files["yaml"].write_text(_best_settings(plan, trials, best), encoding="utf-8")
            _draw(plan, trials, best, files["png"])
    return as_printed([table]), list(paths.values())


def _layout(plan: Plan, best: Trial | None) -> TrialTable:
    names = best.row.finished()[0].every_metric(plan.mode, "valid") if best else ()

    def settings(trial: Trial) -> str:
        return describe(trial.row.setting.overrides, short)

    def epochs(trial: Trial) -> str:
        [cell] = trial.row.finished()
        return f"{cell.result['best_epoch']} of {cell.result['epochs_trained']}"

    return TrialTable(
        f"Tuning {plan.request.model}: {plan.request.dataset}, validation, {plan.mode}",
        plan.mode,
        {name: name for name in names},
        {
            "best epoch (from 0)": epochs,
            "seconds": seconds_of,
            "settings": settings,
        },
        error=lambda trial: f"{settings(trial)}: {trial.row.error}",
        mark="best",
        selected_by=plan.selected_by,
    )


def _best_settings(plan: Plan, trials: Sequence[Trial], best: Trial) -> str:
    """The best settings as a YAML file for ``run_recbole.py --config_files``."""
    scored = sum(trial.score is not None for trial in trials)
    names = {"model": plan.request.model, "dataset": plan.request.dataset}
    values = as_json_values(nest({**plan.given, **names, **best.row.setting.overrides}))
    comment = (
        f"# Best of {scored} trials by {plan.selected_by} on validation ({plan.mode}): "
        f"{best.score:.4f}.\n"
    )
    return comment + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _as_json(plan: Plan, tried: Sequence[Tried], best: Trial | None) -> dict[str, Any]:
    request, rows = plan.request, [each.row for each in tried]
    described = {each.row.setting.label: _trial_as_json(plan, each) for each in tried}
    return {
        "model": request.model,
        "dataset": request.dataset,
        "table1": used_table1(request.dataset, plan.table1, rows),
        "params_file": str(request.params_file),
        "ranges": [asdict(each) for each in plan.ranges],
        "algo": request.algo,
        "tool": request.tool,
        "max_evals": plan.n_trials,
        "early_stop": request.early_stop,
        "seed": plan.seed,
        "given": plan.given,
        "selected_by": plan.selected_by,
        "mode": plan.mode,
        "phase": "valid",
        "best": described[best.row.setting.label] if best else None,
        "trials": list(described.values()),
        "environment": environment_without_places(environment()),
    }


def _trial_as_json(plan: Plan, tried: Tried) -> dict[str, Any]:
    """A trial's settings and how it fared on validation."""
    outcome, told = tried.outcome, {"key": tried.key, "params": tried.row.setting.overrides}
    if isinstance(outcome, Failed):
        nothing = dict.fromkeys(("score", "metrics", "best_epoch", "epochs_trained"))
        return {
            **told,
            **nothing,
            "seconds": outcome.seconds,
            "notes": [],
            "error": outcome.error,
        }
    result = outcome.result
    return {
        **told,
        "score": plan.score(tried.row),
        "metrics": outcome.every_metric(plan.mode, "valid"),
        "best_epoch": result["best_epoch"],
        "epochs_trained": result["epochs_trained"],
        "seconds": outcome.record["wall_seconds"],
        "notes": result["pretraining"],
        "error": None,
    }


# The figure -------------------------------------------------------------------------------------

_COLUMNS = 3
_LOGARITHMIC = 30.0
"""A range of positive numbers this many times as large as its smallest is shown in logarithms."""


@plain_text()
def _draw(plan: Plan, trials: Sequence[Trial], best: Trial, path: str | os.PathLike[str]) -> None:
    """Draw the score by each setting as a PNG file; trials that failed are left out."""
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
    positions = _positions(each, [trial.row.setting.overrides[each.name] for trial in scored])
    axes.scatter(positions, [trial.score for trial in scored], s=18, color="#4477aa", alpha=0.7)
    at = positions[scored.index(best)]
    axes.scatter([at], [best.score], s=60, color=HIGHLIGHT, marker="*")
    axes.set_xlabel(each.name)
    if each.kind == "choice":
        axes.set_xticks(np.arange(len(each.values)), [str(value) for value in each.values])
    elif each.kind == "loguniform" or 0 < each.values[0] * _LOGARITHMIC <= each.values[1]:
        axes.set_xscale("log")


def _positions(each: Range, values: Sequence[Any]) -> list[float]:
    """Where on the axis: choices side by side, whatever they are."""
    if each.kind != "choice":
        return [float(value) for value in values]
    choices = as_json_values(each.values)  # as trials have them
    return [float(choices.index(value)) for value in values]
