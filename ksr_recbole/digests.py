"""SHA-256 of values, arrays, files and of files that hold their own: the one home of digests.

A digest shows a change that nobody meant: a flipped bit, a file cut short, an edited number.  It
is no signature, so what a file holds is checked too before it is used.  What a digest is of, and
so every file on disk, must not change: keys of finished work are made here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ksr_recbole.errors import DamagedFileError
from ksr_recbole.files import open_regular
from ksr_recbole.one_step import identity

OWN = "sha256"
"""The entry that holds a file's digest, in its JSON values or in the header of its arrays."""

BLANK = "0" * 64
"""What stands where a digest will stand."""

_IN_HEADER = re.compile(rb'"sha256":"([0-9a-f]{64})"')


def of_bytes(*pieces: bytes | memoryview) -> str:
    """SHA-256 of bytes, one piece after the other, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def of_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        OSError: see :func:`ksr_recbole.files.check_regular`.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_file_once(path: str | os.PathLike[str]) -> str:
    """As :func:`of_file`, read once in a process as long as nobody changes the file."""
    return _of_identified(os.fspath(path), identity(path))


@lru_cache(maxsize=256)
def _of_identified(path: str, _: tuple[int, int, int]) -> str:
    return of_file(path)


def of_values(parts: Mapping[str, Any]) -> str:
    """SHA-256 of values; the order of a mapping does not count.

    Args:
        parts: any nesting of mappings, sequences, strings, numbers, booleans, ``None``, paths and
            NumPy arrays, which count by their bytes, type and shape.

    Raises:
        TypeError: there is something else in it.
    """
    text = json.dumps(dict(parts), default=json_default, sort_keys=True, separators=(",", ":"))
    return of_bytes(text.encode())


def of_arrays(arrays: Mapping[str, np.ndarray], header: Mapping[str, str]) -> str:
    """SHA-256 of a file of arrays: of the arrays by name, and of the texts in its header."""
    return of_values({"arrays": dict(arrays), "header": dict(header)})


def json_default(value: Any) -> Any:
    """What JSON has no word for, in its words.

    Raises:
        TypeError: it cannot be said in them.
    """
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        digest = of_bytes(value.tobytes())
        return {"array": digest, "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a cache key")


# JSON values that hold their own digest -------------------------------------------------------


def sealed(record: Mapping[str, Any], entry: str = OWN) -> dict[str, Any]:
    """A record as JSON will give it back, with its digest as the last entry."""
    values = json.loads(json.dumps({**record}))
    values.pop(entry, None)
    return {**values, entry: of_values(values)}


def unsealed(record: Mapping[str, Any], entry: str = OWN) -> dict[str, Any]:
    """A record without its digest, once it has the right one.

    Raises:
        DamagedFileError: it has none, or another.
    """
    rest = {key: value for key, value in record.items() if key != entry}
    if entry not in record:
        raise DamagedFileError(f"it has no {entry}, so a change in it could not be seen")
    try:
        matches = record[entry] == of_values(rest)
    except RecursionError as error:
        raise DamagedFileError("its JSON is nested too deep") from error
    if not matches:
        raise DamagedFileError(f"its {entry} does not match its content")
    return rest


# A file of safetensors that holds the digest of all its bytes, those of the digest as zeros ------


def with_own(head: bytes, data: Sequence[memoryview]) -> list[bytes | memoryview]:
    """The pieces of a file whose header has room for its digest.

    Args:
        head: the header's length in eight bytes, and the header, with :data:`BLANK` in it.
        data: the bytes of the arrays.
    """
    start, stop = _span(head)
    digest = of_bytes(head, *data)
    return [head[:start], digest.encode(), head[stop:], *data]


def check_own(data: bytes) -> None:
    """Make sure that a file's bytes are those that were written.

    Raises:
        DamagedFileError: they are not, or there is no digest that would show it.
    """
    start, stop = _span(data)
    view = memoryview(data)
    if of_bytes(view[:start], BLANK.encode(), view[stop:]).encode() != data[start:stop]:
        raise DamagedFileError("its digest does not match its content")


def _span(data: bytes) -> tuple[int, int]:
    length = int.from_bytes(data[:8], "little")
    found = _IN_HEADER.search(data, 8, 8 + length) if length < len(data) else None
    if found is None:
        raise DamagedFileError("it has no digest, so a change in it could not be seen")
    return found.span(1)
