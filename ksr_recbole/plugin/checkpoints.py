"""``load_data_and_model`` for this package's checkpoints, without pickle."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from logging import getLogger
from typing import Any

from recbole.utils import init_logger, init_seed

from ksr_recbole.compat import check_unpacked_size, unpickling
from ksr_recbole.files import check_regular
from ksr_recbole.plugin.loaders import FINGERPRINT
from ksr_recbole.quick_start.prepare import load_data, make_trainer
from ksr_recbole.quick_start.restore import config_of, take_learned_vectors
from ksr_recbole.trainer import checkpoint

_RECBOLES = b"recbole.config.configurator"
"""The module that the pickle in a checkpoint of RecBole's own models names."""


def load_data_and_model(
    original: Callable[[str], tuple[Any, ...]],
) -> Callable[[str], tuple[Any, ...]]:
    """RecBole's function, which for this package's checkpoints reads tensors and plain values.

    Args:
        original: ``recbole.quick_start.load_data_and_model``; it gets the checkpoints of
            RecBole's own models.
    """

    def load_data_and_model(model_file: str) -> tuple[Any, ...]:
        if not _is_recboles(model_file):
            return _load(model_file)
        with unpickling(model_file):
            return original(model_file)

    load_data_and_model.__doc__ = original.__doc__
    return load_data_and_model


def _is_recboles(path: str | os.PathLike[str]) -> bool:
    """Whether RecBole's trainer wrote a checkpoint; nothing of it is unpickled to see."""
    try:
        check_regular(path)
        check_unpacked_size(path)
        with zipfile.ZipFile(path) as archive:
            [name] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return _RECBOLES in archive.read(name)
    except Exception:  # whatever makes it unreadable, reading it below says so in a sentence
        return False


def _load(path: str) -> tuple[Any, ...]:
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
    data = load_data(config)
    take_learned_vectors(path, config, data.dataset, content["state_dict"])
    trainer = make_trainer(config, data.dataset)
    trainer.load_best(path)
    config[FINGERPRINT] = data.dataset.fingerprint
    return config, trainer.model, *data
