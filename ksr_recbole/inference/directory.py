"""The files of a model directory: written in one step, checked when read.

Nothing in it is a pickle.  ``docs/inference.md`` describes every file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from safetensors import SafetensorError
from safetensors import numpy as safe_numpy
from safetensors import torch as safe_torch
from torch import Tensor

from ksr_recbole import digests
from ksr_recbole.dataset.item_values import Facts
from ksr_recbole.errors import DamagedFileError, UserError, shown
from ksr_recbole.files import read_regular, replacing_folder
from ksr_recbole.inference.content import Histories, SavedModel, check_saved
from ksr_recbole.one_step import finish_steps, read_steadily
from ksr_recbole.records import Each, check_shape, parse_object

FORMAT = 3
KIND = "ksr_recbole model"
MANIFEST = "manifest.json"
CONFIG, TOKENS, WEIGHTS, HISTORIES, NAMES, FACTS = FILES = (
    "config.json",
    "tokens.json",
    "weights.safetensors",
    "histories.safetensors",
    "names.json",
    "facts.safetensors",
)
"""The files next to the manifest."""

_DIGEST = "digest"
"""The manifest's entry that holds the SHA-256 of its other entries."""

_NOT_ABOUT = frozenset({"kind", "format", "model", "sha256"})

_SMALL = 1 << 20
"""Bytes of the largest manifest and configuration; real ones have a few thousand."""

_TOKEN = 1 << 10
"""The most bytes that a token has on average."""


def check_replaceable(directory: str | os.PathLike[str]) -> None:
    """Refuse a place where something else than a model directory would be lost.

    Raises:
        UserError: it is a file, or a directory that holds no model, a damaged manifest, or more.
    """
    path = Path(directory)
    if not os.path.exists(path):  # or its name is too long: writing says so
        return
    found = {p.name for p in path.iterdir()} if path.is_dir() else {path.name}
    if found and (found - {MANIFEST, *FILES} or not _is_own(path / MANIFEST)):
        raise UserError(
            f"{path} exists and is not a model directory (or its {MANIFEST} is damaged, or it "
            "holds other files too), so it is not replaced; choose a directory "
            "that does not exist yet."
        )


def _is_own(manifest: Path) -> bool:
    """Whether a file is a model's manifest as it was written, not that of another program."""
    try:
        content = parse_object(read_regular(manifest, _SMALL).decode("utf-8"))
        return digests.unsealed(content, _DIGEST).get("kind") == KIND
    except (OSError, UnicodeDecodeError, DamagedFileError):
        return False


def write_directory(directory: str | os.PathLike[str], saved: SavedModel) -> Path:
    """Write a model directory in one step; one that is there already is replaced.

    Raises:
        UserError: the place holds something else, or cannot be written; texts are so long that
            the directory could not be read again.
    """
    check_replaceable(directory)
    histories, facts = (
        {name: np.ascontiguousarray(v) for name, v in vars(arrays).items()}
        for arrays in (saved.histories, saved.facts)
    )
    weights = {name: tensor.contiguous() for name, tensor in saved.weights.items()}
    with replacing_folder(directory, lambda: check_replaceable(directory)) as folder:
        # Not safetensors' own writing to a file, which tells a full disk in a way of its own.
        _write_json(folder / CONFIG, saved.settings)
        _write_json(folder / TOKENS, saved.tokens)
        (folder / WEIGHTS).write_bytes(safe_torch.save(weights))
        (folder / HISTORIES).write_bytes(safe_numpy.save(histories))
        _write_json(folder / NAMES, saved.names)
        (folder / FACTS).write_bytes(safe_numpy.save(facts))
        manifest = {
            "kind": KIND,
            "format": FORMAT,
            "model": saved.model,
            **saved.about,
            "sha256": {name: digests.of_file(folder / name) for name in FILES},
        }
        _write_json(folder / MANIFEST, digests.sealed(manifest, _DIGEST))
        _check_sizes(folder, saved)
    return Path(directory)


def _check_sizes(folder: Path, saved: SavedModel) -> None:
    """Refuse files that would be too large to be read again.

    Raises:
        UserError: naming the first.
    """
    for name, limit in _limits(saved.weights, saved.histories).items():
        if (size := (folder / name).stat().st_size) > limit:
            raise UserError(
                f"The model is not saved: its {name} would have {size:,} bytes, and at most "
                f"{limit:,} are read for so many users, items and entities. Shorten the tokens, "
                "titles and names in the dataset's files, and save the model again."
            )


def _limits(weights: Mapping[str, Tensor], histories: Histories) -> dict[str, int]:
    """The most bytes of each file of texts, by name, for so many users, items and entities."""
    tables = (t for name, t in weights.items() if "embedding" in name and t.ndim and t.numel())
    longest = _SMALL + _TOKEN * (sum(map(len, tables)) + len(histories.offsets))
    return {MANIFEST: _SMALL, CONFIG: _SMALL, TOKENS: longest, NAMES: longest}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def path_of(given: object, what: str = "model directory") -> Path:
    """A path that a caller gave.

    Args:
        given: a text or a path.
        what: what is there, for the sentence.

    Raises:
        UserError: it is neither, or none that a system can have.
    """
    path = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(path, str) or "\0" in path:
        raise UserError(f"The {what} is {shown(given)}; give its path, as text.")
    return Path(path)


def read_directory(directory: str | os.PathLike[str]) -> SavedModel:
    """Read a model directory; all that is in it fits together.

    Raises:
        UserError: there is none, it is of another format, or a file is missing or altered, or
            holds what a model cannot have.
    """
    folder = path_of(directory)
    place = Path(os.path.realpath(folder))  # Path.resolve stops at some links
    finish_steps(place.parent, place.name.__eq__)
    # Another process may put a new directory there while its files are opened, one by one.
    return read_steadily([folder], lambda: _read(folder))


def _read(folder: Path) -> SavedModel:
    """As :func:`read_directory`, of a directory that stays where it is."""
    try:
        manifest = _read_manifest(folder)
        wanted = manifest["sha256"]
        settings = _read_json(folder / CONFIG, wanted, _SMALL)
        weights = _tensors(folder / WEIGHTS, wanted)
        histories = _read_histories(folder / HISTORIES, wanted)
        limits = _limits(weights, histories)
        saved = SavedModel(
            model=manifest["model"],
            about={k: manifest[k] for k in manifest.keys() - _NOT_ABOUT},
            settings=settings,
            tokens=_read_json(folder / TOKENS, wanted, limits[TOKENS]),
            weights=weights,
            histories=histories,
            names=_read_json(folder / NAMES, wanted, limits[NAMES]),
            facts=_read_facts(folder / FACTS, wanted),
            digest=digests.of_values(wanted),
        )
        check_saved(saved)
    except OSError as error:
        raise UserError(
            f"Cannot read {error.filename or folder}: {error.strerror or error}; "
            "give a readable directory."
        ) from error
    except DamagedFileError as error:
        raise UserError(
            f"The model directory {folder} cannot be used ({error}); save the model again."
        ) from error
    return saved


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not os.path.isdir(folder):  # Path.is_dir raises where a name is too long
        raise UserError(
            f"There is no model directory {folder}; make one with ksr_recbole.save_model or "
            "`python -m ksr_recbole export`."
        )
    path = folder / MANIFEST
    if not path.exists():
        raise UserError(f"{folder} is not a model directory: {MANIFEST} is missing.")
    manifest = _object(path, read_regular(path, _SMALL))
    if manifest.get("kind") != KIND:
        raise UserError(f"{path} is not a model's manifest; save the model again.")
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"The model directory {folder} has format {ascii(manifest.get('format'))[:40]}, and "
            f"this version reads format {FORMAT}; save the model again with this version."
        )
    try:
        manifest = digests.unsealed(manifest, _DIGEST)
    except DamagedFileError as error:
        raise DamagedFileError(f"{MANIFEST}: {error}") from error
    check_shape(manifest, {"model": str, "sha256": Each(str)}, MANIFEST)
    if manifest["sha256"].keys() != set(FILES):
        raise DamagedFileError(f"{MANIFEST} must name {', '.join(FILES)}, and no other file")
    for value in (manifest[key] for key in manifest.keys() - _NOT_ABOUT):
        if not isinstance(value, str | int | float | bool | None):
            raise DamagedFileError(f"{MANIFEST} holds more than texts and numbers")
    return manifest


def _checked_bytes(path: Path, wanted: Mapping[str, str], limit: int) -> bytes:
    """The bytes of a file, once they are those that were written.

    Raises:
        UserError: there is no file, or another one.
        OSError: it is no plain file, or cannot be read.
    """
    if not path.exists():
        raise UserError(
            f"The model directory {path.parent} lacks the file {path.name}; save it again."
        )
    content = read_regular(path, limit)
    if digests.of_bytes(content) != wanted[path.name]:
        raise UserError(
            f"{path} is not the file that was saved (its SHA-256 differs from that "
            f"in {MANIFEST}); save the model again."
        )
    return content


def _read_json(path: Path, wanted: Mapping[str, str], limit: int) -> dict[str, Any]:
    return _object(path, _checked_bytes(path, wanted, limit))


def _object(path: Path, content: bytes) -> dict[str, Any]:
    try:
        return parse_object(content.decode("utf-8"))
    except (UnicodeDecodeError, DamagedFileError) as error:
        raise UserError(f"{path} is damaged ({error}); save the model again.") from error


def _tensors(path: Path, wanted: Mapping[str, str]) -> dict[str, Tensor]:
    content = _checked_bytes(path, wanted, psutil.virtual_memory().total // 2)
    try:
        return safe_torch.load(content)
    except (SafetensorError, RuntimeError, ArithmeticError, LookupError, TypeError) as error:
        raise DamagedFileError(f"{path.name} cannot be read: {ascii(str(error))[:200]}") from error


def _read_histories(path: Path, wanted: Mapping[str, str]) -> Histories:
    types = {"items": torch.int32, "offsets": torch.int64, "starts": torch.int32}
    return Histories(**_arrays(path, wanted, types))


def _read_facts(path: Path, wanted: Mapping[str, str]) -> Facts:
    types = dict.fromkeys(("items", "attributes", "entities"), torch.int32)
    return Facts(**_arrays(path, wanted, types))


def _arrays(
    path: Path, wanted: Mapping[str, str], types: Mapping[str, torch.dtype]
) -> dict[str, np.ndarray]:
    """The vectors in a file, by name; no other ones and of no other type."""
    arrays = _tensors(path, wanted)
    if {name: (t.dtype, t.ndim) for name, t in arrays.items()} != {
        name: (dtype, 1) for name, dtype in types.items()
    }:
        raise DamagedFileError(f"{path.name} does not hold {', '.join(types)}")
    return {name: tensor.numpy() for name, tensor in arrays.items()}
