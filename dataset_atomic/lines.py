"""What all readers share: blocks of whole lines, what is no number, and what is wrong where.

A file is read in blocks of whole lines, so that memory does not grow with it; ``.gz`` files are
unpacked on the way.  A thread reads ahead of raw files while a block is looked at.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np
import polars as pl

from ksr_recbole.bars import Bar
from ksr_recbole.errors import UserError
from ksr_recbole.files import open_regular

BLOCK_BYTES = 1 << 24
"""Bytes of decompressed text that are parsed at a time."""

PROGRESS_BYTES = 1 << 26
"""Files smaller than this are read without a progress bar."""

MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "<na>", "#n/a", "-"})
"""How people and other programs write that a number is not there, in lower case."""

EXACT = 2**53
"""Whole numbers below this are the same as floats; from here on some are not told apart."""

_LONGEST_LINE = 1 << 26

_NEWLINE = ord("\n")

_LONE_RETURN = re.compile(rb"\r(?!\n)")

_BOMB_BYTES, _BOMB_RATIO = 1 << 28, 200
"""A file that unpacks to so many bytes and so many times its own is made to fill a machine."""


class Lines(Protocol):
    """A file that gives bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes or characters, none at the end."""

    def readline(self) -> bytes:
        """The next line, with its line feed."""


def text_blocks(
    path: Path, encoding: str = "utf-8", *, block_bytes: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """``(number of the first line, whole lines)`` of a plain or gzip file, without any BOM.

    Args:
        path: the file.
        encoding: of the file; the lines are UTF-8.
        block_bytes: how much is read at a time; by default :data:`BLOCK_BYTES`.

    Raises:
        UserError: the file is missing, unreadable, has a line of no end, or its gzip data are
            damaged.
    """
    try:
        with open_regular(path) as raw:
            size = os.fstat(raw.fileno()).st_size
            begin = raw.read(2)
            is_gzip = begin == b"\x1f\x8b"
            if begin in (b"\xff\xfe", b"\xfe\xff") and encoding == "utf-8":
                raise UserError(f"{path} is written in UTF-16; save it as UTF-8.")
            raw.seek(0)
            unpacked = 0
            file = cast(BinaryIO, gzip.GzipFile(fileobj=raw) if is_gzip else raw)
            with Bar(
                total=size, unit="B", unit_scale=True, desc=f"Reading {path.name}", delay=1.0,
                disable=size < PROGRESS_BYTES, leave=False,
            ) as bar:  # fmt: skip
                pieces = _read_ahead(file, block_bytes or BLOCK_BYTES)
                for first_line, text in whole_lines(path, pieces):
                    bar.update(raw.tell() - bar.n)
                    unpacked += len(text)
                    _check_ratio(path, unpacked, raw.tell() if is_gzip else unpacked)
                    yield first_line, _to_utf8(first_line, text, encoding)
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; put it there, or correct the name of the file or folder."
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path} is truncated or damaged ({error}); download it again and compare its size."
        ) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); expected a readable file."
        ) from error


def _check_ratio(path: Path, unpacked: int, read: int) -> None:
    if unpacked > _BOMB_BYTES and unpacked > _BOMB_RATIO * read:
        raise UserError(
            f"{path} unpacks to more than {_BOMB_RATIO} times its size, as no real data do; "
            "unpack it by hand and look at what it holds."
        )


def _read_ahead(file: Lines, size: int) -> Iterator[bytes]:
    """The rest of a file in pieces, the next of which is unpacked meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(file.read, size)
        while piece := upcoming.result():
            upcoming = thread.submit(file.read, size)
            yield piece


def whole_lines(path: Path, pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The text of some pieces as ``(number of the first line from here, whole lines)``.

    Raises:
        UserError: a line has no end.
    """
    rest, line = b"", 1
    for piece in pieces:
        text = rest + piece
        cut = text.rfind(b"\n") + 1
        if cut:
            yield line, text[:cut]
            # Many times as fast as text.count where lines are short.
            line += int(np.count_nonzero(np.frombuffer(text, np.uint8, cut) == _NEWLINE))
        rest = text[cut:]
        if len(rest) > max(_LONGEST_LINE, len(piece)):
            check_returns(path, rest, line)
            raise UserError(
                f"{path}, line {line}: more than {_LONGEST_LINE >> 20} MiB without a line end; "
                "expected a text file (if it is an archive, unpack it)."
            )
    if rest:
        yield line, rest + b"\n"


def _to_utf8(first_line: int, text: bytes, encoding: str) -> bytes:
    if first_line == 1:
        text = text.removeprefix(b"\xef\xbb\xbf")
    return text if encoding == "utf-8" else text.decode(encoding).encode()


def decoded(path: Path, first_line: int, data: bytes) -> str:
    """Some lines of a file as text.

    Raises:
        UserError: they are not UTF-8; with the line.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        raise UserError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; "
            "convert the file to UTF-8."
        ) from None


def check_returns(path: Path, text: bytes, first_line: int, *, even_quoted: bool = False) -> None:
    """Refuse a carriage return where no line ends, as in files of old Macs.

    Readers do not agree on what it is.

    Args:
        path: the file.
        text: whole lines of it.
        first_line: the number of their first.
        even_quoted: refuse one between quotes too.

    Raises:
        UserError: there is one; with its line.
    """
    if b"\r" not in text or text.count(b"\r") == text.count(b"\r\n"):
        return
    for found in _LONE_RETURN.finditer(text):
        start = text.rfind(b"\n", 0, found.start()) + 1
        if even_quoted or text.count(b'"', start, found.start()) % 2 == 0:
            line = first_line + text.count(b"\n", 0, start)
            raise UserError(
                f"{path}, line {line}: a carriage return stands where no line ends; remove it, or "
                "end every line with a line feed."
            )


_OTHER_KINDS = {
    b"PK\x03\x04": "a zip file, as .xlsx files are; unpack it, or save the table as CSV",
    b"\xd0\xcf\x11\xe0": "a file of an old office program; save the table as CSV",
    b"PAR1": "Parquet; give it the suffix .parquet",
    b"BZh": "packed by bzip2; unpack it (gzip needs no unpacking)",
    b"\xfd7zXZ": "packed by xz; unpack it (gzip needs no unpacking)",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it (gzip needs no unpacking)",
}
"""How files begin that are no text, and what to do with them."""


def check_text(path: Path, begin: bytes) -> None:
    """Refuse a file of another kind by its first bytes.

    Raises:
        UserError: the first bytes are those of another kind of file.
    """
    for magic, told in _OTHER_KINDS.items():
        if begin.startswith(magic):
            raise UserError(f"{path} is not a text file. It is {told}.")


def first_true(mask: pl.Series) -> int | None:
    """The first row where a mask (``pl.Boolean``; null is not true) is true, if there is one."""
    row = mask.arg_max() if mask.any() else None
    return None if row is None else int(row)


def check_whole(name: str, value: int | None, least: int, most: int) -> None:
    """Refuse an option that is given and out of its range.

    Raises:
        UserError: the value is not a number from ``least`` to ``most``.
    """
    if value is not None and not least <= value <= most:
        raise UserError(f"`{name}` is {value}; expected a whole number from {least} to {most:,}.")


def empty_column(path: Path, line: int, name: str) -> UserError:
    """The sentence on a field that has to have a value and has none."""
    return UserError(
        f"{path}, line {line}: column {name!r} is empty; fill it in or remove the line."
    )
