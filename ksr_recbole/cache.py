"""Arrays on disk under a key made of everything they depend on.

A cache file is a safetensors file; unlike pickle it cannot run code when read.  Its header says
in words what the arrays were made with and holds one checksum over all of it, so a truncated,
altered or misnamed file is noticed and made again, never used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from ksr_recbole import digests
from ksr_recbole.errors import DamagedFileError, UserError, reason_of
from ksr_recbole.files import check_regular, replacing

logger = getLogger(__name__)


def write_arrays(
    path: str | os.PathLike[str], key: str, arrays: Mapping[str, np.ndarray], meta: Any
) -> None:
    """Write named arrays in one step.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as (temporary,):
        temporary.write_bytes(array_bytes(key, arrays, meta))


def array_bytes(key: str, arrays: Mapping[str, np.ndarray], meta: Any) -> bytes:
    """The bytes of a cache file.

    Args:
        key: what :func:`read_arrays` must be given to accept the file.
        arrays: the arrays, by name.
        meta: what a reader may want to know about them (JSON values).
    """
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    header = {"key": key, "meta": json.dumps(meta, default=digests.json_default, sort_keys=True)}
    return to_safetensors(arrays, {**header, digests.OWN: digests.of_arrays(arrays, header)})


def read_arrays(path: str | os.PathLike[str], key: str) -> dict[str, np.ndarray]:
    """Read what :func:`write_arrays` wrote under ``key``.

    Raises:
        DamagedFileError: the file cannot be read, is damaged, or belongs to another key.
    """
    try:
        check_regular(path)
        with safe_open(path, framework="numpy") as file:
            header = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedFileError(f"it cannot be read ({reason_of(error)})") from error
    checksum = header.pop(digests.OWN, None)
    if checksum is None or checksum != digests.of_arrays(arrays, header):
        raise DamagedFileError("its checksum does not match its content")
    if header.get("key") != key:
        raise DamagedFileError("it was made from other data, settings or seed")
    return arrays


def compact(values: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 on in the smallest type that holds them; other arrays as they are.

    The shape stays.
    """
    if values.dtype != np.int64 or values.min(initial=0) < 0:
        return values
    return values.astype(np.min_scalar_type(values.max(initial=0)))


def widened(values: np.ndarray) -> np.ndarray:
    """What :func:`compact` was given: whole numbers as ``int64``, other arrays as they are.

    The shape stays.
    """
    return values.astype(np.int64) if values.dtype.kind in "iu" else values


class ArrayCache:
    """A folder of cache files, one per kind of content and key.

    Args:
        folder: the folder; created when something is saved.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def path(self, kind: str, key: str) -> Path:
        """File of ``kind`` under ``key``; the first 16 digits of a key tell it from others."""
        return self.folder / f"{kind}-{key[:16]}.safetensors"

    def partial_path(self, kind: str, key: str) -> Path:
        """File for a trainer's state while these vectors are being trained."""
        return self.path(kind, key).with_suffix(".partial")

    def load(
        self, kind: str, key: str, expected_shapes: Mapping[str, Sequence[int]] | None = None
    ) -> dict[str, np.ndarray] | None:
        """Arrays saved under ``key``, or ``None`` if they have to be made.

        A file that is there but cannot be used gives one warning.

        Args:
            kind: what the arrays are (``"ml-100k-TransE"``).
            key: from :func:`ksr_recbole.digests.of_values`.
            expected_shapes: shape of every array, by name, where they are vectors: finite
                numbers in ``float32``.
        """
        path = self.path(kind, key)
        if not path.exists():
            return None
        try:
            arrays = read_arrays(path, key)
            if expected_shapes is not None:
                _check_vectors(arrays, expected_shapes)
        except DamagedFileError as error:
            logger.warning(f"Making {path} again: {error}.")
            return None
        return arrays

    def save(
        self, kind: str, key: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
    ) -> Path:
        """Keep ``arrays`` under ``key`` and remove the partial file, no longer needed.

        Args:
            kind: as in :meth:`load`.
            key: as in :meth:`load`.
            arrays: the arrays, by name.
            meta: settings to be read by people, written into the file's header.

        Raises:
            UserError: the folder cannot be written.
        """
        path = self.path(kind, key)
        write_arrays(path, key, arrays, {"kind": kind, **meta})
        self.partial_path(kind, key).unlink(missing_ok=True)
        return path

    def keep_data(
        self, kind: str, key: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
    ) -> None:
        """:meth:`save` of loaded data, of which a folder that cannot be written is a warning."""
        try:
            self.save(kind, key, arrays, meta)
        except UserError as error:
            logger.warning(
                f"{error} Until then the data are read anew each time; data_cache_dir names "
                "another folder, or None for none."
            )


def _check_vectors(arrays: Mapping[str, np.ndarray], expected: Mapping[str, Sequence[int]]) -> None:
    found = {name: tuple(array.shape) for name, array in arrays.items()}
    wanted = {name: tuple(shape) for name, shape in expected.items()}
    if found != wanted:
        raise DamagedFileError(f"it holds {_told(found)} instead of {_told(wanted)}")
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise DamagedFileError(f"its {name} are not finite in float32")


def _told(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, s))}" for name, s in sorted(shapes.items()))
