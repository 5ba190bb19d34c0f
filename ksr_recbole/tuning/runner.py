"""A search from request to report."""

from __future__ import annotations

from pathlib import Path

from ksr_recbole.errors import UserError
from ksr_recbole.tuning.plan import Request, make_plan
from ksr_recbole.tuning.report import report
from ksr_recbole.tuning.trials import TrialLog


def tune(request: Request) -> tuple[str, list[Path], bool]:
    """Search, and write what was found.

    Returns:
        The table of trials as text, the files written, and whether any trial succeeded.

    Raises:
        UserError: the request is refused, or a package it needs is missing.
    """
    plan = make_plan(request)
    log = TrialLog(plan.file("jsonl"))
    # Imported late: each tool has packages of its own.
    if request.tool == "Ray":
        from ksr_recbole.tuning.ray_search import ray_search

        finished = ray_search(plan, log)
    else:
        try:
            from ksr_recbole.tuning.search import Search
        except ModuleNotFoundError as error:
            raise UserError(
                f"Tuning needs {error.name}; run `pip install -r requirements.txt` first."
            ) from error
        finished = Search(plan, log).run()
    text, paths = report(plan, finished)
    return text, paths, any(trial.score is not None for trial in finished)
