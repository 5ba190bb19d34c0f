"""The trials of ``run_benchmark.py --study=tuning``, which come from a file: study and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ksr_recbole import digests
from ksr_recbole.choices import nearest
from ksr_recbole.comparison.cells import TABLE3_METRICS
from ksr_recbole.comparison.plan import Plan
from ksr_recbole.comparison.report import (
    about,
    metric_as_json,
    paths_for,
    write_tables,
)
from ksr_recbole.comparison.results import Row
from ksr_recbole.comparison.studies import TUNING, Setting, Study, protocol_values
from ksr_recbole.comparison.text_table import as_printed
from ksr_recbole.comparison.trials import (
    Trial,
    TrialTable,
    describe,
    rank_trials,
    seconds_of,
    trial_table,
)
from ksr_recbole.config.keys import TEXTS, before_choice, check_keys, model_options, names_of
from ksr_recbole.config.literals import read_yaml
from ksr_recbole.errors import UserError, shown
from ksr_recbole.files import replacing
from ksr_recbole.registry import MODELS, comparable

_SELECTED_BY = "mrr"


def tuning_study(models: Sequence[str] | None, path: Path, dataset: str) -> Study:
    """A study with a row for each trial of each model.

    A trial says what differs from ``configs/model/<model>.yaml``, whatever was chosen since for
    the task, the dataset or both (in ``<task>/``, ``<dataset>/`` and ``<dataset>/<task>/`` below
    ``configs/model/``).

    Args:
        models: the models to tune; by default those of the file that are compared here.
        path: the file of trials, named after the task.
        dataset: name of the dataset they are run on.

    Raises:
        UserError: the file is missing, malformed or unfair, or has no trials for a model.
    """
    trials = read_trials(path)
    if models is None:
        models = [name for name in trials if name in MODELS] or list(trials)
    missing = [name for name in models if name not in trials]
    if missing:
        raise UserError(
            f"{path} has no trials for {', '.join(missing)}; add some, or leave it out of --models."
        )
    settings = tuple(
        Setting(f"{name} {number}", name, options, group=name)
        for name in models
        for number, options in enumerate(_different(name, trials[name], path, dataset), start=1)
    )
    own_report = "ksr_recbole.comparison.trial_files:report_tuning"
    return Study(TUNING, "Trials on validation", settings, phase="valid", report=own_report)


def _different(
    name: str, trials: Sequence[dict[str, Any]], path: Path, dataset: str
) -> list[dict[str, Any]]:
    """The trials of a model, with what was chosen for task and dataset since taken back.

    Raises:
        UserError: two of them are the same setting, so that the model would have fewer.
    """
    before = before_choice(name, dataset, path.stem)
    full = [{**before, **protocol_values(name), **trial} for trial in trials]
    firsts: dict[str, int] = {}
    for number, options in enumerate(full, start=1):
        key = digests.of_values({**model_options(name), **options})
        if firsts.setdefault(key, number) != number:
            raise UserError(
                f"Trials {firsts[key]} and {number} of {name} in {path} are the same setting; "
                "change one, so that no model is tuned with fewer trials than another."
            )
    return full


def _differing(setting: Setting) -> dict[str, Any]:
    """What a trial changes in its model's options."""
    options = model_options(setting.model)
    return {k: v for k, v in setting.overrides.items() if k not in options or options[k] != v}


def read_trials(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Trials by model.

    Raises:
        UserError: the file is missing or malformed, names an unknown model or config key, or
            gives one model more trials than another.
    """
    content = read_yaml(path, TEXTS, "File of trials")
    if not content:
        raise UserError(f"The file of trials {path} must map each model to a list of trials.")
    known = comparable()
    for name, trials in content.items():
        if name not in known:
            raise UserError(
                f"{path} has trials for '{shown(name)}', which is no model compared here"
                f"{nearest(str(name), known) or '.'}"
            )
        if not isinstance(trials, list) or not all(isinstance(trial, dict) for trial in trials):
            raise UserError(
                f"The trials of {shown(name)} in {path} must be a list of `key: value` maps."
            )
        for trial in trials:
            check_keys(names_of(trial), f"the trials of {name} in {path}")
    _check_fair(content, path)
    return content


def _check_fair(trials: dict[str, list[dict[str, Any]]], path: Path) -> None:
    numbers = {name: len(each) for name, each in trials.items()}
    if len(set(numbers.values())) > 1 or not all(numbers.values()):
        counts = ", ".join(f"{name} {number}" for name, number in numbers.items())
        raise UserError(
            f"Every model in {path} must have the same number of trials, at least one, so that "
            f"none is tuned harder than another; it has: {counts}."
        )


def report_tuning(plan: Plan, rows: Sequence[Row]) -> tuple[str, list[Path]]:
    """Write the trials of each task; nothing in them comes from the test items.

    Returns:
        The tables as text, and the files.

    Raises:
        UserError: the files cannot be written.
    """
    request, mode = plan.request, plan.modes[0]
    tables, paths = [], []
    for task in request.tasks:
        of_task = [row for row in rows if row.task == task]
        trials = rank_trials(of_task, by_mrr(mode))
        layout = TrialTable(
            f"Trials: {request.dataset}, {task}, validation, {mode}",
            mode,
            TABLE3_METRICS,
            {
                "seconds": seconds_of,
                "settings": lambda trial: describe(_differing(trial.row.setting)) or "defaults",
            },
            error=lambda trial: str(trial.row.error),
            mark="chosen",
            selected_by=_SELECTED_BY.upper(),
        )
        table = trial_table(trials, layout)
        files = paths_for(plan, f"{TUNING}-{task}", ("md", "json"), of_task)
        with replacing(*files) as (markdown, document):
            content = {**about(plan, rows), "task": task, "mode": mode, "phase": "valid"}
            content["selected_by"] = _SELECTED_BY
            content["trials"] = [_as_json(trial, mode) for trial in trials]
            write_tables(markdown, document, [table], content)
        tables.append(table)
        paths += files
    return as_printed(tables), paths


def by_mrr(mode: str) -> Callable[[Row], float]:
    """The mean over seeds of a row's MRR on validation in one mode."""
    return lambda row: float(np.mean(row.values(mode, "valid")[_SELECTED_BY]))


def _as_json(trial: Trial, mode: str) -> dict[str, Any]:
    row = trial.row
    described = {
        "label": row.setting.label,
        "model": row.setting.model,
        "overrides": dict(row.setting.overrides),
        "chosen": trial.chosen,
        "error": row.error,
        "seconds": trial.seconds,
    }
    if row.error is None:
        values = row.values(mode, "valid")
        described["metrics"] = {name: metric_as_json(each) for name, each in values.items()}
        described |= row.training()
    return described
