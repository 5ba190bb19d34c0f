"""A cell, the smallest piece of work that is kept: one model, task and seed on one dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ksr_recbole.cache import content_key
from ksr_recbole.files import sha256_of

ATOMIC_FILES = ("inter", "kg", "link")
"""Suffixes of the dataset's files a result depends on."""

VECTOR_FILES = ("ent", "rel", "bpr")
"""Suffixes of the files in ``pretrain_path``."""

PLACES = frozenset(
    {"data_path", "checkpoint_dir", "results_dir", "pretrain_dir"}
    | {"pretrain_path", "pretrain_export_path"}
    | {"data_cache_dir", "config_files", "dataset_save_path", "dataloaders_save_path"}
)
"""Config keys that say where files lie on this machine; kept settings and commands lack them."""

NO_PART_OF_THE_KEY = PLACES | frozenset(
    # What is shown or kept, ...
    {"resume", "trust_checkpoint", "show_progress", "state", "save_dataset", "save_dataloaders"}
    | {"log_wandb", "wandb_project", "metric_decimal_place"}
    # ... which machine computes it, in which order of batches; and the seed, given apart.
    | {"gpu_id", "use_gpu", "device", "worker", "memory_backend", "eval_batch_size"}
    | {"nproc", "ip", "port", "world_size", "local_rank", "group_offset", "offset", "seed"}
)
"""Config keys under which a result stays the same."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of the comparison.

    Attributes:
        model: name of the model.
        dataset: name of the dataset.
        task: name of the task.
        seed: the run's seed.
        overrides: config values of the study, beside those given for every cell.
        key: SHA-256 of everything the result depends on (:func:`cell_key`).
        measure: ``module:function`` of a :data:`~ksr_recbole.quick_start.run.Measure` that the
            result must have.  It adds to the result and changes nothing in it, so it is no part
            of the key: a study without one takes a cell that was measured.
    """

    model: str
    dataset: str
    task: str
    seed: int
    overrides: Mapping[str, Any]
    key: str
    measure: str | None = None

    @property
    def name(self) -> str:
        """What its files are called; the first 16 digits of the key tell cells apart."""
        return f"{self.model}-{self.task}-{self.seed}-{self.key[:16]}"


def cell_key(settings: Mapping[str, Any], seed: int, files: Mapping[str, str]) -> str:
    """Key of a cell: equal exactly for cells that must give the same result.

    An option without a value (``None``) counts as one that is not there, so that cells finished
    before there was that option are found.

    Args:
        settings: the final config values, as JSON can hold them; model, dataset and task are
            among them.
        seed: the run's seed.
        files: from :func:`file_digests`.
    """
    kept = {key: value for key, value in of_consequence(settings).items() if value is not None}
    return content_key({"settings": kept, "seed": seed, "files": dict(files)})


def of_consequence(values: Mapping[str, Any]) -> dict[str, Any]:
    """Config values but those under which a result stays the same."""
    return {key: value for key, value in values.items() if key not in NO_PART_OF_THE_KEY}


def without_places(values: Mapping[str, Any]) -> dict[str, Any]:
    """Config values but those that say where files lie on this machine."""
    return {key: value for key, value in values.items() if key not in PLACES}


def environment_without_places(environment: Mapping[str, Any]) -> dict[str, Any]:
    """A run's environment whose command names no folder of this machine.

    Args:
        environment: from :func:`ksr_recbole.quick_start.result.environment`.
    """
    program, *arguments = environment["command"]
    kept = [a for a in arguments if a.partition("=")[0].removeprefix("--") not in PLACES]
    return {**environment, "command": [Path(program).name, *kept]}


def file_digests(config: Any) -> dict[str, str]:
    """SHA-256 of each atomic file that is there and of the vectors given, by suffix.

    Args:
        config: a configuration of the dataset; only ``data_path`` and ``pretrain_path`` matter.
    """
    folders = [(config["data_path"], ATOMIC_FILES)]
    if config["pretrain_path"]:
        folders.append((config["pretrain_path"], VECTOR_FILES))
    paths = {
        suffix: Path(folder) / f"{config['dataset']}.{suffix}"
        for folder, suffixes in folders
        for suffix in suffixes
    }
    return {suffix: sha256_of(path) for suffix, path in paths.items() if path.is_file()}
