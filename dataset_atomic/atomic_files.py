"""Checking RecBole's atomic files before anything reads them.

RecBole reads atomic files with Pandas and, on a malformed one, stops deep inside Pandas or goes
on with missing values.  :func:`check_atomic_file` looks at the raw bytes first and says in one
sentence which line is wrong.  It reads the file block by block, so that its memory does not
grow with the file, and looks at single lines only once it knows that one is wrong.
"""

from __future__ import annotations

import codecs
import math
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dataset_atomic.held import held_or
from dataset_atomic.layout import COLUMNS, KEYS, Layout
from dataset_atomic.lines import Lines, check_returns, decoded, empty_column, whole_lines
from ksr_recbole.errors import UserError, shown
from ksr_recbole.files import check_regular, open_regular
from ksr_recbole.one_step import steady
from ksr_recbole.text import counted

FIELD_TYPES = ("token", "token_seq", "float", "float_seq")
"""Types that RecBole knows; a header's columns read ``name:type``."""

SUFFIXES = ("inter", "kg", "link", "item", "user", "relation", "entity", "origin")
"""Of the files that a conversion may write."""

READ_BY_RECBOLE = (".inter", ".kg", ".link")
"""Suffixes of the files that RecBole reads too, as CSV files; names are in files of ours."""

BLOCK_BYTES = 1 << 19
"""Bytes checked at a time; the working arrays are a few times this."""

_NEWLINE, _CARRIAGE_RETURN, _QUOTE = 10, 13, ord('"')

PADDING = "[PAD]"
"""RecBole's token of the id that pads histories."""

LONGEST_ID = 2_000
"""Bytes; an IRI has fewer."""

_MAX_PLAIN_NUMBER = 32
"""Longest number, in bytes, that is checked without reading it."""

_NON_DIGIT_WEIGHT = np.full(256, 2, dtype=np.uint8)
"""By byte: 0 for a digit, 1 for a point, 2 for anything else."""
_NON_DIGIT_WEIGHT[ord("0") : ord("9") + 1] = 0
_NON_DIGIT_WEIGHT[ord(".")] = 1


def is_atomic_name(name: str) -> bool:
    """Whether a name is of a file that a conversion may write, of whatever dataset."""
    return name.endswith(tuple(f".{suffix}" for suffix in SUFFIXES))


class _Recoded:
    """A file of another encoding, read as UTF-8."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._text = TextIOWrapper(file, encoding=encoding, newline="\n")

    def read(self, size: int = -1, /) -> bytes:
        return self._text.read(size).encode()

    def readline(self) -> bytes:
        return self._text.readline().encode()


def is_utf8(encoding: str | None) -> bool:
    """Whether files of RecBole's ``encoding`` can be read as they are."""
    return encoding is None or codecs.lookup(encoding).name == "utf-8"


@contextmanager
def open_as_utf8(path: str | os.PathLike[str], encoding: str | None) -> Iterator[Lines]:
    """Open an atomic file for reading bytes in UTF-8, whatever its encoding.

    Args:
        path: the file.
        encoding: RecBole's config key; UTF-8 if ``None``.

    Raises:
        OSError: see :func:`~ksr_recbole.files.open_regular`.
        UserError: what is read inside the block is not written in that encoding.
    """
    with open_regular(path) as file:
        if encoding is None or is_utf8(encoding):
            yield file
            return
        try:
            yield _Recoded(file, encoding)
        except UnicodeError as error:
            reason = getattr(error, "reason", None) or str(error)
            raise UserError(
                f"{path} is not written in {encoding} ({shown(reason)}); correct the config key "
                "encoding or save the file in it."
            ) from error


@contextmanager
def steady_dataset(
    folder: str | os.PathLike[str], name: str, parts: Sequence[str] = ()
) -> Iterator[Callable[[], None]]:
    """What is read inside the block is of one conversion, and from files only.

    The block gets a function that looks whether it is so until now.

    Args:
        folder: the dataset's folder.
        name: its name.
        parts: of the interactions, where each has a file of its own (``benchmark_filename``).

    Raises:
        UserError: files of the dataset were replaced meanwhile, or a conversion that was stopped
            half-way cannot be finished; something else stands where a file is expected.
    """
    names = [f"{name}.{suffix}" for suffix in SUFFIXES]
    names += [f"{name}.{part}.inter" for part in parts]
    with steady(folder, names, lambda file: file.startswith(f"{name}.")) as check:
        for path in map(Path(folder).joinpath, names):
            if os.path.lexists(path):
                with _explained(path):
                    check_regular(path)
        yield check


def check_atomic_file(
    path: str | os.PathLike[str],
    required: Mapping[str, str] | Sequence[str],
    separator: str = "\t",
    encoding: str | None = None,
) -> dict[str, str]:
    """Raise if an atomic file is not what RecBole needs; return its columns otherwise.

    The file must exist, be text, begin with a header of ``name:type`` columns among which are
    the required ones, and have at least one row; every row must have as many columns as the
    header, and no required column may be empty or, if its type is ``float``, not be a finite
    number.  In the files that RecBole reads, fields of required columns may not begin with a
    quotation mark, which it would take away, and others not with one that they do not close.
    Lines may end in ``\\n`` or ``\\r\\n``; blank lines at the end are allowed, other ``\\r``
    are not.

    Args:
        path: the file.
        required: the names of the columns that must be there, with the type that each must
            have if it is a mapping.
        separator: RecBole's ``field_separator``, one character.
        encoding: RecBole's ``encoding``; UTF-8 if ``None``.

    Returns:
        The type of every column by name, in the file's order.

    Raises:
        UserError: the first thing that is wrong, with its line number.
    """
    path = Path(path)
    if len(separator.encode()) != 1:
        raise UserError(
            f"The field separator of {path} is {separator!r}; set `field_separator` to one "
            "ASCII character, such as a tab."
        )
    with _explained(path):
        what = ("checked", separator, encoding, frozenset(required))
        types = held_or(path, what, lambda: _checked(path, required, separator, encoding))
    _check_required(path, types, required)
    return types


def _checked(
    path: Path,
    required: Mapping[str, str] | Sequence[str],
    separator: str,
    encoding: str | None,
) -> dict[str, str]:
    """The types of a file's columns, once all of its rows were looked at."""
    with open_as_utf8(path, encoding) as file:
        types: dict[str, str] | None = None
        n_rows = 0
        # No thread reads ahead: that the two wait for each other took longer than the reading.
        blocks = iter(lambda: file.read(BLOCK_BYTES), b"")
        for line, block in _without_blank_end(whole_lines(path, blocks)):
            if types is None:
                header, _, block = block.partition(b"\n")
                types = _check_header(path, header + b"\n", required, separator)
                line += 1
            if block:
                n_rows += _check_rows(path, block, line, types, list(required), separator)
        if types is None:
            types = _check_header(path, b"", required, separator)
    if n_rows == 0:
        raise UserError(f"{path} has a header but no rows; expected at least one row from line 2.")
    return types


def columns_of(path: str | os.PathLike[str], layout: Layout) -> dict[str, str]:
    """The type of every column by name, from the first line of an atomic file alone.

    Raises:
        UserError: the file is missing or cannot be read, or the line is no header.
    """
    path = Path(path)
    with _explained(path), open_as_utf8(path, layout.encoding) as file:
        return _check_header(path, file.readline(), (), layout.separator)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors of opening a file as sentences."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; put the file there or correct the dataset's folder."
        ) from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); it should be a readable file."
        ) from error


def _check_header(
    path: Path, line: bytes, required: Mapping[str, str] | Sequence[str], separator: str
) -> dict[str, str]:
    """Types by column name from the first line of a file."""
    if not line.strip(b"\r\n"):
        problem = "has a blank first line" if line else "is empty"
        raise UserError(
            f"{path} {problem}; expected a header such as "
            f"{separator.join(_example_columns(required))!r} in line 1."
        )
    header = decoded(path, 1, line.rstrip(b"\r\n"))
    check_returns(path, line.rstrip(b"\r\n"), 1, even_quoted=True)
    if header.startswith("\ufeff"):
        raise UserError(
            f"{path} begins with a byte-order mark; save it as UTF-8 without one, or read it with "
            "--encoding=utf-8-sig."
        )
    types: dict[str, str] = {}
    for column in header.split(separator):
        name, _, field_type = column.partition(":")
        if not name or field_type not in FIELD_TYPES:
            found = _separator_in(header)
            correct = f"correct it, or the separator {separator!r}"
            if found is not None:
                correct = f"its columns are separated by {found!r}, so add {_as_argument(found)}"
            raise UserError(
                f"{path}, line 1: column {shown(repr(column))} of the header is not `name:type` "
                f"with a type among {', '.join(FIELD_TYPES)}; {correct}."
            )
        if name in types:
            raise UserError(f"{path}, line 1: column {shown(repr(name))} occurs twice; remove one.")
        types[name] = field_type
    _check_required(path, types, required)
    return types


def _separator_in(header: str) -> str | None:
    """The usual separator that makes a header's columns ``name:type``; ``None`` if none does."""
    for separator in ("\t", ",", ";", "|", " "):
        parts = [column.partition(":") for column in header.split(separator)]
        if len(parts) > 1 and all(name and kind in FIELD_TYPES for name, _, kind in parts):
            return separator
    return None


def _as_argument(separator: str) -> str:
    value = "\\t" if separator == "\t" else separator
    return shlex.join([f"--field_separator={value}"])


def _check_required(
    path: Path, types: Mapping[str, str], required: Mapping[str, str] | Sequence[str]
) -> None:
    for name, example in zip(required, _example_columns(required), strict=True):
        if name not in types:
            raise UserError(
                f"{path}, line 1: the header has no column {shown(repr(name))} but "
                f"{shown(', '.join(types))}; add `{example}` or {_how_to_name(path, name)}."
            )
        if isinstance(required, Mapping) and types[name] != required[name]:
            raise UserError(
                f"{path}, line 1: column {shown(repr(name))} has type {shown(repr(types[name]))}; "
                f"expected `{example}`, so correct the header."
            )


def _how_to_name(path: Path, column: str) -> str:
    """What to do about a column that may have another name."""
    parts = [part for part in COLUMNS if getattr(Layout, part) == column]
    if not parts:  # the user gave the name
        return "correct the name in the configuration"
    key = KEYS[parts[0]]
    also = {"item": ".inter and .link", "entity": ".link and .entity"}.get(parts[0], "")
    both = f" ({also} must both have it)" if also else ""
    return f"give its name in {path.suffix} with --{key}=NAME{both}"


def _example_columns(required: Mapping[str, str] | Sequence[str]) -> list[str]:
    """Required columns as a header would write them."""
    if isinstance(required, Mapping):
        return [f"{name}:{field_type}" for name, field_type in required.items()]
    return [f"{name}:token" for name in required]


def _check_rows(
    path: Path,
    block: bytes,
    line: int,
    types: Mapping[str, str],
    required: Sequence[str],
    separator: str,
) -> int:
    """Check whole lines below the header, the first of number ``line``; return how many."""
    names = list(types)
    decoded(path, line, block)
    check_returns(path, block, line, even_quoted=True)
    starts, ends = _field_bounds(path, block, len(types), line, separator)
    if path.suffix in READ_BY_RECBOLE:
        _check_quotes(path, names, required, block, starts, ends, line)
    for name in required:
        column = names.index(name)
        field = starts[:, column], ends[:, column]
        _check_not_empty(path, name, *field, line)
        if types[name] == "token" and path.suffix in READ_BY_RECBOLE:
            _check_lengths(path, name, *field, line)
            _check_no_padding(path, name, block, *field, line)
        if types[name] == "float":
            _check_numeric(path, name, block, *field, line)
    return len(starts)


def _without_blank_end(blocks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines without the blank lines at the end of the file.

    Blank lines are held back until a line follows them: those in the middle of a file belong
    to the next block, where they are found to have too few columns.
    """
    held = b""
    for line, text in blocks:
        line, text = line - held.count(b"\n"), held + text
        filled = len(text.rstrip(b"\r\n"))
        end = text.find(b"\n", filled) + 1 if filled else 0
        if end:
            yield line, text[:end]
        held = text[end:]


def _field_bounds(
    path: Path, block: bytes, n_columns: int, first_line: int, separator: str
) -> tuple[np.ndarray, np.ndarray]:
    """Where every field begins and ends (exclusive), each ``int64 [n_lines, n_columns]``."""
    data = np.frombuffer(block, dtype=np.uint8)
    stops = np.flatnonzero((data == ord(separator)) | (data == _NEWLINE))
    ends_line = data[stops] == _NEWLINE
    # In a well-formed block every n_columns-th stop, and no other, is the end of a line.
    expected = np.zeros(len(stops), dtype=bool)
    expected[n_columns - 1 :: n_columns] = True
    wrong = np.flatnonzero(ends_line != expected)
    if len(wrong):
        row = int(np.count_nonzero(ends_line[: wrong[0]]))
        text = block.split(b"\n", row + 1)[row]
        if not text.strip(b"\r"):
            raise UserError(f"{path}, line {first_line + row} is empty; remove the line.")
        found = text.count(separator.encode()) + 1
        raise UserError(
            f"{path}, line {first_line + row}: {counted(found, 'column')} found where the header "
            f"has {n_columns}; correct the line, or the separator {separator!r}."
        )
    starts = np.concatenate([[0], stops[:-1] + 1]).reshape(-1, n_columns)
    ends = stops.reshape(-1, n_columns).copy()
    # Of "\r\n" the "\r" is not part of the last field; an empty last field may start the block.
    ends[:, -1] -= (ends[:, -1] > starts[:, -1]) & (data[ends[:, -1] - 1] == _CARRIAGE_RETURN)
    return starts, ends


def _check_quotes(
    path: Path,
    names: Sequence[str],
    required: Sequence[str],
    block: bytes,
    starts: np.ndarray,
    ends: np.ndarray,
    first_line: int,
) -> None:
    """Refuse what Pandas would take for a quoted field, which can extend over the next lines."""
    data = np.frombuffer(block, dtype=np.uint8)
    quoted = (data[starts] == _QUOTE) & (starts < ends)
    if not quoted.any():
        return
    before = np.concatenate([[0], np.cumsum(data == _QUOTE)])
    unclosed = (before[ends] - before[starts]) % 2 == 1
    refused = np.argwhere(quoted & (unclosed | np.isin(names, list(required))))
    if len(refused):
        row, column = refused[0]
        raise UserError(
            f"{path}, line {first_line + row}: column {shown(repr(names[column]))} begins with a "
            "quotation mark, and RecBole would read on to the next one; remove it everywhere in "
            "this field."
        )


def _check_not_empty(
    path: Path, name: str, starts: np.ndarray, ends: np.ndarray, first_line: int
) -> None:
    empty = np.flatnonzero(starts == ends)
    if len(empty):
        raise empty_column(path, first_line + int(empty[0]), name)


def _check_lengths(
    path: Path, name: str, starts: np.ndarray, ends: np.ndarray, first_line: int
) -> None:
    """RecBole keeps every id in as much memory as the longest needs."""
    lengths = ends - starts
    if len(lengths) and lengths.max() > LONGEST_ID:
        row = int(np.argmax(lengths > LONGEST_ID))
        raise UserError(
            f"{path}, line {first_line + row}: column {shown(repr(name))} has {lengths[row]:,} "
            f"bytes, and an id has at most {LONGEST_ID:,}; shorten it or remove the line."
        )


def _check_no_padding(
    path: Path, name: str, block: bytes, starts: np.ndarray, ends: np.ndarray, first_line: int
) -> None:
    """RecBole gives the id that pads histories to a token of its own, and would have two of it."""
    data, padding = np.frombuffer(block, dtype=np.uint8), PADDING.encode()
    rows = np.flatnonzero(ends - starts == len(padding))
    rows = rows[data[starts[rows]] == padding[0]]
    fields = data[starts[rows, None] + np.arange(len(padding))]
    found = rows[(fields == np.frombuffer(padding, dtype=np.uint8)).all(axis=1)]
    if len(found):
        raise UserError(
            f"{path}, line {first_line + int(found[0])}: column {shown(repr(name))} is {PADDING}, "
            "RecBole's own token of the padding; rename it, here and wherever else it occurs."
        )


def _check_numeric(
    path: Path, name: str, block: bytes, starts: np.ndarray, ends: np.ndarray, first_line: int
) -> None:
    """Whether a column, each field ``block[starts[k]:ends[k]]``, holds finite numbers."""
    data = np.frombuffer(block, dtype=np.uint8)
    lengths = ends - starts
    # Digits with at most one point are a number: sum up the others, byte by byte of all fields.
    weight = np.zeros(len(starts), dtype=np.uint8)
    for k in range(min(lengths.max(), _MAX_PLAIN_NUMBER)):
        # Clipped, as a field shorter than k at the end of the block ends beyond it.
        weight += _NON_DIGIT_WEIGHT.take(data.take(starts + k, mode="clip")) * (k < lengths)
    is_plain = (weight <= 1) & (weight < lengths) & (lengths <= _MAX_PLAIN_NUMBER)
    for row in np.flatnonzero(~is_plain):
        text = block[starts[row] : ends[row]].decode()
        if not _is_finite_number(text):
            raise UserError(
                f"{path}, line {first_line + row}: {shown(repr(text))} in column "
                f"{shown(repr(name))} is not a finite number; correct the value or remove the line."
            )


def _is_finite_number(text: str) -> bool:
    try:
        # float() also reads "1_000", which Pandas does not, and digits and blanks of every script.
        plain = text.isascii() and text.strip(" \t").isprintable() and "_" not in text
        return plain and math.isfinite(float(text))
    except ValueError:
        return False
