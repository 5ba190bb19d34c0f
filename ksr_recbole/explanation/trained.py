"""A trained model and its dataset from a checkpoint, without pretraining anything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from ksr_recbole.config import Config
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.errors import UnusableCheckpointError, shown
from ksr_recbole.explanation.explain import with_memory
from ksr_recbole.invocation import TRAIN
from ksr_recbole.model.ksr import KSR
from ksr_recbole.names import check_name
from ksr_recbole.quick_start.restore import (
    DEVICE_KEYS,
    config_of,
    dataset_of,
    take_learned_vectors,
    warn_of_idle,
)
from ksr_recbole.registry import model_class
from ksr_recbole.trainer import checkpoint
from ksr_recbole.trainer.weights import no_larger_than


class Trained(NamedTuple):
    """A trained model, the built dataset it was trained on, and the checkpoint's file."""

    model: KSR
    dataset: KGSequenceDataset
    checkpoint: Path


def load_trained(
    path: str | os.PathLike[str] | None = None,
    model: str | None = None,
    dataset: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> Trained:
    """Load a KSR from a checkpoint that a run has left, with the options it was trained with.

    Args:
        path: the checkpoint; by default the newest one of ``model`` on ``dataset`` in
            ``checkpoint_dir``.
        model: by default the checkpoint's, or ``KSR``.
        dataset: by default the checkpoint's, or ``ml-100k``.
        values: config values besides the checkpoint's, such as ``data_path``.

    Returns:
        The model in evaluation mode, its built dataset, and the path of the checkpoint.

    Raises:
        UnusableCheckpointError: the file is missing, damaged, or of another model, dataset,
            data or setting than those given.
        UserError: there is no checkpoint, or the model has no memory.
    """
    values = dict(values or {})
    read = [*DEVICE_KEYS]
    if path is None:
        read.append("checkpoint_dir")
        path = _newest(model or "KSR", dataset or "ml-100k", values.get("checkpoint_dir", "saved"))
    content = checkpoint.load(path)
    _check_content(path, content, {"model": model, "dataset": dataset})
    kind = with_memory(model_class(content["model"]), content["model"])
    checkpoint.check_evaluated(path, content)
    config = config_of(content, values)
    warn_of_idle(config, values, read)
    data = cast(KGSequenceDataset, dataset_of(path, content, config))  # all that KSR runs on
    loaded = _with_weights(kind, config, data, path, content["state_dict"])
    return Trained(loaded, data, Path(path))


def _newest(model: str, dataset: str, folder: str) -> Path:
    with_memory(model_class(model), model)
    check_name(dataset, "dataset")
    train = f"{TRAIN} --model={model} --dataset={dataset}"
    return checkpoint.newest(folder, model, dataset, f"train one with `{train}`")


def _check_content(
    path: str | os.PathLike[str], content: Mapping[str, Any], wanted: Mapping[str, str | None]
) -> None:
    for key, name in wanted.items():
        if name is not None and content[key] != name:
            raise UnusableCheckpointError(
                f"Checkpoint {path} is of {key} {shown(content[key])}, not {name}; "
                f"give --{key}={shown(content[key])} or another checkpoint."
            )


def _with_weights(
    kind: type[KSR],
    config: Config,
    dataset: KGSequenceDataset,
    path: str | os.PathLike[str],
    weights: Mapping[str, torch.Tensor],
) -> KSR:
    """The model with a checkpoint's weights, which also stand in for the pretrained vectors."""
    take_learned_vectors(path, config, dataset, weights)
    with no_larger_than(weights):
        model = kind(config, dataset)
    model = model.to(config["device"])
    checkpoint.check_weights(path, config["model"], weights, model.state_dict())
    model.load_state_dict(weights)
    return model.eval()
