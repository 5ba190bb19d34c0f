"""Trials side by side with Ray Tune, on this machine or on a cluster.

On a cluster, the folders of the configuration must be the same on every machine (a shared file
system), and this package installed there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from math import exp
from pathlib import Path
from typing import Any

from ksr_recbole.errors import UserError
from ksr_recbole.paths import IMPORTED_FROM
from ksr_recbole.tuning.plan import Plan
from ksr_recbole.tuning.progress import Progress
from ksr_recbole.tuning.space import Range
from ksr_recbole.tuning.trials import Trial, TrialLog

_FOLDERS = ("results_dir", "pretrain_dir", "data_cache_dir", "checkpoint_dir", "pretrain_path")

_SCORE, _TRIAL = "score", "trial"
"""What a Ray worker reports: a score of which more is better, and the trial."""


def ray_search(plan: Plan, log: TrialLog) -> list[Trial]:
    """Run the search with Ray Tune and return its trials.

    A cluster is joined where the environment variable ``RAY_ADDRESS`` names one; otherwise Ray
    starts on this machine.  Each trial gets one CPU, and one GPU where ``gpu_id`` and PyTorch
    see one.

    Raises:
        UserError: what Ray Tune needs is not installed.
    """
    if find_spec("pyarrow") is None:
        raise UserError("--tool=Ray needs pyarrow; run `pip install pyarrow==20.0.0` first.")
    import ray
    from ray import air, tune

    with _environment():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    finished: list[Trial] = []
    try:
        tuner = tune.Tuner(
            tune.with_resources(_trainable(plan, log), _resources(plan)),
            param_space=ray_space(plan),
            tune_config=_tune_config(plan),
            run_config=air.RunConfig(
                name=f"{plan.request.model}-{plan.request.dataset}",
                storage_path=str(plan.results_dir.resolve() / "ray"),
                callbacks=[_recorder(plan, log, finished)],
                verbose=0,
            ),
        )
        with _environment():
            tuner.fit()
    finally:
        ray.shutdown()
    return finished


@contextmanager
def _environment() -> Iterator[None]:
    """What Ray reads when it starts workers, and when it is interrupted."""
    paths = [str(IMPORTED_FROM), *filter(None, [os.environ.get("PYTHONPATH")])]
    changes = {
        "PYTHONPATH": os.pathsep.join(paths),  # this package need not be installed
        # Ray would take Ctrl-C for the end of the search and return what there is.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
    }
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def ray_space(plan: Plan) -> dict[str, Any]:
    """The ranges as Ray draws from them; choices by their place."""
    from ray import tune

    def drawn(each: Range) -> Any:
        if each.kind == "choice":
            places = list(range(len(each.values)))
            exhaustive = plan.request.algo == "exhaustive"
            return tune.grid_search(places) if exhaustive else tune.choice(places)
        if each.kind == "loguniform":
            return tune.loguniform(*map(exp, each.values))
        return {"uniform": tune.uniform, "quniform": tune.quniform}[each.kind](*each.values)

    return {each.name: drawn(each) for each in plan.ranges}


def _tune_config(plan: Plan) -> Any:
    """The search algorithm; with the same seed Ray draws the same trials in the same order."""
    from ray import tune
    from ray.tune.search.basic_variant import BasicVariantGenerator

    if plan.request.algo == "bayes":
        from ray.tune.search.hyperopt import HyperOptSearch

        algorithm: Any = HyperOptSearch(random_state_seed=plan.seed)
    else:
        algorithm = BasicVariantGenerator(random_state=plan.seed)
    samples = 1 if plan.request.algo == "exhaustive" else plan.n_trials
    return tune.TuneConfig(
        metric=_SCORE,
        mode="max",
        search_alg=algorithm,
        num_samples=samples,
        chdir_to_trial_dir=False,
    )


def _resources(plan: Plan) -> dict[str, int]:
    on_gpu = plan.config({})["device"].type == "cuda"
    return {"cpu": 1, "gpu": 1} if on_gpu else {"cpu": 1}


def _absolute_folders(plan: Plan) -> dict[str, str]:
    """A worker's current folder need not be ours."""
    config = plan.config({})
    folders = {key: config[key] for key in _FOLDERS if config[key] is not None}
    folders["data_path"] = Path(config["data_path"]).parent
    return {key: str(Path(folder).resolve()) for key, folder in folders.items()}


def _trainable(plan: Plan, log: TrialLog) -> Any:
    """The function that Ray calls in its workers."""
    folders = _absolute_folders(plan)
    retry = plan.request.retry_failed

    def train(drawn: dict[str, Any]) -> dict[str, Any]:
        from dataclasses import asdict

        from ksr_recbole.compat import silence_upstream_warnings
        from ksr_recbole.tuning.objective import run_trial

        silence_upstream_warnings()
        params = plan.decode(drawn)
        found = log.find(plan.trial_key(params))
        if found is None or (found.error and retry):
            values: dict[str, Any] = {**folders, "show_progress": False}
            if gpus := os.environ.get("CUDA_VISIBLE_DEVICES"):
                values["gpu_id"] = gpus  # the one that Ray gave this worker
            found = run_trial(plan, params, **values)
        if found.score is None:
            return {_SCORE: float("-inf"), _TRIAL: asdict(found)}
        return {_SCORE: found.score if plan.bigger else -found.score, _TRIAL: asdict(found)}

    return train


def _recorder(plan: Plan, log: TrialLog, finished: list[Trial]) -> Any:
    """Keeps and tells what workers report; only this process writes the log."""
    from ray.tune import Callback

    progress = Progress(plan)

    class Recorder(Callback):
        def on_trial_complete(self, iteration: int, trials: Sequence, trial: Any, **_: Any) -> None:
            self._keep(Trial(**trial.last_result[_TRIAL]))

        def on_trial_error(self, iteration: int, trials: Sequence, trial: Any, **_: Any) -> None:
            """A worker died (what a trial itself raises, it reports)."""
            params = plan.decode(trial.config)
            told = str(trial.get_error()).strip().splitlines()[-1]
            self._keep(Trial(plan.trial_key(params), params, error=f"Ray: {told}"))

        def _keep(self, found: Trial) -> None:
            known = log.find(found.key) == found
            if not known:
                log.add(found)
            finished.append(found)
            progress.end(found, known)

    return Recorder()
