"""From a finished run or a checkpoint to a model directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ksr_recbole.dataset.item_values import Facts
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset, WithSequences
from ksr_recbole.errors import DamagedFileError, UserError
from ksr_recbole.explanation.knowledge import Knowledge
from ksr_recbole.explanation.labels import item_titles
from ksr_recbole.inference.building import build, sequence_model, settings_of
from ksr_recbole.inference.content import Histories, SavedModel, check_saved
from ksr_recbole.inference.directory import check_replaceable, path_of, write_directory
from ksr_recbole.quick_start.restore import config_of, dataset_of, warn_of_idle
from ksr_recbole.records import as_json_values
from ksr_recbole.trainer import checkpoint


def save_model(
    result_or_checkpoint: Mapping[str, Any] | str | os.PathLike[str],
    directory: str | os.PathLike[str],
    config_dict: dict[str, Any] | None = None,
) -> Path:
    """Write the best model of a run into a directory that :class:`Recommender` loads.

    The dataset is read once more, for tokens and histories, and must be the one of training.

    Args:
        result_or_checkpoint: what :func:`ksr_recbole.quick_start.run` returned, or the path of
            a checkpoint.
        directory: where to write; a model directory that is there already is replaced.
        config_dict: config values that win over the run's, such as ``data_path`` where the
            dataset lies elsewhere now.

    Returns:
        ``directory`` as a path.

    Raises:
        UserError: the checkpoint or the data cannot be used, the model is none of this
            package's, or the directory holds something else or cannot be written.
    """
    check_replaceable(path_of(directory))
    path = result_or_checkpoint
    if isinstance(path, Mapping):
        path = _checkpoint_of(path)
    path = path_of(path, "checkpoint")
    saved = _saved_model(path, config_dict or {})
    try:
        check_saved(saved)
    except DamagedFileError as error:
        raise UserError(
            f"The model of {path} is not saved, because it could not be loaded again ({error}). "
            "Correct the data and train again."
        ) from error
    return write_directory(directory, saved)


def _checkpoint_of(result: Mapping[str, Any]) -> str:
    if not result.get("checkpoint"):
        raise UserError(
            "The run's result names no checkpoint; run with saved=True a model of this "
            "package (KSR, GRU, RUM and their variants)."
        )
    return result["checkpoint"]


def _saved_model(path: str | os.PathLike[str], values: dict[str, Any]) -> SavedModel:
    content = checkpoint.load(path)
    name = content["model"]
    sequence_model(name)
    checkpoint.check_evaluated(path, content)
    config = config_of(content, values)
    warn_of_idle(config, values)
    dataset = dataset_of(path, content, config)
    tokens, weights = _tokens(dataset, content["state_dict"]), content["state_dict"]
    settings = settings_of(name, config)
    build(name, settings, tokens, weights, torch.device("cpu"))  # as loading will
    return SavedModel(
        model=name,
        about={
            "dataset": content["dataset"],
            "data": content["data"],
            "best_epoch": content["best_epoch"],
        },
        settings=as_json_values(settings),
        tokens=tokens,
        weights=weights,
        histories=_histories(dataset),
        **_named(dataset, tokens, with_graph="attributes" in weights),
    )


def _named(
    dataset: WithSequences, tokens: Mapping[str, list[str]], with_graph: bool
) -> dict[str, Any]:
    """Names and facts, as fields of :class:`SavedModel`; facts where the model has attributes."""
    if not (isinstance(dataset, KGSequenceDataset) and with_graph):
        none = np.zeros(0, np.int32)
        titles = item_titles(dataset, tokens["item"])
        return {"names": {"item": titles}, "facts": Facts(none, none, none)}
    knowledge = Knowledge.of(dataset)
    items, facts = (each.astype(np.int32) for each in knowledge.of_items.nonzero())
    names = {
        "item": list(knowledge.titles),
        "entity": list(knowledge.entity_names),
        "attribute": [attribute.label for attribute in knowledge.attributes],
    }
    attributes = knowledge.attribute_of[facts].astype(np.int32)
    entities = knowledge.entity_of[facts].astype(np.int32)
    return {"names": names, "facts": Facts(items, attributes, entities)}


def _tokens(dataset: WithSequences, weights: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    fields = {"user": dataset.uid_field, "item": dataset.iid_field}
    if isinstance(dataset, KGSequenceDataset) and "entity_embedding.weight" in weights:
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
