"""Finding a dataset's atomic files, converting the bundled one the first time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from logging import getLogger
from pathlib import Path

import numpy as np

from dataset_atomic.atomic import atomic_path
from dataset_atomic.atomic_files import SUFFIXES, steady_dataset
from dataset_atomic.convert import Options
from dataset_atomic.layout import Layout
from dataset_atomic.ml_100k import FREEBASE, NAME, convert_ml_100k
from dataset_atomic.obtain import downloadable, has_raw, obtain, usual_places
from dataset_atomic.own_graph import OwnGraph
from dataset_atomic.sources import SOURCES, how_to_get
from dataset_atomic.table1 import Table1, describe_table1, names_line, origin_of
from ksr_recbole import digests
from ksr_recbole.cache import ArrayCache
from ksr_recbole.choices import choose_from
from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.sequence_datasets import check_single_interactions
from ksr_recbole.errors import UserError, shown
from ksr_recbole.locks import locked
from ksr_recbole.one_step import remove_leftovers
from ksr_recbole.paths import DATASETS

_FORMAT = 2
"""Of the rows of Table 1 that are kept; another one when files are checked for more."""

CONVERTERS = {NAME: convert_ml_100k, FREEBASE: convert_ml_100k}
"""Datasets that can be made from what is installed."""


def available_datasets() -> list[str]:
    """Names of the datasets in ``dataset_atomic/`` and of those with a converter."""
    folders = {path.parent.name for path in DATASETS.glob("*/*.inter")}
    return sorted(folders | set(CONVERTERS) | set(SOURCES))


def prepare_atomic_files(config: Configuration) -> str:
    """Make sure the atomic files are there and return the dataset's Table-1 line.

    Raises:
        UserError: an unknown dataset, or one whose files are not where they are looked for.
    """
    name, folder = config["dataset"], Path(config["data_path"])
    remove_leftovers(folder, lambda file: file.startswith(f"{name}."))
    layout, own = Layout.of(config), getattr(config, "own_graph", None)
    if own is not None:
        _check_made_here(name)
    if not has_interactions(config):
        _make(config, name, folder, own)
    if not os.path.isdir(folder):  # Path.is_dir raises where a name is too long
        raise UserError(f"The dataset folder {folder} (data_path/dataset) does not exist.")
    try:
        row = _described(config, folder, layout)
    except UserError:
        if config["benchmark_filename"]:  # then a missing column may have another reason
            check_single_interactions(config, folder, name)
        raise
    _say_graph(row, folder, layout)
    return row.line()


def is_usual(config: Configuration) -> bool:
    """Whether the dataset's folder is the one that this project makes it in by itself."""
    return Path(config["data_path"]) == DATASETS / config["dataset"]


def has_interactions(config: Configuration) -> bool:
    """Whether the dataset's folder holds its interactions, whole or split beforehand."""
    paths = Layout.of(config).inter_paths(Path(config["data_path"]), config["dataset"])
    return any(map(os.path.isfile, paths))


def _described(config: Configuration, folder: Path, layout: Layout) -> Table1:
    """The dataset's row of Table 1; it is kept, as files that were checked need no other check."""
    name, timed = config["dataset"], bool(config.under_protocol)
    kept_in = config["data_cache_dir"]
    if kept_in is None:
        return describe_table1(folder, name, timed, layout)
    graph = [atomic_path(folder, name, suffix) for suffix in ("kg", "link")]
    with steady_dataset(folder, name, layout.files) as check:
        paths = [*layout.inter_paths(folder, name), *filter(os.path.lexists, graph)]
        try:
            files = {path.name: digests.of_file_once(path) for path in paths}
        except OSError:  # a file is missing or unreadable; the description says which
            return describe_table1(folder, name, timed, layout)
        parts = {"format": _FORMAT, "files": files, "layout": asdict(layout), "timed": timed}
        cache, kind, key = ArrayCache(kept_in), f"{name}-table1", digests.of_values(parts)
        row = _row_of(name, cache.load(kind, key))
        if row is None:
            row = describe_table1(folder, name, timed, layout)
            check()  # or other files' row would be kept under the key of those before
            found = {count: np.array(n) for count, n in asdict(row).items() if type(n) is int}
            cache.keep_data(kind, key, found, {"table1": row.line()})
    return row


def _row_of(name: str, counts: Mapping[str, np.ndarray] | None) -> Table1 | None:
    """The row that was kept, if it was."""
    if counts is None:
        return None
    try:
        return Table1(name, **{count: int(n) for count, n in counts.items()})
    except TypeError:  # not what a row counts
        return None


def _make(config: Configuration, name: str, folder: Path, own: OwnGraph | None) -> None:
    """Convert a dataset whose files are not there, if it is known how.

    Raises:
        UserError: it is not known; its raw files cannot be had; they are malformed.
    """
    may_download = config["download"] is not False
    usual = is_usual(config)
    if own is not None:
        _convert(name, folder, own.places(name), may_download, own)
    elif usual or (name in downloadable() and has_raw(name, folder)):
        if name not in CONVERTERS and name in SOURCES and name not in downloadable():
            raise UserError(
                f"The dataset {name} has not been converted to {folder} yet: {how_to_get(name)}; "
                f"or, with its atomic files in FOLDER/{name}, add --data_path=FOLDER."
            )
        if name not in CONVERTERS and name not in downloadable():
            known = choose_from(name, available_datasets(), "the datasets are").removesuffix(".")
            raise UserError(
                f"There is no dataset named '{name}'{known}. Make it from two tables with "
                f"`python -m dataset_atomic convert csv --dataset={name} --raw=sales.csv "
                f"--items=items.csv`. Or put {name}.inter, .kg and .link into {folder}, or into "
                f"FOLDER/{name} and add --data_path=FOLDER."
            )
        _convert(name, folder, usual_places(name) if usual else [folder], may_download)


def _check_made_here(name: str) -> None:
    """Refuse another graph for a dataset whose raw files are not known here."""
    made = sorted({*CONVERTERS, *downloadable()})
    if name not in made:
        converter = name if name in SOURCES else "csv"
        raise UserError(
            f"Config keys kg, link and names choose another graph, for {', '.join(made)} only. For "
            f"{shown(name)} give the graph to `python -m dataset_atomic convert {converter} "
            "--raw=... --kg=... --link=...`, and leave the keys out of the run."
        )


def _say_graph(row: Table1, folder: Path, layout: Layout) -> None:
    """Which graph a dataset has, from where, and how much of it has names."""
    if row.entities is None:
        return
    try:
        origin = origin_of(folder, row.name, layout) or str(atomic_path(folder, row.name, "kg"))
        told = [origin, names_line(folder, row, layout)]
    except UserError as error:  # no run needs names; what it does need is checked when it is read
        told = [str(error)]
    getLogger().info(f"Graph: {'; '.join(told)}")


def _check_nothing_is_replaced(name: str, folder: Path) -> None:
    """Refuse to make a dataset where there are some of its files: a user's own graph, perhaps.

    Raises:
        UserError: there are.
    """
    paths = [atomic_path(folder, name, suffix) for suffix in SUFFIXES]
    there = [path.name for path in paths if os.path.lexists(path)]
    if there:
        raise UserError(
            f"{folder} has {', '.join(there)} and no {name}.inter. Making {name} would replace "
            "them, so move them away; --kg=FILE --link=FILE make it with a graph of your own."
        )


def _convert(
    name: str, folder: Path, places: list[Path], download: bool, own: OwnGraph | None = None
) -> None:
    """Convert a dataset, unless another command does so meanwhile."""
    say, graph = getLogger().info, {} if own is None else own.arguments()
    lock = folder if own is None else folder.parent  # which is made with the files
    with locked(lock.with_name(f".{lock.name}.lock")):
        if atomic_path(folder, name, "inter").is_file():
            return
        _check_nothing_is_replaced(name, folder)
        if name in CONVERTERS:
            graph = {"options": Options(overwrite=True), **graph}
            report = CONVERTERS[name](folder, name, **graph)
        else:
            report = obtain(name, folder, places, download=download, say=say, **graph)
        for line in report.lines():
            say(line)
