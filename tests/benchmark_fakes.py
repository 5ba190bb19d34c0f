"""Results without training: stands in for models where the benchmark itself is tested."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from ksr_recbole.comparison import pool
from ksr_recbole.comparison.pool import Job, Observer, Report
from ksr_recbole.comparison.store import Finished
from ksr_recbole.errors import UnusableCheckpointError, UserError
from ksr_recbole.evaluation.evaluator import EvalResult
from ksr_recbole.evaluation.metrics import ranking_metrics

MODES = ("uni5pop5", "full")
NAMES = ("map", "mrr", "hit", "ndcg")
N_USERS = 200
MISBEHAVE = "KSR_TEST_MISBEHAVE"
"""Environment variable: ``model=how`` pairs with commas; workers inherit it."""


def eval_result(ranks: Sequence[int]) -> EvalResult:
    """One positive for each of users 1, 2, ..., at the given ranks."""
    users, ranks = np.arange(1, len(ranks) + 1), np.asarray(ranks, dtype=np.int64)
    return EvalResult(ranking_metrics(users, ranks, NAMES, [10]), users, ranks)


def run_result(
    ranks: Mapping[str, Sequence[int]], candidates: str = "the same", **more: Any
) -> dict[str, Any]:
    """What ``run`` returns, with the ranks of each phase in every mode."""
    evaluated = {mode: {p: eval_result(r) for p, r in ranks.items()} for mode in MODES}
    metrics = {
        mode: {phase: dict(result.metrics) for phase, result in phases.items()}
        for mode, phases in evaluated.items()
    }
    return {
        "metrics": metrics,
        "eval_mode": MODES[0],
        "best_epoch": 3,
        "best_valid_score": metrics[MODES[0]]["test"]["mrr"],
        "epochs_trained": 8,
        "pretraining": [],
        "seconds": {"training": 4.0},
        "candidates": {f"test/{MODES[0]}": candidates},
        "config": {"much": "more"},
        "environment": {"command": ["run_benchmark.py", "--gamma=3"]},
        "eval_results": evaluated,
        **more,
    }


def finished(
    ranks: Sequence[int],
    resumed: bool = False,
    valid: Sequence[int] | None = None,
    **more: Any,
) -> Finished:
    """A finished cell with these test ranks; unless given, those on validation are one worse."""
    ranks = np.asarray(ranks)
    result = run_result({"test": ranks, "valid": ranks + 1 if valid is None else valid}, **more)
    pairs = {
        (mode, phase): (each.users, each.ranks)
        for mode, phases in result.pop("eval_results").items()
        for phase, each in phases.items()
    }
    return Finished({"wall_seconds": 5.0, "resumed": resumed, "result": result}, pairs)


def ranks_of(model: str, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Ranks of each phase, drawn by model and seed, those of KSR the best."""
    rng = np.random.default_rng([values["seed"], *map(ord, model)])
    highest = 5 if model == "KSR" else 12
    return {phase: rng.integers(1, highest, N_USERS) for phase in ("valid", "test")}


def fake_run(
    model: str,
    dataset: str,
    config_file_list: list[str],
    config_dict: dict[str, Any],
    measure: Any = None,
) -> dict[str, Any]:
    """Ranks as :func:`ranks_of` has them; misbehaves where told to."""
    assert measure is None, "nothing is trained here that could be measured"
    how = dict(pair.split("=") for pair in os.environ.get(MISBEHAVE, "").split(",") if pair)
    folder = Path(config_dict["checkpoint_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    print(f"training {model} with resume {config_dict['resume']}")
    action = how.get(model)
    if action == "refuse":
        raise UserError(f"{model} cannot be trained; give it better data.")
    if action == "raise":
        raise ZeroDivisionError("by nothing")
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "sleep":
        (folder / "here").write_text("")
        time.sleep(600)
    if action == "damaged" and config_dict["resume"]:
        raise UnusableCheckpointError(f"Checkpoint {config_dict['resume']} is damaged.")
    candidates = f"{config_dict['task']}, {config_dict['seed']}"
    if action == "differ":
        candidates = "others"
    ranks = ranks_of(model, config_dict)
    return run_result(ranks, candidates, model=model, checkpoint=str(folder / "model.pth"))


def run_cell(job: Job) -> Report:
    """As the worker's, but nothing is trained."""
    with mock.patch("ksr_recbole.quick_start.run", fake_run):
        return worker_run_cell(job)


worker_run_cell = pool.run_cell  # kept, since tests put the function above in its place


def run_jobs(
    jobs: Iterable[Job],
    workers: int,
    observer: Observer,
    gpus: Sequence[str] = (),
    run_cell: Callable[[Job], Report] = run_cell,
) -> None:
    """As the pool's, but in this process, and nothing is trained unless ``run_cell`` trains."""
    for job in jobs:
        observer.started(job)
        observer.ended(job, run_cell(job))
        observer.tick()
