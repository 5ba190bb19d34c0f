"""Finding a dataset's atomic files, converting the bundled one the first time."""

from __future__ import annotations

from logging import getLogger
from pathlib import Path
from typing import Any

from dataset_atomic.convert import Options
from dataset_atomic.layout import Layout
from dataset_atomic.ml_100k import convert_ml_100k
from dataset_atomic.sources import SOURCES, how_to_get
from dataset_atomic.table1 import describe_table1
from ksr_recbole.choices import choose_from
from ksr_recbole.errors import UserError
from ksr_recbole.locks import locked
from ksr_recbole.one_step import remove_leftovers
from ksr_recbole.paths import DATASETS

CONVERTERS = {"ml-100k": convert_ml_100k}
"""Datasets that can be made from what is installed."""


def available_datasets() -> list[str]:
    """Names of the datasets in ``dataset_atomic/`` and of those with a converter."""
    folders = {path.parent.name for path in DATASETS.glob("*/*.inter")}
    return sorted(folders | set(CONVERTERS) | set(SOURCES))


def prepare_atomic_files(config: Any) -> str:
    """Make sure the atomic files are there and return the dataset's Table-1 line.

    Raises:
        UserError: an unknown dataset, or one whose files are not where they are looked for.
    """
    name, folder = config["dataset"], Path(config["data_path"])
    remove_leftovers(folder)
    layout = Layout.of(config)
    found = any(path.is_file() for path in layout.inter_paths(folder, name))
    if not found and folder == DATASETS / name:
        if name not in CONVERTERS and name in SOURCES:
            raise UserError(
                f"The dataset {name} has not been converted to {folder} yet: {how_to_get(name)}; "
                f"or, with its atomic files in FOLDER/{name}, add --data_path=FOLDER."
            )
        if name not in CONVERTERS:
            known = choose_from(name, available_datasets(), "the datasets are").removesuffix(".")
            raise UserError(
                f"There is no dataset named '{name}'{known}; for your own, put {name}.inter, .kg "
                f"and .link into {folder}, or into FOLDER/{name} and add --data_path=FOLDER."
            )
        _convert(name, folder)
    if not folder.is_dir():
        raise UserError(f"The dataset folder {folder} (data_path/dataset) does not exist.")
    return describe_table1(folder, name, config.under_protocol, layout).line()


def _convert(name: str, folder: Path) -> None:
    """Convert a dataset, unless another command does so meanwhile."""
    with locked(folder.with_name(f".{name}.lock")):
        if (folder / f"{name}.inter").is_file():
            return
        # What is there without its .inter is no dataset, so that nothing of value is replaced.
        report = CONVERTERS[name](folder, options=Options(overwrite=True))
        for line in report.lines():
            getLogger().info(line)
