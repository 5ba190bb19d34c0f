"""A search: its trials are cells of the comparison's store, run by its pool or as Ray's tasks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ksr_recbole import digests
from ksr_recbole.comparison.cells import Cell
from ksr_recbole.comparison.live import TrialLines
from ksr_recbole.comparison.pool import Job, Report, run_jobs
from ksr_recbole.comparison.results import Row
from ksr_recbole.comparison.store import Failed, Finished, Outcome
from ksr_recbole.comparison.studies import Setting
from ksr_recbole.comparison.trials import Trial
from ksr_recbole.errors import UserError, one_line
from ksr_recbole.gpus import taken_in_turn
from ksr_recbole.records import as_json_values
from ksr_recbole.text import say
from ksr_recbole.tuning.draws import draws_of
from ksr_recbole.tuning.request import Plan, Request, make_plan
from ksr_recbole.tuning.search_report import Tried, report


def tune(request: Request) -> tuple[str, list[Path], bool]:
    """Search, and write what was found.

    Returns:
        The table of trials as text, the files written, and whether any trial succeeded.

    Raises:
        UserError: the request is refused, or a package it needs is missing.
    """
    plan = make_plan(request)
    for remark in plan.remarks():
        say(remark, sys.stderr)
    with TrialLines(plan.store, plan.n_trials, plan.selected_by) as lines:
        search = Search(plan, lines)
        if request.tool == "Ray":
            # Imported late: Ray is optional.
            from ksr_recbole.tuning.ray_pool import run_jobs_on_ray

            run_jobs_on_ray(search.jobs(), search, plan.config({}))
        else:
            run_jobs(search.jobs(), request.jobs, search, taken_in_turn(plan.config({})))
    if n := search.n_failed_before:
        some = "1 trial, which" if n == 1 else f"{n} trials, which"
        say(f"Not run: {some} failed before; --retry_failed runs such trials again.", sys.stderr)
    tried = search.tried()
    text, paths = report(plan, tried)
    return text, paths, any(each.row.error is None for each in tried)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A trial that was drawn; without a cell its configuration is refused."""

    number: int
    params: Mapping[str, Any]
    key: str
    cell: Cell | None = None


class Search:
    """The jobs of a search, and an observer of the pool that runs them.

    What is drawn depends on the seed and the scores alone.  So a search that was interrupted is
    simply searched again: the store has what was finished.

    Args:
        plan: what is searched.
        lines: shows the trials.

    Attributes:
        n_failed_before: trials that are not run because they failed in an earlier command.

    Raises:
        UserError: a package that draws is missing.
    """

    def __init__(self, plan: Plan, lines: TrialLines) -> None:
        self._plan, self._lines = plan, lines
        self._draws = draws_of(plan.request.algo, plan.ranges, plan.seed)
        self._running: dict[str, list[tuple[_Drawn, float]]] = {}
        self._ended: dict[int, Tried] = {}  # in the order in which they ended
        self._best: Trial | None = None
        self._since_best = 0  # trials that have ended since
        self._n_drawn = 0
        self.n_failed_before = 0

    def tried(self) -> list[Tried]:
        """The trials in the order in which they were drawn; one drawn several times counts once."""
        ordered = [self._ended[number] for number in sorted(self._ended)]
        return list({tried.key: tried for tried in ordered}.values())

    def jobs(self) -> Iterator[Job]:
        """The trials to be run; each is drawn when it is asked for."""
        request = self._plan.request
        while self._n_drawn < self._plan.n_trials and not self._out_of_patience():
            params = self._draws.ask(self._n_drawn)
            if params is None:
                return
            self._n_drawn += 1
            drawn, known = self._look_up(as_json_values(params))
            if known is not None:
                self._end(drawn, known, before=drawn.cell is not None)
            elif drawn.cell is not None:
                self._running.setdefault(drawn.cell.name, []).append((drawn, time.monotonic()))
                yield Job(drawn.cell, self._plan.store, request.config_files, request.values, False)

    def _look_up(self, params: dict[str, Any]) -> tuple[_Drawn, Outcome | None]:
        """A trial, and how it ended if that is known."""
        plan, number = self._plan, self._n_drawn
        try:
            cell = plan.cell(number, params)
        except Exception as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            key = digests.of_values({"refused": params, "files": plan.digests, "given": plan.given})
            return _Drawn(number, params, key), Failed(kind + one_line(error))
        known = plan.store.load(cell)
        if known is None and not plan.request.retry_failed:
            failed = plan.store.load_failure(cell)
            self.n_failed_before += failed is not None
            return _Drawn(number, params, cell.key, cell), failed
        return _Drawn(number, params, cell.key, cell), known

    def _out_of_patience(self) -> bool:
        """Whether the last ``early_stop`` trials brought nothing better."""
        patience = self._plan.request.early_stop
        return patience is not None and self._best is not None and self._since_best >= patience

    def _compare(self, row: Row) -> None:
        """See whether a trial that has just ended is the best; of equal ones the first is."""
        rows = [row] if self._best is None else [self._best.row, row]
        best = next((trial for trial in self._plan.rank(rows) if trial.chosen), None)
        self._since_best = 0 if best is not None and best.row is row else self._since_best + 1
        self._best = best

    # What the pool does ---------------------------------------------------------------------

    def started(self, job: Job) -> None:
        """A trial runs."""
        drawn, _ = self._running[job.cell.name][-1]
        self._lines.started(drawn.number, drawn.params, job.cell)

    def ended(self, job: Job, report: Report) -> None:
        """A trial is done or failed; its result is read from the store."""
        drawn, began = self._running[job.cell.name].pop(0)
        outcome = self._plan.store.outcome(job.cell, report.error)
        if isinstance(outcome, Failed):
            outcome = replace(outcome, seconds=time.monotonic() - began)
            if not report.passing:
                self._plan.store.save_failure(job.cell, outcome)
        self._end(drawn, outcome)

    def tick(self) -> None:
        """Time has passed."""
        self._lines.tick()

    def _end(self, drawn: _Drawn, outcome: Outcome, before: bool = False) -> None:
        plan = self._plan
        if isinstance(outcome, Finished) and outcome.result["best_valid_score"] is None:
            outcome = Failed("No epoch was validated; eval_step must be positive.")
        setting = Setting(str(drawn.number), plan.request.model, drawn.params)
        row = Row(setting, plan.task, {plan.seed: outcome})
        self._ended[drawn.number] = Tried(drawn.key, row)
        score = None if row.error else plan.score(row)
        loss = -score if score is not None and plan.bigger else score
        self._draws.tell(drawn.number - 1, loss)
        self._compare(row)
        best = None if self._best is None else self._best.score
        self._lines.ended(setting, outcome, score, best, before)
