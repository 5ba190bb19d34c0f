"""The finished cells of a dataset in one small file, ``cells/packed.zip``.

It is a zip file that any program opens.  ``cells.jsonl.xz`` has a line of JSON for each cell: its
record as in the cell's own file, what its arrays are called, and a digest over all of it.  Every
other member is an array, under the digest of its content, so that what cells share is there once.
Same cells, same bytes.

Ranks hardly compress.  But a user's positives have the same order among few candidates as among
all items, so from one mode to another little is new: see :func:`_less_than`.
"""

from __future__ import annotations

import json
import lzma
import math
import re
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ksr_recbole import digests
from ksr_recbole.errors import DamagedFileError
from ksr_recbole.files import SMALL, check_regular
from ksr_recbole.one_step import identity
from ksr_recbole.records import Each, Either, Whole, check_shape, parse_object

FILE = "packed.zip"
"""Name of the file, in the folder of the cells."""

LEFT_OUT = "valid"
"""The phase whose ranks are not kept, since no table is made of them; its metrics are."""

_LINES = "cells.jsonl.xz"
_MEMORY = 64 << 20
"""Bytes that unpacking a member may need."""

_MOST = 4 * SMALL
"""Bytes of all arrays of a cell, unpacked: many small members can be arrays of any size."""

_NUMBERS = re.compile(r"\|b1|[|<>](i1|u1|[iu][248]|f[248])")
"""What NumPy calls the types of numbers that are kept."""

_ARRAY = {"dtype": str, "shape": Each(Whole(), list), "member": str, "of": Either(str)}
_LINE = {"name": str, "record": dict, "arrays": Each(_ARRAY), "digest": str}

Arrays = dict[str, np.ndarray]


def pack_bytes(path: Path, cells: Mapping[str, tuple[Mapping[str, Any], Arrays]]) -> None:
    """Write cells as one file.

    Args:
        path: the file.
        cells: record and arrays of each, by name.
    """
    members: dict[str, bytes] = {}
    lines = [_line(name, *cells[name], members) for name in sorted(cells)]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    everything = [(_LINES, _squeezed(text.encode())), *sorted(members.items())]
    with zipfile.ZipFile(path, "w") as file:
        for name, data in everything:
            about = zipfile.ZipInfo(name)  # of 1980: the time of packing is no part of it
            about.create_system, about.external_attr = 3, 0o644 << 16
            file.writestr(about, data)


def names_in(path: Path) -> list[str]:
    """The names of the cells in a file; none without a file.

    Raises:
        DamagedFileError: it is damaged.
    """
    found = _identity(path)
    return [] if found is None else list(_lines_of(path, found))


def read_packed(path: Path, name: str) -> tuple[dict[str, Any], Arrays] | None:
    """Record and arrays of a cell, or ``None`` if it is not in the file.

    Raises:
        DamagedFileError: the file or what it holds of the cell is damaged.
    """
    found = _identity(path)
    line = None if found is None else _lines_of(path, found).get(name)
    if found is None or line is None:
        return None
    content = digests.unsealed(parse_object(line))
    check_shape(content, _LINE)
    _check_sizes(content["arrays"])
    file = _opened(path, found)
    arrays: Arrays = {}
    # First the arrays from which others are computed.
    for wanted in sorted(content["arrays"], key=lambda n: content["arrays"][n]["of"] or ""):
        arrays[wanted] = _array(file, wanted, content["arrays"], arrays)
    arrays = {wanted: arrays[wanted] for wanted in content["arrays"]}
    if digests.of_arrays(arrays, {}) != content["digest"]:
        raise DamagedFileError("the digest of its arrays does not match their content")
    return content["record"], arrays


# Lines ----------------------------------------------------------------------------------------


def _line(
    name: str, record: Mapping[str, Any], arrays: Arrays, members: dict[str, bytes]
) -> dict[str, Any]:
    """A cell's line; its arrays go into ``members``."""
    described = {}
    for wanted in arrays:
        content, of = _smallest(wanted, arrays)
        member = digests.of_bytes(content)[:32] + ".xz"
        members.setdefault(member, _squeezed(content))
        array = arrays[wanted]
        described[wanted] = {"dtype": array.dtype.str, "shape": list(array.shape),
                             "member": member, "of": of}  # fmt: skip
    digest = digests.of_arrays(arrays, {})
    return digests.sealed({"name": name, "record": record, "arrays": described, "digest": digest})


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        return identity(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read ({error.strerror})") from error


@lru_cache(maxsize=8)
def _lines_of(path: Path, identity: tuple[int, int, int]) -> dict[str, str]:
    """A line of text for each cell, by name."""
    text = _member(_opened(path, identity), _LINES, None)
    try:
        lines = text.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DamagedFileError(f"{path} is not UTF-8 text") from error
    named = {}
    for line in lines:
        record = parse_object(line)
        check_shape(record, {"name": str})
        named[record["name"]] = line
    return named


# Members --------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _opened(path: Path, identity: tuple[int, int, int]) -> zipfile.ZipFile:
    """A zip file; that it cannot be read as one is a :class:`DamagedFileError`.

    It stays open, because opening one reads the whole list of its members.  What takes the
    file's place has another identity.
    """
    try:
        check_regular(path)
        file = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError, ArithmeticError,
            NotImplementedError) as error:  # fmt: skip
        raise DamagedFileError(f"{path} cannot be read ({error})") from error
    return file


def _member(file: zipfile.ZipFile, name: str, size: int | None) -> bytes:
    """A member's content, which has ``size`` bytes or, without one, at most :data:`SMALL`."""
    most = SMALL if size is None else size
    try:
        about = file.getinfo(name)
        if about.file_size > most + 4096 or about.compress_type != zipfile.ZIP_STORED:
            raise DamagedFileError(f"{file.filename} has another {name} than was written")
        unpacking = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
        content = unpacking.decompress(file.read(about), most + 1)
    except KeyError as error:
        raise DamagedFileError(f"{file.filename} has no {name}") from error
    except (OSError, EOFError, ValueError, RuntimeError, ArithmeticError, NotImplementedError,
            zipfile.BadZipFile, lzma.LZMAError) as error:  # fmt: skip
        raise DamagedFileError(f"{name} in {file.filename} is damaged ({error})") from error
    if len(content) > most or (size is not None and len(content) < size) or not unpacking.eof:
        raise DamagedFileError(f"{name} in {file.filename} has another length than was written")
    return content


def _squeezed(content: bytes) -> bytes:
    few = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 22}
    return lzma.compress(content, lzma.FORMAT_XZ, filters=[few])


# Arrays ---------------------------------------------------------------------------------------


def _smallest(name: str, arrays: Arrays) -> tuple[bytes, str | None]:
    """An array's bytes, by itself or as a difference from another mode's ranks: the shorter one."""
    plain = _by_bytes(arrays[name])
    base = _base(name, arrays)
    if base is None:
        return plain, None
    differences = _by_bytes(_less_than(arrays[base], arrays[_users(name)], arrays[name]))
    shorter = len(_squeezed(differences)) < len(_squeezed(plain))
    return (differences, base) if shorter else (plain, None)


def _users(ranks: str) -> str:
    return f"{ranks.removesuffix('ranks')}users"


def _base(name: str, arrays: Arrays) -> str | None:
    """The ranks of the same positives in the first mode, if there are others than these."""
    rest = name.partition("/")[2]
    first = next((n for n in sorted(arrays) if n.endswith(f"/{rest}")), name)
    if not rest.endswith("/ranks") or first == name or arrays[name].dtype.kind != "u":
        return None
    same = np.array_equal(arrays[_users(first)], arrays[_users(name)])
    return first if same and arrays[first].dtype.kind == "u" else None


def _check_sizes(described: Mapping[str, Any]) -> None:
    """Make sure that a cell's arrays fit into memory, before any is unpacked."""
    total = 0
    for name, about in described.items():
        shape = about["shape"]
        # Nor may the sizes next to a zero be too large for NumPy.
        if len(shape) > 8 or math.prod(max(size, 1) for size in shape) * 8 > SMALL:
            raise DamagedFileError(f"{name[:80]!a} is larger than any that is written")
        total += math.prod(shape) * _dtype(about["dtype"]).itemsize
    if total > _MOST:
        raise DamagedFileError(f"its arrays have {total:,} bytes, and at most {_MOST:,} are read")


def _array(
    file: zipfile.ZipFile, name: str, described: Mapping[str, Any], done: Arrays
) -> np.ndarray:
    """An array from its member."""
    about = described[name]
    dtype, shape, base = _dtype(about["dtype"]), about["shape"], about["of"]
    n = math.prod(shape)
    if base is None:
        return _from_bytes(_member(file, about["member"], n * dtype.itemsize), dtype, shape)
    if not {base, _users(name)} <= set(done) or dtype.kind != "u" or len(shape) != 1:
        raise DamagedFileError(f"{name!a} needs ranks that are not there")
    first, users = done[base], done[_users(name)]
    fits = all([*each.shape] == shape and each.dtype.kind in "ui" for each in (first, users))
    if not fits:
        raise DamagedFileError(f"{name!a} needs ranks of the same positives")
    if first.min(initial=1) < 0 or users.min(initial=0) < 0:
        raise DamagedFileError(f"{name!a} needs ranks or users that begin below 0")
    differences = _from_bytes(_member(file, about["member"], n * 4), np.dtype("<u4"), shape)
    return _more_than(first, users, differences).astype(dtype)


def _dtype(text: str) -> np.dtype:
    # NumPy's own reader of such texts is not for foreign ones: "M8[s/0]" ends the process.
    if not _NUMBERS.fullmatch(text):
        raise DamagedFileError(f"{text[:80]!a} is no type of numbers")
    return np.dtype(text)


def _by_bytes(array: np.ndarray) -> bytes:
    """Put all first bytes first, then all second bytes, and so on.

    Equal bytes are then neighbours and compress well.
    """
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).reshape(-1, array.dtype.itemsize).T.tobytes()


def _from_bytes(content: bytes, dtype: np.dtype, shape: list[int]) -> np.ndarray:
    """The array of which :func:`_by_bytes` made ``content``."""
    planes = np.frombuffer(content, np.uint8).reshape(dtype.itemsize, -1)
    little = np.ascontiguousarray(planes.T).reshape(-1).view(dtype.newbyteorder("<"))
    return little.astype(dtype).reshape(shape)


def _order(base: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How the positives are ordered for their steps.

    Args:
        base: the ranks in the base ranking, ``[P]``, integers.
        users: user of each positive, ``[P]``, integers.

    Returns:
        The positives by user and base rank, ``int64 [P]``; which of these are the first of a
        user, ``bool [P]``; and the places of these by their base step, ``int64 [P]``.
    """
    order = np.lexsort((base, users))
    begins = np.diff(users[order].astype(np.int64), prepend=-1) != 0
    steps = _steps(base[order].astype(np.int64), begins)
    return order, begins, np.argsort(steps, kind="stable")


def _steps(ranks: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Each rank ``int64 [P]`` less the one before it, unless it is the first of a user."""
    return ranks - np.where(begins, 0, np.concatenate([[0], ranks[:-1]]))


def _less_than(base: np.ndarray, users: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Difference of each step to the step of the base ranking, ``uint32 [P]``.

    A step is the difference between a rank and the one before it, where a user's positives are
    ordered by their base rank.  Among fewer candidates her ranks rise by as much as the base's or
    by less, so the differences are small.  The sign is in the lowest bit.  The differences are in
    the order of the base's steps, where equal ones are neighbours.

    Args:
        base: the ranks in the base ranking, ``[P]``, integers.
        users: user of each positive, ``[P]``, integers.
        ranks: the ranks that the differences describe, ``[P]``, integers.
    """
    order, begins, by_step = _order(base, users)
    steps = [_steps(each[order].astype(np.int64), begins) for each in (base, ranks)]
    less = (steps[0] - steps[1])[by_step]
    return np.where(less < 0, -2 * less - 1, 2 * less).astype(np.uint32)


def _more_than(base: np.ndarray, users: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """The ranks of which :func:`_less_than` made ``differences``, ``int64 [P]``.

    Args:
        base: the ranks in the base ranking, ``[P]``, integers.
        users: user of each positive, ``[P]``, integers.
        differences: of :func:`_less_than`, ``uint32 [P]``.
    """
    order, begins, by_step = _order(base, users)
    differences = differences.astype(np.int64)
    steps = _steps(base[order].astype(np.int64), begins)
    steps[by_step] -= np.where(differences & 1, -(differences + 1) // 2, differences // 2)
    total = np.cumsum(steps)
    starts = np.flatnonzero(begins)
    before = np.repeat(total[starts] - steps[starts], np.diff(starts, append=len(steps)))
    ranks = np.empty(len(steps), np.int64)
    ranks[order] = total - before
    return ranks
