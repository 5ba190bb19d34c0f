"""Which cells a request needs, and which of them cannot be run on its dataset."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ksr_recbole import registry
from ksr_recbole.comparison.cells import TABLE3_METRICS, Cell, cell_key
from ksr_recbole.comparison.inputs import file_digests
from ksr_recbole.comparison.store import Store
from ksr_recbole.comparison.studies import Setting, Study, protocol_values
from ksr_recbole.config import Config
from ksr_recbole.config.evaluation_keys import evaluated_modes, metric_keys
from ksr_recbole.digests import of_file_once
from ksr_recbole.errors import UserError, shown
from ksr_recbole.gpus import taken_in_turn
from ksr_recbole.quick_start.atomic_data import prepare_atomic_files
from ksr_recbole.quick_start.recbole_models import check_files, check_usable
from ksr_recbole.quick_start.result import settings

Position = tuple[str, str, int]
"""Label of the setting, task and seed."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        dataset: name of the dataset.
        study: what is compared.
        tasks: names of the tasks.
        seeds: the seeds, ascending.
        jobs: cells run at a time.
        results_dir: folder of everything that is written.
        config_files: YAML files read for every cell.
        values: config values of every cell, as on the command line.
        keep_checkpoints: leave the trained models of finished cells on disk.
        by_frequency: also write tables by how often the targets occur in training.
    """

    dataset: str
    study: Study
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    jobs: int = 1
    results_dir: Path = Path("results")
    config_files: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    keep_checkpoints: bool = False
    by_frequency: bool = False


@dataclass(frozen=True)
class Plan:
    """A request's cells.

    Attributes:
        request: the request.
        store: where finished cells are.
        table1: the dataset's line of Table 1.
        modes: evaluation modes reported, the one that selects the best epoch first.
        cells: by position in the tables; positions that need the same run share a cell.
        refused: why a cell cannot be run on this dataset, by the cell's name.
        remarks: a sentence on each given value that does not hold for every row.
        config_digests: SHA-256 of the config files, as they were read.
        gpus: see :func:`~ksr_recbole.gpus.taken_in_turn`.
    """

    request: Request
    store: Store
    table1: str
    modes: tuple[str, ...]
    cells: Mapping[Position, Cell]
    refused: Mapping[str, str]
    remarks: tuple[str, ...] = ()
    config_digests: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()

    def distinct_cells(self) -> list[Cell]:
        """Every cell once: seed by seed, so that a first whole table is there early."""
        ordered = sorted(self.cells.items(), key=lambda item: item[0][2])
        return list({cell.name: cell for _, cell in ordered}.values())


def make_plan(request: Request) -> Plan:
    """Check every cell's configuration, make sure the data are there, and name the cells.

    Raises:
        UserError: the configuration or the dataset's files are refused.
    """
    request, remarks = _as_given(request)
    configs = {
        (setting.label, task): config_of(request, setting, task)
        for task in request.tasks
        for setting in request.study.settings
    }
    some_config = next(iter(configs.values()))
    remarks = (*remarks, *_idle_everywhere(configs.values()))
    table1 = prepare_atomic_files(some_config)
    cells = {
        (setting.label, task, seed): cell_of(
            setting, configs[setting.label, task], seed, request.study.measure
        )
        for task in request.tasks
        for setting in request.study.settings
        for seed in request.seeds
    }
    reasons = {
        cells[label, task, seed].name: _reason_against(configs[label, task])
        for label, task, seed in cells
    }
    if all(reasons.values()):
        raise UserError(next(iter(reasons.values())))
    return Plan(
        request,
        Store.of(request.results_dir, request.dataset),
        table1,
        tuple(evaluated_modes(some_config)),
        cells,
        {name: reason for name, reason in reasons.items() if reason},
        remarks,
        tuple(of_file_once(file) for file in request.config_files),
        taken_in_turn(some_config),
    )


def _as_given(request: Request) -> tuple[Request, tuple[str, ...]]:
    """If the rows differ in a given key, keep the rows with the given value.  Also return remarks.

    A row keeps every other value that it sets itself, whatever was given for every cell.

    Raises:
        UserError: no row is left.
    """
    study, files = request.study, list(request.config_files)
    named = {key for setting in study.settings for key in setting.overrides}
    if not named:
        return request, ()
    first = study.settings[0].model
    config = Config(first, request.dataset, files, {**protocol_values(first), **request.values})
    given = {key: value for key, value in config.external_config_dict.items() if key in named}
    varied = {key: value for key, value in given.items() if study.varies(key)}
    kept = [setting for setting in study.settings if _agrees(setting, varied)]
    description = ", ".join(f"{key} {shown(value)}" for key, value in sorted(varied.items()))
    if not kept:
        raise UserError(f"The study {study.name} has no row with {description}; leave the key out.")
    remarks = [
        f"Config key {key} is {shown(value)} only where a row does not set it itself."
        for key, value in sorted(given.items())
        if key not in varied and not all(_agrees(row, {key: value}) for row in kept)
    ]
    if out := [setting.label for setting in study.settings if setting not in kept]:
        remarks.append(f"Left out, since {description} was given: {', '.join(out)}.")
    return replace(request, study=study.only(kept)), tuple(remarks)


def _idle_everywhere(configs: Collection[Config]) -> Iterator[str]:
    """A sentence on each key that was given and that does nothing in any row.

    What does nothing in some of them is in the logs of their runs.
    """
    said: dict[str, set[str]] = {}
    rows: Counter[str] = Counter()
    for config in configs:
        remarks = {key: remark for remark in config.remarks() for key in _keys_in(remark)}
        rows.update(remarks.keys())
        for key, remark in remarks.items():
            said.setdefault(key, set()).add(remark)
    for key in said:
        if rows[key] == len(configs):
            [only, *others] = sorted(said[key])
            yield f"Config key {key} has no effect on any row." if others else only


def _keys_in(remark: str) -> list[str]:
    """The keys that a remark is on, which follow its first words."""
    found = re.match(r"Config keys? (\S+(?:(?:, | and )\S+)*) (?:has|have) no effect", remark)
    return re.split(", | and ", found[1]) if found else []


def _agrees(setting: Setting, given: Mapping[str, Any]) -> bool:
    """Whether no value of the row contradicts a given key."""
    return all(setting.overrides.get(key, value) == value for key, value in given.items())


def cell_of(setting: Setting, config: Config, seed: int, measure: str | None = None) -> Cell:
    """The cell of a setting.

    Args:
        setting: the setting.
        config: its configuration.
        seed: the run's seed.
        measure: as of :class:`Cell`.
    """
    key = key_of(config, seed)
    names = setting.model, config["dataset"], config["task"]
    return Cell(*names, seed, setting.overrides, key, measure)


def key_of(config: Config, seed: int) -> str:
    """The key of a run: of its configuration and of the files as they are now."""
    return cell_key(settings(config), seed, file_digests(config))


def values_of(given: Mapping[str, Any], overrides: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The config values of a cell: those given for all, those of its setting, and its task."""
    return {**given, **overrides, "task": task}


def config_of(request: Request, setting: Setting, task: str) -> Config:
    """The configuration of a setting's cells, without the seed.

    Raises:
        UserError: it is refused, or the metrics of the tables would not be computed.
    """
    values = values_of(request.values, setting.overrides, task)
    config = Config(setting.model, request.dataset, list(request.config_files), values)
    missing = set(TABLE3_METRICS.values()) - set(metric_keys(config["metrics"], config["topk"]))
    if missing:
        raise UserError(
            f"The table shows {', '.join(TABLE3_METRICS)}, but {', '.join(sorted(missing))} would "
            "not be computed; leave the config keys metrics and topk as they are, or add to them."
        )
    return config


def _reason_against(config: Config) -> str | None:
    model, dataset = config["model"], config["dataset"]
    if not registry.is_compared(model):
        try:
            check_usable(config)
            check_files(config)
        except UserError as error:
            return str(error)
        return None
    there = file_digests(config)
    missing = [f"{dataset}.{suffix}" for suffix in ("kg", "link") if suffix not in there]
    if not missing or not registry.needs_kg(model):
        return None
    return (
        f"{model} needs a knowledge graph, but {config['data_path']} has no "
        f"{' and no '.join(missing)}; add what is missing or compare models that need none."
    )
