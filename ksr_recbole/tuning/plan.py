"""What a search was asked for, checked before the first trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from ksr_recbole import registry
from ksr_recbole.benchmark.store import cell_key, file_digests
from ksr_recbole.cache import content_key
from ksr_recbole.config import Config
from ksr_recbole.distributed.hosts import PROCESS_KEYS
from ksr_recbole.errors import UserError
from ksr_recbole.files import ensure_writable
from ksr_recbole.quick_start.data import prepare_atomic_files
from ksr_recbole.quick_start.result import settings
from ksr_recbole.registry import choose_from
from ksr_recbole.trainer.checkpoint import plain
from ksr_recbole.tuning.space import Range, read_space

ALGORITHMS = ("exhaustive", "random", "bayes")
"""RecBole's names: every combination, draws, or hyperopt's tree of Parzen estimators."""

TOOLS = ("Hyperopt", "Ray")
"""RecBole's names: one trial after the other here, or Ray Tune on this machine or a cluster."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        model: name of the model.
        dataset: name of the dataset.
        params_file: the ranges.
        config_files: YAML files read for every trial.
        values: config values of every trial, as on the command line.
        algo: one of :data:`ALGORITHMS`.
        tool: one of :data:`TOOLS`.
        max_evals: at most so many trials; not for ``exhaustive``.
        early_stop: stop after so many trials without a better one; ``None`` for never.
        retry_failed: run trials again that failed before.
        output_file: the table of trials; by default in ``results_dir``.
        display_file: the figure; by default in ``results_dir``.
    """

    model: str
    dataset: str
    params_file: Path
    config_files: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    algo: str = "exhaustive"
    tool: str = "Hyperopt"
    max_evals: int | None = None
    early_stop: int | None = None
    retry_failed: bool = False
    output_file: Path | None = None
    display_file: Path | None = None


@dataclass(frozen=True)
class Plan:
    """A checked request.

    Attributes:
        request: the request.
        ranges: what is searched.
        n_trials: at most so many trials.
        task: name of the task.
        table1: the dataset's line of Table 1.
        seed: of the search and of every trial.
        selected_by: the validation metric.
        mode: how validation is ranked.
        bigger: whether more of it is better.
        results_dir: where everything goes.
        given: the config values the user gave for every trial, as a YAML file may hold them.
        key: SHA-256 of the data and all settings that trials share.
    """

    request: Request
    ranges: tuple[Range, ...]
    n_trials: int
    task: str
    table1: str
    seed: int
    selected_by: str
    mode: str
    bigger: bool
    results_dir: Path
    given: Mapping[str, Any]
    key: str

    def file(self, suffix: str) -> Path:
        """``<results_dir>/<model>-<dataset>-<task>-tuning.<suffix>``."""
        names = (self.request.model, self.request.dataset, self.task)
        return self.results_dir / f"{'-'.join(names)}-tuning.{suffix}"

    def decode(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Config values for what a search drew."""
        return {each.name: each.decode(drawn[each.name]) for each in self.ranges}

    def trial_key(self, params: Mapping[str, Any]) -> str:
        """Key of a trial: equal exactly for trials that must give the same score."""
        return content_key({"shared": self.key, "params": plain(dict(params))})

    def config(self, params: Mapping[str, Any], **values: Any) -> Config:
        """The configuration of a trial.

        Raises:
            UserError: it is refused.
        """
        request = self.request
        given = {**request.values, **params, **values}
        return Config(request.model, request.dataset, list(request.config_files), given)


def make_plan(request: Request) -> Plan:
    """Check a request and make sure that its data are there.

    Raises:
        UserError: an unknown name, a range that cannot be read, a key both fixed and searched,
            or a configuration or dataset that is refused.
    """
    _check_options(request)
    ranges = read_space(request.params_file)
    n_trials = _number_of_trials(request, ranges)
    config = Config(
        request.model, request.dataset, list(request.config_files), dict(request.values)
    )
    _check_ranges(request, ranges, config)
    for key in ("results_dir", "pretrain_dir"):
        ensure_writable(config[key], key)
    table1 = prepare_atomic_files(config)
    return Plan(
        request=request,
        ranges=ranges,
        n_trials=n_trials,
        task=config["task"],
        table1=table1,
        seed=config["seed"],
        selected_by=config["valid_metric"],
        mode=config["eval_args"]["mode"]["valid"],
        bigger=config["valid_metric_bigger"],
        results_dir=Path(config["results_dir"]),
        given=plain(config.external_config_dict),
        key=cell_key(settings(config), config["seed"], file_digests(config)),
    )


def _check_options(request: Request) -> None:
    for option, name, known in (("algo", request.algo, ALGORITHMS), ("tool", request.tool, TOOLS)):
        if name not in known:
            raise UserError(
                f"--{option} is '{name}'{choose_from(name, known, 'it must be one of:')}"
            )
    if not registry.under_protocol(request.model):
        raise UserError(
            f"The model '{request.model}' cannot be tuned here"
            f"{choose_from(request.model, registry.MODELS, 'the models are')}"
        )
    for key in PROCESS_KEYS:
        if key in request.values:
            raise UserError(
                f"Config key {key} has no effect on a search, whose trials are one process each; "
                "leave it out, or give --tool=Ray for several trials at a time."
            )
    if request.tool == "Ray" and request.early_stop is not None:
        raise UserError("--early_stop is for --tool=Hyperopt; leave it out with --tool=Ray.")
    if request.display_file and request.display_file.suffix != ".png":
        raise UserError(f"--display_file is {request.display_file}; it must end in .png.")


def _number_of_trials(request: Request, ranges: tuple[Range, ...]) -> int:
    if request.algo != "exhaustive":
        if request.max_evals is None:
            raise UserError(f"--algo={request.algo} needs --max_evals=N, the number of trials.")
        return request.max_evals
    for each in ranges:
        if each.kind != "choice":
            raise UserError(
                f"{request.params_file} has a {each.kind} range for {each.name}, but --algo="
                "exhaustive tries every choice; write choices, or give --algo=random or bayes."
            )
    if request.max_evals is not None:
        raise UserError("--algo=exhaustive runs every combination; leave --max_evals out.")
    return prod(len(each.values) for each in ranges)


def _check_ranges(request: Request, ranges: tuple[Range, ...], config: Config) -> None:
    """Refuse ranges of what is fixed, or of what the model does not have."""
    fixed = {key.split(".")[0] for key in request.values}
    for each in ranges:
        key = each.name.split(".")[0]
        if key in fixed:
            raise UserError(
                f"The config key {each.name} is given for every trial, but {request.params_file} "
                "has a range for it; leave one of them out."
            )
        if key not in config:
            raise UserError(
                f"{request.params_file} has a range for {each.name}, which {request.model} does "
                "not have, so that all its values would be the same; leave it out."
            )
