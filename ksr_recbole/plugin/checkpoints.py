"""``load_data_and_model`` for this package's checkpoints, without pickle."""

from __future__ import annotations

import os
from collections.abc import Callable
from logging import getLogger
from typing import Any

import torch
from recbole.data import create_dataset, data_preparation
from recbole.utils import init_logger, init_seed

from ksr_recbole import registry
from ksr_recbole.config import Config
from ksr_recbole.config.keys import known_keys
from ksr_recbole.errors import UnusableCheckpointError
from ksr_recbole.plugin.trainer import RegisteredTrainer
from ksr_recbole.trainer import checkpoint

_RECBOLES = "recbole.config.configurator.Config"
"""What the pickle in a checkpoint of RecBole's own models refers to."""

_NOT_AGAIN = frozenset({"model", "dataset", "resume", "pretrain_export_path"})
"""What was asked of the run that wrote a checkpoint, and is not of one that reads it."""


def load_data_and_model(original: Callable[[str], tuple]) -> Callable[[str], tuple]:
    """RecBole's function, which for this package's checkpoints reads tensors and plain values.

    Args:
        original: ``recbole.quick_start.load_data_and_model``; it gets the checkpoints of
            RecBole's own models.
    """

    def load_data_and_model(model_file: str) -> tuple:
        return original(model_file) if _is_recboles(model_file) else _load(model_file)

    load_data_and_model.__doc__ = original.__doc__
    return load_data_and_model


def _is_recboles(path: str | os.PathLike[str]) -> bool:
    """Whether RecBole's trainer wrote a checkpoint; nothing of it is unpickled to see."""
    try:
        return _RECBOLES in torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # whatever makes it unreadable, reading it below says so in a sentence
        return False


def _load(path: str) -> tuple:
    """Configuration, model, dataset and data of a checkpoint, as RecBole's function gives them.

    The data must be the same as then: the fingerprint in the checkpoint says so.

    Raises:
        UserError: the checkpoint is damaged, or its data are gone or others.
    """
    content = checkpoint.load(path)
    config = config_of(content)
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    getLogger().info(config)
    dataset = create_dataset(config)
    getLogger().info(dataset)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model_class = registry.model_class(config["model"])
    model = model_class(config, train_data.dataset).to(config["device"])
    RegisteredTrainer(config, model).load_best(path)
    return config, model, dataset, train_data, valid_data, test_data


def config_of(content: dict[str, Any]) -> Config:
    """The configuration a checkpoint was trained with.

    Args:
        content: from :func:`ksr_recbole.trainer.checkpoint.load`.

    Raises:
        UserError: the checkpoint, or the model, a key or a value in it, is not of this version.
    """
    if "given" not in content:
        raise UnusableCheckpointError(
            f"This checkpoint of {content['model']} was written by an earlier version, which did "
            "not keep the configuration; train again with this version."
        )
    wanted = known_keys() - _NOT_AGAIN
    given = {key: value for key, value in content["given"].items() if key in wanted}
    values = {**given, **content["settings"]}
    return Config(content["model"], content["dataset"], None, values)
