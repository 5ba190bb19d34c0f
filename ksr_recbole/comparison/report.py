"""What a study leaves: tables as text, Markdown and LaTeX, a figure, and everything as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from ksr_recbole.comparison.cells import environment_without_places, of_consequence, without_places
from ksr_recbole.comparison.figures import draw
from ksr_recbole.comparison.plan import Plan, Position
from ksr_recbole.comparison.results import Row, Summary, spread, summarise
from ksr_recbole.comparison.store import Failed
from ksr_recbole.comparison.table import Table, in_markdown, table_of, to_latex, to_markdown
from ksr_recbole.comparison.text_table import as_printed
from ksr_recbole.errors import DamagedFileError
from ksr_recbole.files import read_text, replacing
from ksr_recbole.quick_start.result import environment
from ksr_recbole.records import json_text, parse_object


def report(plan: Plan, rows: Sequence[Row]) -> tuple[str, list[Path]]:
    """Write a study's files, all or none of them.

    Returns:
        The tables as text, and the files.

    Raises:
        UserError: the files cannot be written, or rows have different users.
    """
    request = plan.request
    summaries = [
        summarise(request.study, rows, task, mode) for mode in plan.modes for task in request.tasks
    ]
    tables = [table_of(summary, request.dataset) for summary in summaries]
    paths = paths_for(plan, request.study.name, ("md", "tex", "json", "png"), rows)
    with replacing(*paths) as (markdown, latex, document, figure):
        content = as_json(plan, rows, summaries)
        write_tables(markdown, document, tables, content)
        latex.write_text("\n".join(map(to_latex, tables)), encoding="utf-8")
        draw(request.study, rows, request.dataset, plan.modes[0], figure)
    return as_printed(tables), paths


def paths_for(plan: Plan, name: str, suffixes: Sequence[str], rows: Sequence[Row]) -> list[Path]:
    """The files of a study, one of them JSON: ``<results_dir>/<dataset>-<name>.<suffix>``.

    A table takes the place of one with the same config values all of whose rows, tasks and seeds
    it has, and all of whose finished cells are finished among ``rows``; next to any other it gets
    a number (``<dataset>-<name>-2``).
    """
    folder, wanted = plan.request.results_dir, about(plan, rows)
    first = f"{plan.request.dataset}-{name}"
    stems = chain([first], (f"{first}-{number}" for number in count(2)))
    stem = next(stem for stem in stems if _gives_way(folder / f"{stem}.json", wanted, rows))
    return [folder / f"{stem}.{suffix}" for suffix in suffixes]


def is_report(name: str, dataset: str) -> bool:
    """Whether a name in the folder of results is of a study's files (:func:`paths_for`)."""
    return name.startswith(f"{dataset}-") and name.endswith((".md", ".tex", ".json", ".png"))


def _gives_way(document: Path, wanted: Mapping[str, Any], rows: Sequence[Row]) -> bool:
    """Whether nothing is lost if what was ``wanted`` is written over a study's JSON file."""
    failed = {
        (row.setting.label, row.task, seed)
        for row in rows
        for seed, outcome in row.cells.items()
        if isinstance(outcome, Failed)
    }
    try:
        found = parse_object(read_text(document))
        same = ("study", "config_files", "config_digests")
        if any(found.get(key) != wanted.get(key) for key in same) or _finished_in(found) & failed:
            return False
        if of_consequence(found.get("values", {})) != of_consequence(wanted["values"]):
            return False
        parts = ("rows", "tasks", "seeds")
        return all(set(found.get(key, [None])) <= set(wanted[key]) for key in parts)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, AttributeError, TypeError, KeyError, DamagedFileError):
        return False  # no table of ours


def _finished_in(document: Mapping[str, Any]) -> set[Position]:
    """The positions that a study's JSON file has figures of."""
    if "cells" in document:
        cells = document["cells"]
        return {(c["label"], c["task"], c["seed"]) for c in cells if "error" not in c}
    shown = [(t["task"], row) for t in document.get("tables", ()) for row in t["rows"]]
    shown += [(document["task"], trial) for trial in document.get("trials", ())]
    whole = [(row["label"], task) for task, row in shown if row["error"] is None]
    return {(label, task, seed) for label, task in whole for seed in document["seeds"]}


def write_tables(
    markdown: Path, document: Path, tables: Sequence[Table], content: Mapping[str, Any]
) -> None:
    """Write the Markdown and the JSON file of a study or a search.

    Args:
        markdown: where the tables go, below the dataset's line of Table 1.
        document: where ``content`` goes.
        tables: the tables.
        content: JSON values; that line is its ``table1``.
    """
    markdown.write_text(markdown_document(content["table1"], tables), encoding="utf-8")
    document.write_text(json_text(content), encoding="utf-8")


def markdown_document(table1: str, tables: Sequence[Table]) -> str:
    """Tables below the dataset's line of Table 1."""
    return "\n".join([in_markdown(table1), "", *map(to_markdown, tables)])


def as_json(plan: Plan, rows: Sequence[Row], summaries: Sequence[Summary]) -> dict[str, Any]:
    """Everything a study found, as JSON can hold it."""
    return {
        **about(plan, rows),
        "tables": [summary_as_json(summary) for summary in summaries],
        "cells": [cell for row in rows for cell in cells_as_json(plan, row)],
    }


def used_table1(dataset: str, table1: str, rows: Sequence[Row]) -> str:
    """The line of Table 1 of the data that were used.

    Args:
        dataset: name of the dataset.
        table1: the line of its files, for rows without a finished cell.
        rows: the rows of a comparison or a search.
    """
    used = (cell.result.get("table1") for row in rows for cell in row.finished())
    counts = next((line.partition(": ")[2] for line in used if isinstance(line, str)), "")
    return f"{dataset}: {counts}" if counts else table1


def about(plan: Plan, rows: Sequence[Row] = ()) -> dict[str, Any]:
    """What was asked for, on which data and with which versions."""
    request = plan.request
    return {
        "study": request.study.name,
        "title": request.study.title,
        "dataset": request.dataset,
        "table1": used_table1(request.dataset, plan.table1, rows),
        "rows": [setting.label for setting in request.study.settings],
        "tasks": list(request.tasks),
        "seeds": list(request.seeds),
        "modes": list(plan.modes),
        "config_files": list(request.config_files),
        **({"config_digests": list(plan.config_digests)} if plan.config_digests else {}),
        "values": without_places(request.values),
        "environment": environment_without_places(environment()),
    }


def summary_as_json(summary: Summary) -> dict[str, Any]:
    """The figures of a table."""
    return {
        "task": summary.task,
        "mode": summary.mode,
        "phase": "test",
        "reference": summary.study.reference,
        "baselines": list(summary.study.baselines),
        "improvement_in_per_cent": dict(summary.improvement),
        "rows": [_row_as_json(row, summary) for row in summary.rows],
    }


def _row_as_json(row: Row, summary: Summary) -> dict[str, Any]:
    setting = row.setting
    named = {
        "label": setting.label,
        "model": setting.model,
        "overrides": dict(setting.overrides),
        "error": row.error,
    }
    if row.error is not None:
        return named
    tests = summary.comparisons.get(setting.label, {})
    metrics = {
        name: {
            **metric_as_json(values),
            # Of the reference against this row.
            "p_value": tests[name].p_value if name in tests else None,
            "significant": tests[name].is_improvement if name in tests else None,
        }
        for name, values in row.values(summary.mode).items()
    }
    return {**named, "metrics": metrics, **row.training()}


def metric_as_json(values: np.ndarray) -> dict[str, Any]:
    """A metric's values over the seeds."""
    return {"mean": float(np.mean(values)), "std": spread(values), "per_seed": values.tolist()}


def cells_as_json(plan: Plan, row: Row) -> list[dict[str, Any]]:
    """A row's cells; a run's configuration and measures are left to the cell's own file."""
    described = []
    for seed, outcome in row.cells.items():
        cell = plan.cells[row.setting.label, row.task, seed]
        named = {"label": row.setting.label, "task": row.task, "seed": seed, "key": cell.key}
        if isinstance(outcome, Failed):
            described.append({**named, "error": outcome.error})
            continue
        result = {k: v for k, v in outcome.result.items() if k not in ("config", "measures")}
        described.append(
            {
                **named,
                "file": str(plan.store.result_file(cell)),
                "wall_seconds": outcome.record["wall_seconds"],
                "resumed": outcome.record["resumed"],
                "result": result,
            }
        )
    return described
