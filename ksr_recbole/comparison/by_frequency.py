"""The tables of a study, for targets that occur rarely, sometimes and often in training.

Knowledge should help where there are few interactions to learn an item from.  A table has the
metrics of the positives whose item occurs so often in the training part, for all rows alike.
Nothing is trained or ranked for it: the cells have the rank of every positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ksr_recbole.comparison.plan import Plan, config_of
from ksr_recbole.comparison.report import (
    about,
    paths_for,
    summary_as_json,
    write_tables,
)
from ksr_recbole.comparison.results import Row, summarise
from ksr_recbole.comparison.store import Finished
from ksr_recbole.comparison.studies import Setting
from ksr_recbole.comparison.table import table_of
from ksr_recbole.comparison.text_table import as_printed
from ksr_recbole.errors import UserError
from ksr_recbole.evaluation.candidates import phase_targets, training_popularity
from ksr_recbole.evaluation.metrics import positions_within_users
from ksr_recbole.files import replacing
from ksr_recbole.quick_start.prepare import load_data


@dataclass(frozen=True)
class Frequency:
    """Targets with so many training interactions, both bounds included."""

    least: int
    most: float

    @property
    def words(self) -> str:
        """As it stands in a caption."""
        if self.most == np.inf:
            return f"{self.least} or more training interactions"
        bounds = f"{self.least} to " if self.least else "at most "
        return f"{bounds}{self.most:.0f} training interactions"

    def holds(self, counts: np.ndarray) -> np.ndarray:
        """Which of the targets are of this frequency, ``bool [P]``."""
        return (self.least <= counts) & (counts <= self.most)


FREQUENCIES = (Frequency(0, 5), Frequency(6, 20), Frequency(21, np.inf))


def report_by_frequency(plan: Plan, rows: Sequence[Row]) -> tuple[str, list[Path]]:
    """Write the tables, ``<dataset>-<study>-by-frequency.md`` and ``.json``.

    Args:
        plan: the plan.
        rows: its rows, whose cells have ranks of the test positives.

    Returns:
        The tables as text, and the files.

    Raises:
        UserError: the files cannot be written, or a cell is of other test positives.
    """
    request, tables, documents = plan.request, [], []
    for task in request.tasks:
        of_task = [row for row in rows if row.task == task]
        finished = [row.setting for row in of_task if row.error is None]
        if not finished:
            continue
        # All rows have the same targets; a model that is refused cannot load the data.
        users, counts = counts_of_targets(plan, finished[0], task)
        for frequency in FREQUENCIES:
            chosen = frequency.holds(counts)
            where = f"{frequency.words} ({chosen.sum():,} of {len(counts):,} targets)"
            if not chosen.any():
                continue
            some = [_of_some(row, users, chosen) for row in of_task]
            for mode in plan.modes:
                summary = summarise(request.study, some, task, mode)
                table = table_of(summary, request.dataset)
                tables.append(replace(table, caption=f"{table.caption}, {where}"))
                documents.append({"targets": where, **summary_as_json(summary)})
    paths = paths_for(plan, f"{request.study.name}-by-frequency", ("md", "json"), rows)
    with replacing(*paths) as (markdown, document):
        content = {**about(plan, rows), "tables": documents}
        write_tables(markdown, document, tables, content)
    return as_printed(tables), paths


def counts_of_targets(plan: Plan, setting: Setting, task: str) -> tuple[np.ndarray, np.ndarray]:
    """User and training interactions of every test positive, ``int64 [P]`` each."""
    data = load_data(config_of(plan.request, setting, task))
    sequences, split = data.dataset.sequences, data.dataset.split
    users, items = phase_targets(sequences, split, "test")
    return users, training_popularity(sequences, split)[items]


def _of_some(row: Row, users: np.ndarray, chosen: np.ndarray) -> Row:
    """The row with the chosen positives alone."""
    cells = {
        seed: cell_of_some(cell, users, chosen) if isinstance(cell, Finished) else cell
        for seed, cell in row.cells.items()
    }
    return replace(row, cells=cells)


def cell_of_some(cell: Finished, users: np.ndarray, chosen: np.ndarray) -> Finished:
    """A cell with ranks and metrics of the chosen positives alone.

    A user's other positives leave the list, so those behind them move up.

    Args:
        cell: the cell.
        users: user of each test positive, ``int64 [P]``.
        chosen: which of them to keep, ``bool [P]``.

    Raises:
        UserError: the cell has other users.
    """
    ranks = {}
    for (mode, phase), (owners, of_positives) in cell.ranks.items():
        if phase != "test":
            continue
        if not np.array_equal(owners, users):
            raise UserError(
                "A finished cell has other test targets than the data; remove the benchmark's "
                "cells of this dataset and run the command again."
            )
        above = positions_within_users(owners, of_positives)[chosen]
        owners, of_positives = owners[chosen], of_positives[chosen]
        of_positives = of_positives - above + positions_within_users(owners, of_positives)
        ranks[mode, phase] = owners, of_positives
    some = replace(cell, ranks=ranks)
    metrics = {
        mode: {phase: {n: float(np.mean(m.values)) for n, m in some.per_user(mode, phase).items()}}
        for mode, phase in ranks
    }
    return replace(some, record={**cell.record, "result": {**cell.result, "metrics": metrics}})
