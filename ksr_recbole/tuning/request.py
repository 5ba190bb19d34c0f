"""What a search is to do, checked before the first trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from ksr_recbole import registry
from ksr_recbole.choices import choose_from
from ksr_recbole.comparison.cells import Cell
from ksr_recbole.comparison.inputs import file_digests
from ksr_recbole.comparison.plan import cell_of
from ksr_recbole.comparison.results import Row
from ksr_recbole.comparison.store import Store
from ksr_recbole.comparison.studies import Setting
from ksr_recbole.comparison.trials import Trial, rank_trials
from ksr_recbole.config import Config
from ksr_recbole.config.keys import names_of
from ksr_recbole.config.shared import fits_memory_later
from ksr_recbole.errors import UserError
from ksr_recbole.files import check_suffix, ensure_writable, ensure_writable_file
from ksr_recbole.quick_start.atomic_data import prepare_atomic_files
from ksr_recbole.quick_start.process_keys import PROCESS_KEYS
from ksr_recbole.records import as_json_values
from ksr_recbole.tuning.draws import ALGORITHMS
from ksr_recbole.tuning.space import Range, read_space

MOST_COMBINATIONS = 100_000
"""Of a search that tries them all."""

_MOST_LOOKED_AT = 8
"""Values of a range that are looked at to see whether it does anything."""

TOOLS = ("Hyperopt", "Ray")
"""RecBole's names: trials run here, or as tasks of Ray, on a cluster too."""

_SUFFIXES = {"output_file": (".md", ".txt", ".result"), "display_file": (".png",)}
"""By option, how the name of the file that it takes may end; RecBole's tables are .result."""


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
        jobs: trials run at a time, without Ray.
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
    jobs: int = 1
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
        store: where finished trials are, with all other cells of the dataset.
        seed: of the search and of every trial.
        selected_by: the validation metric.
        mode: how validation is ranked.
        bigger: whether more of it is better.
        results_dir: where everything goes.
        given: the config values the user gave for every trial, as a YAML file may hold them.
        digests: of the dataset's files.
    """

    request: Request
    ranges: tuple[Range, ...]
    n_trials: int
    task: str
    table1: str
    store: Store
    seed: int
    selected_by: str
    mode: str
    bigger: bool
    results_dir: Path
    given: Mapping[str, Any]
    digests: Mapping[str, str]

    def file(self, suffix: str) -> Path:
        """``<results_dir>/<model>-<dataset>-<task>-tuning.<suffix>``."""
        names = (self.request.model, self.request.dataset, self.task)
        return self.results_dir / f"{'-'.join(names)}-tuning.{suffix}"

    def cell(self, number: int, params: Mapping[str, Any]) -> Cell:
        """The cell of a trial.

        Raises:
            UserError: its configuration is refused.
        """
        setting = Setting(str(number), self.request.model, params)
        return cell_of(setting, self.config(params), self.seed)

    def score(self, row: Row) -> float:
        """What a finished trial is chosen by."""
        [cell] = row.finished()
        return float(cell.result["best_valid_score"])

    def rank(self, rows: Sequence[Row]) -> list[Trial]:
        """The trials, the best first and the failed last."""
        return rank_trials(rows, self.score, self.bigger)

    def config(self, params: Mapping[str, Any]) -> Config:
        """The configuration of a trial.

        Raises:
            UserError: it is refused.
        """
        request = self.request
        given = {**request.values, **params}
        return Config(request.model, request.dataset, list(request.config_files), given)

    def remarks(self) -> list[str]:
        """A sentence on each key that was given and that does nothing in any trial."""
        choices = [each for each in self.ranges if each.kind == "choice"]
        params = [{each.name: value} for each in choices for value in each.values]
        said = self.config({}).remarks()
        for other in params if said else ():
            found = self._remarks_with(other)
            if found is not None:
                said = [remark for remark in said if remark in found]
        if "checkpoint_dir" in self.given:
            said.append(
                "Config key checkpoint_dir has no effect on a search, whose trials are kept in "
                "results_dir."
            )
        searched = {each.name for each in self.ranges}
        if "time_scales" in searched and fits_memory_later(self.config({}).final_config_dict):
            said.append(
                "The range of time_scales changes no trial's score, since a trial is scored before "
                "its memory is fitted on validation; search it with memory_fit: training."
            )
        return said + [
            f"The range of {each.name} has no effect: all its values give the same trials."
            for each in choices
            if self._is_idle(each)
        ]

    def _remarks_with(self, params: Mapping[str, Any]) -> list[str] | None:
        """The remarks of a trial; ``None`` if it is refused, which is counted elsewhere."""
        try:
            return self.config(params).remarks()
        except UserError:
            return None

    def _is_idle(self, searched: Range) -> bool:
        """Whether no value of a range does anything, whichever values the others have."""
        name = searched.name.split(".")[0]
        others: list[dict[str, Any]] = [{}] + [
            {each.name: value}
            for each in self.ranges
            if each.kind == "choice" and each is not searched
            for value in each.values[:_MOST_LOOKED_AT]
        ]
        said = False
        for other, value in product(others, searched.values[:_MOST_LOOKED_AT]):
            remarks = self._remarks_with({**other, searched.name: value})
            if remarks is None:
                return False
            if any(remark.startswith(f"Config key {name}") for remark in remarks):
                said = True
            elif value is not None and not self._is_default(searched.name, value):
                return False
        return said

    def _is_default(self, name: str, value: Any) -> bool:
        head, _, part = name.partition(".")
        now = self.config({}).internal_config_dict.get(head)
        return value == (now.get(part) if part and isinstance(now, dict) else now)


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
    for key in PROCESS_KEYS:
        if key in config.external_config_dict:
            raise UserError(
                f"Config key {key} has no effect on a search, whose trials are one process each; "
                "leave it out, or give --jobs=N for several trials at a time."
            )
    _check_given(config)
    _check_ranges(request, ranges, config)
    for key in ("results_dir", "pretrain_dir"):
        ensure_writable(config[key], key)
    for name in _SUFFIXES:
        if (path := getattr(request, name)) is not None:  # it may lie in results_dir
            ensure_writable_file(path, name)
    table1 = prepare_atomic_files(config)
    return Plan(
        request=request,
        ranges=ranges,
        n_trials=n_trials,
        task=config["task"],
        table1=table1,
        store=Store.of(config["results_dir"], request.dataset),
        seed=config["seed"],
        selected_by=config["valid_metric"],
        mode=config["eval_args"]["mode"]["valid"],
        bigger=config["valid_metric_bigger"],
        results_dir=Path(config["results_dir"]),
        given=as_json_values(config.external_config_dict),
        digests=file_digests(config),
    )


def _check_options(request: Request) -> None:
    for option, name, known in (("algo", request.algo, ALGORITHMS), ("tool", request.tool, TOOLS)):
        if name not in known:
            raise UserError(
                f"--{option} is '{name}'{choose_from(name, known, 'it must be one of:')}"
            )
    if not registry.is_compared(request.model):
        raise UserError(
            f"The model '{request.model}' cannot be tuned here"
            f"{choose_from(request.model, registry.MODELS, 'the models are')}"
        )
    if request.tool == "Ray" and request.jobs > 1:
        raise UserError("--jobs is for --tool=Hyperopt; Ray runs a trial on each of its CPUs.")
    for name, suffixes in _SUFFIXES.items():
        if (path := getattr(request, name)) is not None:
            check_suffix(path, name, *suffixes)


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
    combinations = prod(len(each.values) for each in ranges)
    if combinations > MOST_COMBINATIONS:
        raise UserError(
            f"{request.params_file} has {combinations} combinations, more than can be tried; write "
            "fewer choices, or give --algo=random or bayes with --max_evals=N."
        )
    return combinations


def _check_given(config: Config) -> None:
    """Refuse what a search cannot honour."""
    if config.external_config_dict.get("resume"):
        raise UserError(
            "Config key resume has no effect on a search, whose unfinished trials resume by "
            "themselves; leave it out."
        )
    if config["eval_step"] < 1:
        raise UserError(
            f"Config key eval_step is {config['eval_step']}, which is no validation at all, but "
            "trials are chosen by it; give 1 or more."
        )


def _overlap(one: str, other: str) -> bool:
    """Whether two keys are the same, or one a part of the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _check_ranges(request: Request, ranges: tuple[Range, ...], config: Config) -> None:
    """Refuse ranges of what is fixed or has a range, or of what the model does not have."""
    fixed = list(names_of(config.external_config_dict))
    for place, each in enumerate(ranges):
        key = each.name.split(".")[0]
        if any(_overlap(each.name, name) for name in fixed):
            raise UserError(
                f"The config key {each.name} is given for every trial, but {request.params_file} "
                "has a range for it; leave one of them out."
            )
        for other in ranges[:place]:
            if _overlap(each.name, other.name):
                raise UserError(
                    f"{request.params_file} has ranges for {other.name} and {each.name}, of which "
                    "one is a part of the other; leave one of them out."
                )
        _check_validates(request, each)
        if key not in config:
            raise UserError(
                f"{request.params_file} has a range for {each.name}, which {request.model} does "
                "not have, so that all its values would be the same; leave it out."
            )


def _check_validates(request: Request, searched: Range) -> None:
    """Refuse a range of ``eval_step`` in which there are trials without a validation."""
    if searched.name != "eval_step":
        return
    least = 0 if searched.kind == "loguniform" else 1  # its bounds are logarithms
    values = searched.values if searched.kind == "choice" else searched.values[:1]
    if any(isinstance(value, int | float) and value < least for value in values):
        raise UserError(
            f"{request.params_file} has a range for eval_step with less than 1, which is no "
            "validation at all, but trials are chosen by it; give 1 or more."
        )
