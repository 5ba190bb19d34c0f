"""What the study leaves: tables as text, Markdown and LaTeX, a figure, and everything as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ksr_recbole.comparison.plan import Plan
from ksr_recbole.comparison.report import (
    about,
    cells_as_json,
    metric_as_json,
    paths_for,
    write_tables,
)
from ksr_recbole.comparison.results import Row
from ksr_recbole.comparison.table import Table, to_latex
from ksr_recbole.comparison.text_table import as_printed
from ksr_recbole.files import replacing
from ksr_recbole.interpretability.attribute_figure import draw_attributes
from ksr_recbole.interpretability.attribute_level import WINDOWS
from ksr_recbole.interpretability.method_tables import (
    COLUMNS,
    attribute_table,
    reason_table,
    short_table,
)
from ksr_recbole.interpretability.methods import OWN, Explained, Method
from ksr_recbole.interpretability.value_level import RANKING_MEASURES


def report_interpretability(plan: Plan, rows: Sequence[Row]) -> tuple[str, list[Path]]:
    """Write the study's files, all or none of them.

    Returns:
        The short tables of every task as text, and the files, which also have those by
        attribute.

    Raises:
        UserError: the files cannot be written.
    """
    request = plan.request
    tasks = [Explained.of(rows, task, request.study.reference) for task in request.tasks]
    wheres = [f"{request.dataset}, {each.task}, test" for each in tasks]
    pairs = list(zip(tasks, wheres, strict=True))
    short = [table for each, where in pairs for table in _short(each, where)]
    by_attribute = [attribute_table(each, where) for each, where in pairs if each.measures]
    paths = paths_for(plan, request.study.name, ("md", "tex", "json", "png"), rows)
    with replacing(*paths) as (markdown, latex, document, figure):
        tables = [*short, *by_attribute]
        latex.write_text("\n".join(map(to_latex, tables)), encoding="utf-8")
        content = {
            **about(plan, rows),
            "phase": "test",
            "headline": "values: macro, the mean over attributes of the means over users",
            "results": [as_json(each) for each in tasks],
            "cells": [cell for row in rows for cell in cells_as_json(plan, row)],
        }
        write_tables(markdown, document, tables, content)
        draw_attributes(tasks, request.study.title, figure)
    return as_printed(short), paths


def _short(explained: Explained, where: str) -> list[Table]:
    """The tables of both levels and, where they were measured, of the reasons."""
    levels = [short_table(explained, level, where) for level in OWN]
    reasons = reason_table(explained, where)
    return levels if reasons is None else [*levels, reasons]


def as_json(explained: Explained) -> dict[str, Any]:
    """A task's methods; what the data alone decide is shown too."""
    return {
        "task": explained.task,
        "reference": explained.reference,
        **_about_data(explained),
        **{
            level: [_method_as_json(explained, method) for method in methods]
            for level, methods in explained.methods.items()
        },
    }


def _about_data(explained: Explained) -> dict[str, Any]:
    measures = explained.measures
    if measures is None:
        return {}
    by_attribute = measures["values"]["attributes"]
    return {
        "users": measures["users"],
        "positives": measures["positives"],
        "attributes": measures["attributes"],
        "ranked_attributes": {
            name: {key: figures[key] for key in ("entities", "users")}
            for name, figures in by_attribute.items()
        },
        "left_out": measures["values"]["left_out"],
        "agreement": {
            keys[-1]: measures["attention"][keys[-1]] for keys in COLUMNS["attention"].values()
        },
    }


def _method_as_json(explained: Explained, method: Method) -> dict[str, Any]:
    named: dict[str, Any] = {"label": method.label, "name": method.name, "error": method.error}
    if not method.cells:
        return named
    if method.level == "attention":
        metrics = [f"agreement@{window}" for window in WINDOWS]
        named["metrics"] = {m: metric_as_json(method.overall(m)) for m in metrics}
        if method.name == OWN["attention"]:
            named |= {key: method.over_attributes(key) for key in ("largest", "mean_weight")}
    else:
        metrics = list(RANKING_MEASURES)
        for mean in ("macro", "micro"):
            named[mean] = {m: metric_as_json(method.overall(mean, m)) for m in metrics}
        named["attributes"] = {
            name: {m: metric_as_json(method.of_attribute(name, m)) for m in metrics}
            for name in explained.figures["values"]["attributes"]
        }
    if method.name == OWN[method.level]:
        seeds = [cell.result["measures"]["reasons"] for cell in method.cells]
        named |= {"reasons": seeds} if method.level == "values" else {}
    # Of the reference against this method, over users.
    tests = {m: explained.compare(method, m) for m in metrics}
    named["p_values"] = {m: test.p_value for m, test in tests.items() if test}
    named["differences"] = {m: test.difference for m, test in tests.items() if test}
    return named
