"""The files of a model directory: written whole or not at all, checked when read.

Nothing in it is a pickle.  ``docs/inference.md`` describes every file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safe_numpy
from safetensors import torch as safe_torch
from torch import Tensor

from ksr_recbole.errors import UserError
from ksr_recbole.files import replacing_folder, sha256_of
from ksr_recbole.one_step import finish_steps

FORMAT = 1
KIND = "ksr_recbole model"
MANIFEST = "manifest.json"
CONFIG, TOKENS, WEIGHTS, HISTORIES = FILES = (
    "config.json",
    "tokens.json",
    "weights.safetensors",
    "histories.safetensors",
)
"""The files beside the manifest."""


@dataclass(frozen=True)
class Histories:
    """All interactions of every user of the dataset, in the order of time.

    User ``u``'s are ``items[offsets[u]:offsets[u + 1]]``.

    Attributes:
        items: item ids, ``int32 [n_interactions]``.
        offsets: ``int64 [n_users + 1]``, ``n_users`` counting the padding user.
        starts: position of the first item that a model reads, 0 unless ``train_ratio`` left
            the earlier ones out, ``int32 [n_users]``.
    """

    items: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray

    def of(self, user: int) -> np.ndarray:
        """All items of a user, ``int64 [n]``."""
        return self.items[self.offsets[user] : self.offsets[user + 1]].astype(np.int64)


@dataclass(frozen=True)
class SavedModel:
    """What a model directory holds.

    Attributes:
        model: name of the model (``"KSR"``).
        about: what a reader may want to know: the dataset, its fingerprint, the best epoch.
        settings: the config values that the model is built with.
        tokens: by ``user`` and ``item``, and ``entity`` and ``relation`` where the model has a
            knowledge graph, the token of every id; id 0 is padding.
        weights: the state dict, item-entity map and attributes included.
        histories: all users' interactions.
    """

    model: str
    about: dict[str, Any]
    settings: dict[str, Any]
    tokens: dict[str, list[str]]
    weights: dict[str, Tensor]
    histories: Histories


def check_replaceable(directory: str | os.PathLike[str]) -> None:
    """Refuse a place where something else than a model directory would be lost.

    Raises:
        UserError: it is a file, or a directory that holds more than a model.
    """
    path = Path(directory)
    if not path.exists():
        return
    found = {p.name for p in path.iterdir()} if path.is_dir() else {path.name}
    if found and (MANIFEST not in found or found - {MANIFEST, *FILES}):
        raise UserError(
            f"{path} exists and is no model directory (or holds other files too), so it is not "
            "replaced; choose a directory that does not exist yet."
        )


def write_directory(directory: str | os.PathLike[str], saved: SavedModel) -> Path:
    """Write a model directory whole or not at all; one that is there already is replaced.

    Raises:
        UserError: the place holds something else, or cannot be written.
    """
    check_replaceable(directory)
    histories = {name: np.ascontiguousarray(v) for name, v in vars(saved.histories).items()}
    weights = {name: tensor.contiguous() for name, tensor in saved.weights.items()}
    with replacing_folder(directory, lambda: check_replaceable(directory)) as folder:
        # Not safetensors' own writing to a file, which tells a full disk in a way of its own.
        _write_json(folder / CONFIG, saved.settings)
        _write_json(folder / TOKENS, saved.tokens)
        (folder / WEIGHTS).write_bytes(safe_torch.save(weights))
        (folder / HISTORIES).write_bytes(safe_numpy.save(histories))
        manifest = {
            "kind": KIND,
            "format": FORMAT,
            "model": saved.model,
            **saved.about,
            "sha256": {name: sha256_of(folder / name) for name in FILES},
        }
        _write_json(folder / MANIFEST, manifest)
    return Path(directory)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def read_directory(directory: str | os.PathLike[str]) -> SavedModel:
    """Read a model directory.

    Raises:
        UserError: there is none, it is of another format, or a file is missing or altered.
    """
    folder = Path(directory)
    finish_steps(folder.resolve().parent)
    try:
        manifest = _read_manifest(folder)
        _check_files(folder, manifest["sha256"])
        return SavedModel(
            model=manifest["model"],
            about={k: manifest[k] for k in manifest.keys() - {"kind", "format", "model", "sha256"}},
            settings=_read_json(folder / CONFIG),
            tokens=_read_json(folder / TOKENS),
            weights=safe_torch.load_file(folder / WEIGHTS),
            histories=Histories(**safe_numpy.load_file(folder / HISTORIES)),
        )
    except OSError as error:
        raise UserError(
            f"Cannot read {error.filename or folder}: {error.strerror}; give a readable directory."
        ) from error
    except (SafetensorError, KeyError, TypeError) as error:
        raise UserError(
            f"The model directory {folder} cannot be read ({error}); save it again."
        ) from error


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"The model directory {folder} lacks the file {name}; save it again.")
        if digests.get(name) != sha256_of(folder / name):
            raise UserError(
                f"{folder / name} is not the file that was saved (its SHA-256 differs from that "
                f"in {MANIFEST}); save the model again."
            )


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise UserError(
            f"There is no model directory {folder}; make one with ksr_recbole.save_model or "
            "`python -m ksr_recbole export`."
        )
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is no model directory, for it has no {MANIFEST}.")
    manifest = _read_json(folder / MANIFEST)
    if manifest.get("kind") != KIND or not isinstance(manifest.get("sha256"), dict):
        raise UserError(f"{folder / MANIFEST} is not that of a model; save the model again.")
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"The model directory {folder} has format {manifest.get('format')}, and this version "
            f"reads format {FORMAT}; save the model again with this version."
        )
    return manifest


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8, or not JSON
        raise UserError(f"{path} is damaged ({error}); save the model again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object; save the model again.")
    return content
