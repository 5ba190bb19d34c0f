"""From a finished run or a checkpoint to a model directory."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ksr_recbole.config import Config
from ksr_recbole.config.keys import known_keys
from ksr_recbole.dataset.kg_sequence_dataset import WithSequences, load_dataset
from ksr_recbole.distributed.hosts import PROCESS_KEYS
from ksr_recbole.errors import UserError
from ksr_recbole.inference.building import Options, build, check_model
from ksr_recbole.inference.directory import (
    Histories,
    SavedModel,
    check_replaceable,
    write_directory,
)
from ksr_recbole.quick_start.data import prepare_atomic_files
from ksr_recbole.trainer import checkpoint

_SET_BY_THE_MACHINE = {"device", "local_rank", "data_path", "memory_backend", *PROCESS_KEYS}


def save_model(
    result_or_checkpoint: Mapping[str, Any] | str | os.PathLike[str],
    directory: str | os.PathLike[str],
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
) -> Path:
    """Write the best model of a run into a directory that :class:`Recommender` loads.

    The dataset is read once more, for tokens and histories, and must be the one of training.

    Args:
        result_or_checkpoint: what :func:`ksr_recbole.quick_start.run` returned, or the path of
            a checkpoint.
        directory: where to write; a model directory that is there already is replaced.
        config_file_list: YAML files with what a checkpoint does not know: ``data_path``,
            ``train_ratio``, field names, where they were not the default.
        config_dict: such values; they win over the files.

    Returns:
        ``directory`` as a path.

    Raises:
        UserError: the checkpoint or the data cannot be used, the model is none of this
            package's, or the directory holds something else or cannot be written.
    """
    check_replaceable(directory)
    given = dict(config_dict or {})
    if isinstance(result_or_checkpoint, Mapping):
        path, given = _of_result(result_or_checkpoint, given)
    else:
        path = result_or_checkpoint
    return write_directory(directory, _saved_model(path, config_file_list, given))


def _of_result(result: Mapping[str, Any], given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A run's checkpoint, and its configuration."""
    if not result.get("checkpoint") or "config" not in result:
        raise UserError(
            "The run's result names no checkpoint; run with saved=True a model of this package "
            "(KSR, GRU, RUM and their variants)."
        )
    config = result["config"]
    wanted = known_keys() - _SET_BY_THE_MACHINE
    values = {key: value for key, value in config.items() if key in wanted}
    values["data_path"] = str(Path(config["data_path"]).parent)
    return result["checkpoint"], values | given


def _saved_model(
    path: str | os.PathLike[str], files: list[str] | None, given: dict[str, Any]
) -> SavedModel:
    content = checkpoint.load(path)
    name = content["model"]
    check_model(name)
    if content["best_epoch"] < 0:
        raise UserError(
            f"Checkpoint {path} is of a run that was stopped before its first epoch was "
            "evaluated; resume it first."
        )
    config = _config(content, files, given)
    prepare_atomic_files(config)
    dataset = load_dataset(config)
    dataset.build()
    settings = {key: checkpoint.plain(config[key]) for key in content["settings"]}
    checkpoint.check_same_run(path, content, config, dataset.fingerprint, settings)
    tokens, weights = _tokens(dataset, content["state_dict"]), content["state_dict"]
    options = Options(config.__getitem__, torch.device("cpu"))
    build(name, options, tokens, weights)  # as loading will, and tells which options it needs
    return SavedModel(
        model=name,
        about={
            "dataset": content["dataset"],
            "data": content["data"],
            "best_epoch": content["best_epoch"] + 1,
        },
        settings=checkpoint.plain(options.read),
        tokens=tokens,
        weights=weights,
        histories=_histories(dataset),
    )


def _config(content: dict[str, Any], files: list[str] | None, given: dict[str, Any]) -> Config:
    """The run's configuration: what the checkpoint knows of it, then files, then values."""
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder) / "checkpoint.yaml"
        known.write_text(json.dumps(content["settings"]), encoding="utf-8")  # JSON is YAML
        return Config(content["model"], content["dataset"], [str(known), *(files or [])], given)


def _tokens(dataset: WithSequences, weights: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    fields = {"user": dataset.uid_field, "item": dataset.iid_field}
    if "entity_embedding.weight" in weights:
        fields |= {"entity": dataset.entity_field, "relation": dataset.relation_field}
    return {
        kind: [str(token) for token in dataset.field2id_token[field]]
        for kind, field in fields.items()
    }


def _histories(dataset: WithSequences) -> Histories:
    sequences = dataset.sequences
    return Histories(
        items=sequences.items.astype(np.int32),
        offsets=sequences.offsets,
        starts=dataset.split.train_start.astype(np.int32),
    )
