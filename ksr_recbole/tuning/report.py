"""What a search leaves: a table of trials, a figure, everything as JSON, and the best settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from ksr_recbole.benchmark.report import markdown_document
from ksr_recbole.benchmark.table import Line, Table, Value, to_text
from ksr_recbole.config.config import nest
from ksr_recbole.files import replacing
from ksr_recbole.quick_start.result import environment
from ksr_recbole.trainer.checkpoint import plain
from ksr_recbole.tuning.figure import draw
from ksr_recbole.tuning.plan import Plan
from ksr_recbole.tuning.progress import told
from ksr_recbole.tuning.trials import Trial, best_of


def report(plan: Plan, finished: Sequence[Trial]) -> tuple[str, list[Path]]:
    """Write a search's files, all or none of them.

    Args:
        plan: the search.
        finished: its trials in their order; one drawn several times counts once.

    Returns:
        The table as text, and the files.  Without a trial that succeeded there is no figure
        and no file of best settings, and none of an earlier search stays.

    Raises:
        UserError: the files cannot be written.
    """
    trials = list({trial.key: trial for trial in finished}.values())
    best = best_of(trials, plan.bigger)
    table = trial_table(plan, trials, best)
    paths = {
        "md": plan.request.output_file or plan.file("md"),
        "json": plan.file("json"),
        "png": plan.request.display_file or plan.file("png"),
        "yaml": plan.file("yaml"),
    }
    if best is None:
        for suffix in ("png", "yaml"):
            paths.pop(suffix).unlink(missing_ok=True)
    with replacing(*paths.values()) as temporaries:
        files = dict(zip(paths, temporaries, strict=True))
        files["md"].write_text(markdown_document(plan.table1, [table]), encoding="utf-8")
        files["json"].write_text(_as_json(plan, trials, best), encoding="utf-8")
        if best is not None:
            files["yaml"].write_text(best_settings(plan, trials, best), encoding="utf-8")
            draw(plan, trials, best, files["png"])
    return to_text(table), list(paths.values())


def trial_table(plan: Plan, trials: Sequence[Trial], best: Trial | None) -> Table:
    """All trials, the best first and the failed last."""
    numbers = {trial.key: number for number, trial in enumerate(trials, start=1)}
    sign = -1 if plan.bigger else 1
    ordered = sorted(trials, key=lambda t: (t.score is None, sign * (t.score or 0)))
    metrics = tuple(best.metrics or ()) if best else ()
    lines = []
    for trial in ordered:
        label = f"{numbers[trial.key]}{' (best)' if trial is best else ''}"
        settings = told(trial.params)
        if trial.score is None:
            lines.append(Line(label, error=f"{settings}: {trial.error}"))
            continue
        figures = [Value((trial.metrics or {})[name], best=trial is best) for name in metrics]
        counts = (
            f"{(trial.best_epoch or 0) + 1} of {trial.epochs_trained}",
            f"{trial.seconds:.1f}",
        )
        lines.append(Line(label, (*figures, *counts, settings)))
    request = plan.request
    return Table(
        f"Tuning {request.model}: {request.dataset}, validation, {plan.mode}",
        (*metrics, "best epoch", "seconds", "settings"),
        tuple(lines),
        (f"Chosen by {plan.selected_by} on validation; test items play no part.",),
    )


def best_settings(plan: Plan, trials: Sequence[Trial], best: Trial) -> str:
    """The best settings as a YAML file for ``run_recbole.py --config_files``."""
    scored = sum(trial.score is not None for trial in trials)
    names = {"model": plan.request.model, "dataset": plan.request.dataset}
    values = plain(nest({**plan.given, **names, **best.params}))
    comment = (
        f"# Best of {scored} trials by {plan.selected_by} on validation ({plan.mode}): "
        f"{best.score:.4f}.\n"
    )
    return comment + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _as_json(plan: Plan, trials: Sequence[Trial], best: Trial | None) -> str:
    request = plan.request
    content: dict[str, Any] = {
        "model": request.model,
        "dataset": request.dataset,
        "table1": plan.table1,
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
        "best": asdict(best) if best else None,
        "trials": [asdict(trial) for trial in trials],
        "environment": environment(),
    }
    return json.dumps(content, indent=2) + "\n"
