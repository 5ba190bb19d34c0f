"""Trials as tasks of Ray, on this machine or on a cluster.

On a cluster, the folders of the configuration must be the same on every machine (a shared file
system), and this package installed there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset_atomic.own_graph import KEYS as GRAPH_KEYS
from ksr_recbole.comparison.pool import Job, Observer, Report, run_cell
from ksr_recbole.config_types import Configuration
from ksr_recbole.errors import UserError, one_line, reason_of
from ksr_recbole.paths import IMPORTED_FROM, is_installed

_FOLDERS = ("results_dir", "pretrain_dir", "data_cache_dir", "checkpoint_dir", "pretrain_path")
_TICK_SECONDS = 0.5


def run_jobs_on_ray(jobs: Iterable[Job], observer: Observer, config: Configuration) -> None:
    """As :func:`~ksr_recbole.comparison.pool.run_jobs`, a task of Ray each.

    A cluster is joined where the environment variable ``RAY_ADDRESS`` names one; otherwise Ray
    starts on this machine.  Each job gets one CPU, and one GPU where ``gpu_id`` and PyTorch see
    one; as many run at a time as there is room for.

    Args:
        jobs: in the order wanted; one is taken when there is room for it.
        observer: hears of starts and ends.
        config: a configuration of the jobs; only its folders and its device matter.

    Raises:
        UserError: Ray is not installed, or cannot be started.
    """
    ray = _started()
    try:
        kind = "GPU" if config["device"].type == "cuda" else "CPU"
        task = ray.remote(num_cpus=1, num_gpus=int(kind == "GPU"), max_retries=0)(_run)
        room = int(ray.cluster_resources().get(kind, 0))
        if room < 1:
            raise UserError(f"Ray has no {kind} for the trials; add one, or leave --tool out.")
        folders, source = _absolute_folders(config), iter(jobs)
        busy: dict[Any, Job] = {}
        while True:
            while len(busy) < room and (job := next(source, None)):
                busy[task.remote(_with_folders(job, folders))] = job
                observer.started(job)
            if not busy:
                break
            done, _ = ray.wait(list(busy), timeout=_TICK_SECONDS)
            for each in done:
                observer.ended(busy.pop(each), _report(ray, each))
            observer.tick()
    finally:
        ray.shutdown()


def _started() -> Any:
    try:
        if not is_installed("ray"):
            raise ModuleNotFoundError("No module named 'ray'")
        import ray
    except ImportError as error:
        raise UserError(
            f"--tool=Ray needs Ray, but {one_line(error)}; run `pip install ray` first, "
            "or give --jobs=N for several trials at a time on this machine."
        ) from error
    paths = [str(IMPORTED_FROM), *filter(None, [os.environ.get("PYTHONPATH")])]
    # This package need not be installed on this machine.
    variables = {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}
    try:
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env=variables,
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"Ray cannot be started or joined: {one_line(error)}.") from error
    return ray


def _run(job: Job) -> Report:
    """The task: run a cell on the GPU that Ray gives it."""
    if gpus := os.environ.get("CUDA_VISIBLE_DEVICES"):
        job = replace(job, values={**job.values, "gpu_id": gpus})
    return run_cell(job)


def _report(ray: Any, task: Any) -> Report:
    """What became of a task; a dead process fails its own job only."""
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        return Report(f"Ray: {reason_of(error)}")


def _absolute_folders(config: Configuration) -> dict[str, str]:
    """A worker's current folder need not be ours."""
    folders = {key: config[key] for key in _FOLDERS if config[key] is not None}
    folders["data_path"] = Path(config["data_path"]).parent
    found = {key: str(Path(folder).resolve()) for key, folder in folders.items()}
    return {**found, **dict.fromkeys(GRAPH_KEYS, "None")}  # it is in data_path now


def _with_folders(job: Job, folders: dict[str, str]) -> Job:
    store = replace(job.store, folder=job.store.folder.resolve())
    files = tuple(str(Path(file).resolve()) for file in job.config_files)
    return replace(job, store=store, config_files=files, values={**job.values, **folders})
