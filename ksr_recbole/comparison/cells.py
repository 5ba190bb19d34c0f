"""A cell, the smallest piece of work that is kept, and what its key is made of.

It is one model, task and seed on one dataset.  Two cells of one key must give the same result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_atomic.own_graph import KEYS as GRAPH_KEYS
from ksr_recbole import digests
from ksr_recbole.arguments import without
from ksr_recbole.config.shared import WITHOUT_A_VALUE
from ksr_recbole.names import first_name

TABLE3_METRICS = {"MAP": "map", "MRR": "mrr", "Hit@10": "hit@10", "NDCG@10": "ndcg@10"}
"""The metrics of Table 3 as shown, and RecBole's names of them."""

PATH_KEYS = frozenset(
    {"data_path", "checkpoint_dir", "results_dir", "pretrain_dir"}
    | {"pretrain_path", "pretrain_export_path"}
    | {"data_cache_dir", "config_files", "dataset_save_path", "dataloaders_save_path"}
    | GRAPH_KEYS  # what they hold is in the atomic files
)
"""Config keys that say where files lie on this machine; kept settings and commands lack them."""

NO_PART_OF_THE_KEY = PATH_KEYS | frozenset(
    # What is shown or kept, ...
    {"resume", "trust_checkpoint", "show_progress", "state", "save_dataset", "save_dataloaders"}
    | {"download", "log_wandb", "wandb_project", "metric_decimal_place"}
    # ... which machine computes it, in which order of batches; and the seed, given apart.
    | {"gpu_id", "use_gpu", "device", "worker", "num_threads", "memory_backend", "eval_batch_size"}
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
        overrides: config values of the study, in addition to those given for every cell.
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
    """Key of a cell: equal only for cells that must give the same result.

    An option without a value (``None``), or with the one that this stands for, counts as one that
    is not there, so that cells finished before there was that option are found.

    Args:
        settings: the final config values, as JSON can hold them; model, dataset and task are
            among them.
        seed: the run's seed.
        files: from :func:`~ksr_recbole.comparison.inputs.file_digests`.
    """
    kept = {
        key: value
        for key, value in of_consequence(settings).items()
        if value is not None and value != WITHOUT_A_VALUE.get(key)
    }
    if (dataset := kept.get("dataset")) is not None:
        kept["dataset"] = first_name(dataset)
    # Each process draws its own dropout, each worker of RecBole's loaders its own negatives.
    for name, alone in (("nproc", 1), ("world_size", 1), ("worker", 0)):
        if isinstance(number := settings.get(name), int) and number > alone:
            kept[name] = number
    return digests.of_values({"settings": kept, "seed": seed, "files": dict(files)})


def of_consequence(values: Mapping[str, Any]) -> dict[str, Any]:
    """Config values without those under which a result stays the same."""
    return {key: value for key, value in values.items() if key not in NO_PART_OF_THE_KEY}


def without_places(values: Mapping[str, Any]) -> dict[str, Any]:
    """Config values without those that say where files lie on this machine."""
    return {key: value for key, value in values.items() if key not in PATH_KEYS}


def environment_without_places(environment: Mapping[str, Any]) -> dict[str, Any]:
    """A run's environment whose command names no folder of this machine.

    Args:
        environment: from :func:`ksr_recbole.quick_start.result.environment`.
    """
    program, *arguments = environment["command"]
    return {**environment, "command": [Path(program).name, *without(arguments, *PATH_KEYS)]}
