"""From a request to its tables: runs what is not finished yet, then reports."""

from __future__ import annotations

import sys
from pathlib import Path
from pkgutil import resolve_name

from ksr_recbole.comparison.by_frequency import report_by_frequency
from ksr_recbole.comparison.live import observing
from ksr_recbole.comparison.plan import Plan, Request, make_plan
from ksr_recbole.comparison.pool import Job, run_jobs
from ksr_recbole.comparison.report import is_report, report
from ksr_recbole.comparison.results import collect_rows
from ksr_recbole.comparison.store import Failed, Outcome
from ksr_recbole.files import ensure_writable
from ksr_recbole.locks import locked
from ksr_recbole.one_step import finish_steps
from ksr_recbole.text import say


def run_benchmark(request: Request) -> tuple[str, list[Path], bool]:
    """Run a request's cells and write its tables.

    Returns:
        The tables as text, the files written, and whether every cell has a result.

    Raises:
        UserError: anything that concerns all cells; what concerns one is shown in its place.
    """
    plan = make_plan(request)
    request = plan.request
    for remark in plan.remarks:
        say(remark, sys.stderr)
    ensure_writable(request.results_dir, "results_dir")
    outcomes = run_cells(plan)
    rows = collect_rows(plan, outcomes)
    own = request.study.report
    write = resolve_name(own) if own else report
    # Where a table goes depends on those that are there.
    with locked(request.results_dir / ".tables.lock"):
        finish_steps(request.results_dir, lambda name: is_report(name, request.dataset))
        text, paths = write(plan, rows)
        if request.by_frequency:
            more, files = report_by_frequency(plan, rows)
            text, paths = f"{text}\n\n{more}", [*paths, *files]
    return text, paths, all(row.error is None for row in rows)


def run_cells(plan: Plan) -> dict[str, Outcome]:
    """Run the cells of which the store has no result.

    Args:
        plan: the plan.

    Returns:
        What became of every cell, by its name.  A cell that is refused has failed.

    Raises:
        UserError: the store's folder cannot be mended (:meth:`Store.load`).
    """
    request = plan.request
    outcomes: dict[str, Outcome] = {name: Failed(reason) for name, reason in plan.refused.items()}
    cells = [cell for cell in plan.distinct_cells() if cell.name not in outcomes]
    n_without = 0
    for cell in cells:
        if finished := plan.store.load(cell):
            outcomes[cell.name] = finished
            if finished.result.get("checkpoint") is None:
                plan.store.remove_leftovers(cell)
                n_without += 1
    if request.keep_checkpoints and n_without:
        say(
            f"--keep_checkpoints has no effect on {n_without} of the cells, which were finished "
            "before without keeping their models; another --results_dir trains them again.",
            sys.stderr,
        )
    jobs = [
        Job(cell, plan.store, request.config_files, request.values, request.keep_checkpoints)
        for cell in cells
        if cell.name not in outcomes
    ]
    with observing(plan, outcomes) as board:
        run_jobs(jobs, request.jobs, board, plan.gpus)
    return board.outcomes
