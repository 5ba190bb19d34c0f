"""From a checkpoint back to the configuration and the dataset it was trained with."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

from torch import Tensor

from dataset_atomic.own_graph import KEYS as GRAPH_KEYS
from ksr_recbole.config import Config
from ksr_recbole.config.decisions import DECISIONS, Fate
from ksr_recbole.config.idle import on_the_machine
from ksr_recbole.config.keys import TEXTS, known_keys
from ksr_recbole.config.kinds import compared_keys
from ksr_recbole.config.literals import literals
from ksr_recbole.dataset.loading import SETTINGS
from ksr_recbole.dataset.pretrained import PretrainedVectors
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset, WithSequences
from ksr_recbole.errors import UnusableCheckpointError, UserError, shown
from ksr_recbole.quick_start.atomic_data import has_interactions, is_usual
from ksr_recbole.quick_start.prepare import open_dataset
from ksr_recbole.quick_start.process_keys import PROCESS_KEYS
from ksr_recbole.records import as_json_values
from ksr_recbole.trainer import checkpoint
from ksr_recbole.trainer.trainer import MAY_DIFFER

_NOT_AGAIN = frozenset(
    {"model", "dataset", "resume", "pretrain_export_path", "memory_backend", "num_threads"}
    | {"device", "gpu_id", "use_gpu", "log_wandb", "wandb_project"}
    | {"checkpoint_dir", "results_dir", "pretrain_dir", "data_cache_dir", "config_files"}
    | {"save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path"}
    | {*PROCESS_KEYS, *GRAPH_KEYS}
)
"""Settings of the run that wrote a checkpoint that do not hold for a run that reads it, perhaps on
another machine: among them all folders to write into, for a checkpoint may be a stranger's."""

_READ_AGAIN = frozenset(
    {key for key in SETTINGS if key not in DECISIONS or DECISIONS[key].fate is Fate.HONOURED}
    | {"model", "dataset", "data_path", "data_cache_dir", "download"}
    | {"num_threads", "memory_backend"}
) - {"preload_weight"}
"""Keys that reading a checkpoint's data, or computing with its model, takes from a user."""


DEVICE_KEYS = ("gpu_id", "use_gpu", "device")
"""Keys that say where a model computes."""


def config_of(content: Mapping[str, Any], values: Mapping[str, Any] | None = None) -> Config:
    """The configuration a checkpoint was trained with.

    What the checkpoint holds is taken as it is: none of its strings stands for another value.

    Args:
        content: from :func:`ksr_recbole.trainer.checkpoint.load`.
        values: config values that win over the checkpoint's, such as ``data_path``; their
            strings may be words of a command line.

    Raises:
        UserError: the checkpoint, or the model, a key or a value in it, is not of this version.
    """
    if "config_files" in (values or {}):
        raise UserError(
            "A checkpoint holds its configuration itself; leave config_files out, and give single "
            "keys, such as data_path, by themselves."
        )
    if of_graph := GRAPH_KEYS & set(values or {}):
        raise UserError(
            f"A checkpoint belongs to the graph that it was trained with; leave {min(of_graph)} "
            "out."
        )
    known = known_keys()
    given = {key: value for key, value in _of_any_run(content["given"]).items() if key in known}
    merged = {**given, **_of_any_run(content["settings"]), **literals(values or {}, TEXTS)}
    return Config(content["model"], content["dataset"], None, merged, words=False)


def _of_any_run(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that hold for a run that reads a checkpoint too."""
    return {key: value for key, value in values.items() if key not in _NOT_AGAIN}


def warn_of_idle(config: Config, values: Mapping[str, Any], read: Collection[str] = ()) -> None:
    """Warn of values given besides a checkpoint that only training reads.

    Those that the checkpoint must agree on are compared with it, so they are not among them.

    Args:
        config: from :func:`config_of`.
        values: what it was given.
        read: further keys that are read here.
    """
    given = {name.split(".")[0] for name in values}
    for key in sorted(given - _READ_AGAIN - _compared(config) - {*read}):
        getLogger().warning(
            f"Config key {shown(key)} has no effect on a {config['model']} that is trained already."
        )
    of_machine = {key: config.external_config_dict.get(key) for key in given & {*read}}
    for remark in on_the_machine(of_machine, config["device"]):
        getLogger().warning(remark)


def _compared(config: Config) -> frozenset[str]:
    """Keys that a checkpoint and what it is used for must agree on."""
    return compared_keys(config) - MAY_DIFFER


def dataset_of(
    path: str | os.PathLike[str], content: Mapping[str, Any], config: Config
) -> WithSequences:
    """The built dataset of a checkpoint's configuration.

    Args:
        path: the checkpoint's file.
        content: what is in it.
        config: from :func:`config_of`.

    Raises:
        UserError: its data are gone, are others, or a setting is another.
    """
    _check_converted(path, config)
    dataset = open_dataset(config)
    dataset.build()
    keys = _compared(config) | _of_any_run(content["settings"]).keys()
    settings = {key: as_json_values(config[key]) for key in keys}
    checkpoint.check_same_run(path, content, config, dataset.fingerprint, settings)
    return dataset


def _check_converted(path: str | os.PathLike[str], config: Config) -> None:
    """Refuse to convert raw data where a checkpoint, perhaps a stranger's, says that they are.

    Raises:
        UserError: the dataset is not there, and not one that is made in its usual folder.
    """
    folder = Path(config["data_path"])
    if not is_usual(config) and os.path.isdir(folder) and not has_interactions(config):
        name = shown(config["dataset"])
        raise UserError(
            f"Checkpoint {path} was trained on {name}, and {shown(str(folder), 300)} "
            f"has no {name}.inter; give the folder above the dataset's own, as --data_path=FOLDER."
        )


def take_learned_vectors(
    path: str | os.PathLike[str],
    config: Config,
    dataset: WithSequences,
    weights: Mapping[str, Tensor],
) -> None:
    """Let a checkpoint's vectors stand in for the pretrained ones: nothing is pretrained.

    Args:
        path: the checkpoint's file, for the sentence.
        config: from :func:`config_of`.
        dataset: the built dataset, whose models start from the vectors afterwards.
        weights: the checkpoint's weights, on the CPU.

    Raises:
        UnusableCheckpointError: they do not fit the options, or have other rows than the dataset.
    """
    name, sizes = config["model"], (dataset.item_num, dataset.user_num)
    checkpoint.check_sizes(path, name, weights, config.__getitem__, *sizes)
    rows = {"item": dataset.item_num}
    if isinstance(dataset, KGSequenceDataset):
        rows |= {"entity": dataset.entity_num, "relation": dataset.relation_num}
    for kind, wanted in rows.items():
        part = f"{kind}_embedding.weight"
        if part in weights and len(weights[part]) != wanted:
            raise UnusableCheckpointError(
                f"Checkpoint {path} does not hold the weights of {name} for this dataset ({part} "
                f"has {len(weights[part])} rows instead of {wanted}); train again, or give another."
            )
    dataset.pretrained = PretrainedVectors.learned(weights)
