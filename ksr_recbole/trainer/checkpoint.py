"""Checkpoints of this package's models: tensors and plain values, loaded without pickle."""

from __future__ import annotations

import glob
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from recbole.utils import get_local_time

from ksr_recbole.errors import UnusableCheckpointError, UserError
from ksr_recbole.files import replacing

FORMAT = 1


def plain(value: Any) -> Any:
    """``value`` as JSON would hold it; what JSON does not know becomes its string."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def save(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as (temporary,):
        try:
            torch.save({"format": FORMAT, **content}, temporary)
        except RuntimeError as error:  # how torch reports a full disk
            raise UserError(
                f"Cannot write checkpoint {path}, most likely because the disk is full; "
                "make room or choose another folder with --checkpoint_dir=FOLDER."
            ) from error


def check_exists(path: str | os.PathLike[str]) -> None:
    """Refuse a path with no file.

    Raises:
        UnusableCheckpointError: naming it.
    """
    if not Path(path).is_file():
        raise UnusableCheckpointError(
            f"Checkpoint {path} does not exist; give the path of a saved model."
        )


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint written by :func:`save`, with ``weights_only=True``.

    Raises:
        UnusableCheckpointError: the file is missing, damaged, or no checkpoint of this package.
    """
    check_exists(path)
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UnusableCheckpointError(
            f"Checkpoint {path} is damaged or not a checkpoint of this package; "
            "delete it and train again, or give another."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UnusableCheckpointError(
            f"Checkpoint {path} is not of format {FORMAT}, the one this version writes; "
            "train again with this version."
        )
    return content


def check_same_run(
    path: str | os.PathLike[str],
    content: Mapping[str, Any],
    config: Any,
    fingerprint: str,
    settings: Mapping[str, Any],
) -> None:
    """Make sure that a checkpoint belongs to a run.

    Args:
        path: the checkpoint's file, for the sentence.
        content: what :func:`load` gave.
        config: the run's configuration.
        fingerprint: of the run's dataset.
        settings: the run's config values that the checkpoint must agree on, as far as it was
            written by a version that noted them down.

    Raises:
        UnusableCheckpointError: it is of another model, other data or other settings.
    """
    for key in ("model", "dataset"):
        if content[key] != config[key]:
            raise UnusableCheckpointError(
                f"Checkpoint {path} is of {key} {content[key]}, but this run is of {config[key]}."
            )
    # The settings before the data and the task before other settings, since they follow from it.
    given = content["settings"]
    for key in sorted(given.keys() & settings.keys(), key=lambda key: (key != "task", key)):
        if given[key] != settings[key]:
            raise UnusableCheckpointError(
                f"Checkpoint {path} was trained with {key} = {given[key]}, but this run "
                f"has {settings[key]}; give the same or train anew."
            )
    if content["data"] != fingerprint:
        raise UnusableCheckpointError(
            f"Checkpoint {path} was trained on other {content['dataset']} files than those "
            f"in {config['data_path']}, or on another part of them (train_ratio); "
            "give the same data or train anew."
        )


def path_of_new(folder: str | os.PathLike[str], model: str, dataset: str) -> Path:
    """Where a run keeps its checkpoint: with the time, and the process for runs of one second."""
    return Path(folder) / f"{model}-{dataset}-{get_local_time()}-{os.getpid()}.pth"


def newest(folder: str | os.PathLike[str], model: str, dataset: str, otherwise: str) -> Path:
    """The newest checkpoint of ``model`` on ``dataset`` in ``folder``.

    Raises:
        UserError: there is none; the sentence ends with what to do ``otherwise``.
    """
    # The time is part of the pattern, since "ml" must not find a checkpoint of "ml-100k".
    name = glob.escape(f"{model}-{dataset}")
    found = sorted(
        Path(folder).glob(f"{name}-???-??-????_*.pth"), key=lambda path: path.stat().st_mtime_ns
    )
    if not found:
        raise UserError(f"There is no checkpoint {model}-{dataset}-*.pth in {folder}; {otherwise}.")
    return found[-1]
