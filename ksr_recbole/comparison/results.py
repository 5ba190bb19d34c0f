"""From cells to rows: means over seeds, tests against the reference, improvements."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ksr_recbole.comparison.cells import TABLE3_METRICS
from ksr_recbole.comparison.plan import Plan
from ksr_recbole.comparison.significance import Comparison, compare, mean_over_seeds
from ksr_recbole.comparison.store import Failed, Finished, Outcome
from ksr_recbole.comparison.studies import Setting, Study
from ksr_recbole.errors import UserError


@dataclass(frozen=True)
class Row:
    """A setting's cells for one task.

    Attributes:
        setting: the setting.
        task: the task.
        cells: what became of each seed's cell.
    """

    setting: Setting
    task: str
    cells: Mapping[int, Outcome]

    @property
    def error(self) -> str | None:
        """Why the row has no figures: the first failure among its cells."""
        errors = [cell.error for cell in self.cells.values() if isinstance(cell, Failed)]
        return errors[0] if errors else None

    def finished(self) -> list[Finished]:
        """The finished cells, in the order of the seeds."""
        return [cell for cell in self.cells.values() if isinstance(cell, Finished)]

    def values(
        self, mode: str, phase: str = "test", names: Collection[str] = TABLE3_METRICS.values()
    ) -> dict[str, np.ndarray]:
        """Each metric's value under each seed, ``float64 [seeds]``."""
        per_cell = [cell.metrics(mode, phase, names) for cell in self.finished()]
        return {name: np.array([each[name] for each in per_cell]) for name in names}

    def compare(self, other: Row, mode: str) -> dict[str, Comparison]:
        """This row's test metrics against another's, user by user.

        Raises:
            UserError: the rows have different users.
        """
        mine, theirs = (
            [cell.per_user(mode, "test") for cell in row.finished()] for row in (self, other)
        )
        return {
            name: compare(
                mean_over_seeds([cell[name] for cell in mine]),
                mean_over_seeds([cell[name] for cell in theirs]),
            )
            for name in TABLE3_METRICS.values()
        }

    def training(self) -> dict[str, float | None]:
        """Epochs and seconds, means over seeds; ``best_epoch`` counts from 0 as RecBole's log.

        ``seconds_to_best_epoch`` is the training's share of epochs up to the best one.  Seconds
        are ``None`` if every cell was interrupted, since a resumed run counts its last part only.
        """
        results = [cell.result for cell in self.finished()]
        timed = [cell.result for cell in self.finished() if not cell.record["resumed"]]
        seconds = [result["seconds"]["training"] for result in timed]
        shares = [(result["best_epoch"] + 1) / result["epochs_trained"] for result in timed]
        return {
            "best_epoch": _mean([result["best_epoch"] for result in results]),
            "epochs_trained": _mean([result["epochs_trained"] for result in results]),
            "training_seconds": _mean(seconds),
            "seconds_to_best_epoch": _mean(
                [s * share for s, share in zip(seconds, shares, strict=True)]
            ),
        }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def spread(values: np.ndarray) -> float | None:
    """Standard deviation of ``values [seeds]`` (of a sample), ``None`` for a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def collect_rows(plan: Plan, outcomes: Mapping[str, Outcome]) -> list[Row]:
    """The rows of all tasks, in order.

    Args:
        plan: the plan.
        outcomes: what became of each cell, by its name.

    Raises:
        UserError: two cells that are compared were ranked against different candidates.
    """
    request = plan.request
    rows = [
        Row(
            setting,
            task,
            {s: outcomes[plan.cells[setting.label, task, s].name] for s in request.seeds},
        )
        for task in request.tasks
        for setting in request.study.settings
    ]
    check_candidates(rows)
    return rows


def on_candidates(rows: Iterable[Row], mode: str, phase: str) -> list[str]:
    """What a table says where positives have fewer candidates than the mode's name says."""
    cells = [cell for row in rows for cell in row.finished()]
    told = dict.fromkeys(cell.fewer_candidates(mode, phase) for cell in cells)
    return [f"{mode}: {each}" for each in told if each]


def check_candidates(rows: Sequence[Row]) -> None:
    """Make sure that what is compared was ranked against the same candidates.

    Those of a task and seed do not depend on ``train_ratio``, since popularity is counted in
    whole training sequences.

    Raises:
        UserError: candidates differ.
    """
    first: dict[tuple[Any, ...], tuple[str, Mapping[str, str]]] = {}
    for row in rows:
        for seed, cell in row.cells.items():
            if isinstance(cell, Failed):
                continue
            candidates = cell.result["candidates"]
            label, expected = first.setdefault((row.task, seed), (row.setting.label, candidates))
            if candidates != expected:
                raise UserError(
                    f"{label} and {row.setting.label} were ranked against different candidates "
                    f"({row.task}, seed {seed}), so that they cannot be compared; remove the "
                    "folder benchmark/ in results_dir and run the command again."
                )


@dataclass(frozen=True, eq=False)
class Summary:
    """A study's figures for one task and mode.

    Attributes:
        study: the study.
        task: the task.
        mode: the evaluation mode.
        rows: the task's rows.
        comparisons: the reference against each other row, by label and metric.
        improvement: by metric, the reference's improvement over the best baseline in per cent;
            ``None`` where that has no value, empty if there is nothing to improve on.
    """

    study: Study
    task: str
    mode: str
    rows: tuple[Row, ...]
    comparisons: Mapping[str, Mapping[str, Comparison]]
    improvement: Mapping[str, float | None]


def summarise(study: Study, rows: Sequence[Row], task: str, mode: str) -> Summary:
    """Test and compare the rows of one task in one mode.

    Raises:
        UserError: rows of different users.
    """
    own = tuple(row for row in rows if row.task == task)
    fine = {row.setting.label: row for row in own if row.error is None}
    reference = fine.get(study.reference) if study.reference else None
    comparisons, improvement = {}, {}
    if reference is not None:
        comparisons = {
            label: reference.compare(row, mode)
            for label, row in fine.items()
            if row is not reference
        }
        baselines = [fine[label] for label in study.baselines if label in fine]
        improvement = _improvement(reference, baselines, mode) if baselines else {}
    return Summary(study, task, mode, own, comparisons, improvement)


def _improvement(reference: Row, baselines: Sequence[Row], mode: str) -> dict[str, float | None]:
    mine = reference.values(mode)
    theirs = [row.values(mode) for row in baselines]
    percentages: dict[str, float | None] = {}
    for name, values in mine.items():
        best = max(float(np.mean(each[name])) for each in theirs)
        percentages[name] = 100 * (float(np.mean(values)) - best) / best if best > 0 else None
    return percentages
