"""Checkpoints of this package's models: written, found, read and compared with a run."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from ksr_recbole.config.shared import fits_memory_later, meant_by
from ksr_recbole.config_types import Configuration
from ksr_recbole.errors import (
    DamagedFileError,
    UnusableCheckpointError,
    UserError,
    reason_of,
    shown,
)
from ksr_recbole.files import check_regular, replacing
from ksr_recbole.paths import name_of_new
from ksr_recbole.trainer.checkpoint_file import read, to_bytes
from ksr_recbole.trainer.weights import difference, problem_in_sizes


def save(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a checkpoint in one step.

    Raises:
        UserError: the file cannot be written.
    """
    pieces = to_bytes(content)
    with replacing(path) as (temporary,), open(temporary, "wb") as file:
        file.writelines(pieces)


def check_exists(path: str | os.PathLike[str]) -> None:
    """Refuse a path where there is no file.

    Raises:
        UnusableCheckpointError: naming it.
    """
    try:
        check_regular(path)
    except FileNotFoundError as error:
        raise UnusableCheckpointError(
            f"Checkpoint {path} does not exist; give the path of a saved model."
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | os.PathLike[str], error: OSError) -> UnusableCheckpointError:
    return UnusableCheckpointError(
        f"Checkpoint {path} cannot be read ({reason_of(error)}); give the path of a saved model."
    )


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint written by :func:`save`, its tensors on the CPU.

    All of its parts are there and of the types they must have; whether the weights are those of
    a model is for :func:`check_weights` to find.

    Raises:
        UnusableCheckpointError: the file is missing, damaged, or no checkpoint of this package.
    """
    check_exists(path)
    try:
        return read(path)
    except OSError as error:  # such as another user's: not to be deleted
        raise _unreadable(path, error) from error
    except DamagedFileError as error:
        raise UnusableCheckpointError(
            f"Checkpoint {path} is damaged or not a checkpoint of this package "
            f"({reason_of(error)}); delete it and train again, or give another."
        ) from error


def check_sizes(
    path: str | os.PathLike[str],
    model: str,
    weights: Mapping[str, Tensor],
    option_of: Callable[[str], Any],
    n_items: int,
    n_users: int,
) -> None:
    """Make sure that a model can be built for a checkpoint's weights, before it is.

    Args:
        path: the checkpoint's file, for the sentence.
        model: the model's name, for the sentence.
        weights: the checkpoint's weights.
        option_of: gives the value of an option, ``None`` for what the model does not have.
        n_items: items of the dataset with the padding item.
        n_users: users of the dataset with the padding user.

    Raises:
        UnusableCheckpointError: its weights and its options are not of one model.
    """
    if problem := problem_in_sizes(weights, option_of, n_items, n_users):
        raise _not_of(path, model, problem)


def check_weights(
    path: str | os.PathLike[str],
    model: str,
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
) -> None:
    """Make sure that a checkpoint's weights are those a model has, by name, type and shape.

    Args:
        path: the checkpoint's file, for the sentence.
        model: the model's name, for the sentence.
        found: the checkpoint's weights.
        wanted: the model's; their values do not matter.

    Raises:
        UnusableCheckpointError: naming the first that differs.
    """
    if problem := difference(found, wanted):
        raise _not_of(path, model, problem)


def _not_of(path: str | os.PathLike[str], model: str, problem: str) -> UnusableCheckpointError:
    return UnusableCheckpointError(
        f"Checkpoint {path} does not hold the weights of {model} as this version has them "
        f"({problem}); train again, or give another."
    )


def check_evaluated(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that holds a model before its training, or without its memory.

    Raises:
        UserError: no epoch was evaluated yet, or a memory is still to be fitted.
    """
    if content["best_epoch"] < 0:
        raise UserError(
            f"Checkpoint {path} is of a run whose first epoch was not evaluated yet; resume it "
            "first, or wait for it."
        )
    if fits_memory_later(content["settings"]) and not content["finished"]:
        raise UserError(
            f"Checkpoint {path} is of a run that is not finished, and its memory is fitted at the "
            "end; resume it first, or wait for it."
        )


def check_same_run(
    path: str | os.PathLike[str],
    content: Mapping[str, Any],
    config: Configuration,
    fingerprint: str,
    settings: Mapping[str, Any],
) -> None:
    """Make sure that a checkpoint belongs to a run.

    Args:
        path: the checkpoint's file, for the sentence.
        content: what :func:`load` gave.
        config: the run's configuration.
        fingerprint: of the run's dataset.
        settings: the run's config values that the checkpoint must agree on.

    Raises:
        UnusableCheckpointError: it is of another model, other data or other settings.
    """
    for key in ("model", "dataset"):
        if content[key] != config[key]:
            raise UnusableCheckpointError(
                f"Checkpoint {path} is of {key} {shown(content[key])}, but this run is of "
                f"{config[key]}."
            )
    # The settings before the data and the task before other settings, since they follow from it.
    given = content["settings"]
    for key in sorted(settings, key=lambda key: (key != "task", key)):
        if key not in given:
            raise UnusableCheckpointError(
                f"Checkpoint {path} does not say with which {key} it was trained; train anew."
            )
        if meant_by(key, given[key]) != meant_by(key, settings[key]):
            raise UnusableCheckpointError(
                f"Checkpoint {path} was trained with {key} = {shown(given[key])}, but this run "
                f"has {settings[key]}; give the same or train anew."
            )
    if content["data"] != fingerprint:
        raise UnusableCheckpointError(
            f"Checkpoint {path} was trained on other {content['dataset']} files than those "
            f"in {config['data_path']}, or on another part of them (train_ratio); "
            "give the same data or train anew."
        )


def path_of_new(folder: str | os.PathLike[str], model: str, dataset: str) -> Path:
    """Where a run keeps its checkpoint; no other run has this path."""
    return Path(folder) / f"{name_of_new(f'{model}-{dataset}')}.pth"


def newest(folder: str | os.PathLike[str], model: str, dataset: str, otherwise: str) -> Path:
    """The newest checkpoint of ``model`` on ``dataset`` in ``folder``.

    Raises:
        UserError: there is none; the sentence ends with what to do ``otherwise``.  Or the folder
            cannot be read.
    """
    try:
        os.scandir(folder).close()
    except PermissionError as error:  # glob would find nothing there
        raise UserError(
            f"The folder {folder} cannot be read ({reason_of(error)}); {otherwise}."
        ) from error
    except OSError:
        pass  # there is none
    # The time is part of the pattern, since "ml" must not find a checkpoint of "ml-100k".
    name = glob.escape(f"{model}-{dataset}")
    found = latest(Path(folder).glob(f"{name}-???-??-????_*.pth"))
    if found is None:
        raise UserError(f"There is no checkpoint {model}-{dataset}-*.pth in {folder}; {otherwise}.")
    return found


def latest(paths: Iterable[Path]) -> Path | None:
    """The file that was written last, if there is one; links to nothing are none."""
    times: dict[Path, int] = {}
    for path in paths:
        with suppress(OSError):  # such a link, or removed since it was listed
            times[path] = path.stat().st_mtime_ns
    return max(times, key=lambda path: times[path], default=None)
