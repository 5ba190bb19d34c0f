"""Raw text files of any size as Polars frames, block by block.

What Polars cannot parse is looked at line by line, but only in the block that holds it, to say
which line is wrong.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl

from dataset_atomic.lines import (
    check_returns,
    check_text,
    decoded,
    empty_column,
    first_true,
    text_blocks,
)
from dataset_atomic.raw.typed import is_typed, read_typed, texts_of, with_whole_ids
from ksr_recbole.errors import UserError, shown

_OVERFLOW = "\0overflow"


@dataclass(frozen=True)
class TextFormat:
    """How the lines of a raw file are to be read.

    Attributes:
        columns: names of the columns from left to right; with a header, the header's names of
            the columns wanted (``columns[raw] = name``).
        separator: between columns; of several characters, none may be a tab.
        quoted: whether fields may be in double quotes, as in CSV.
        header: whether line 1 names the columns, in any order.
        encoding: of the file.
        optional: columns that may be empty.
    """

    columns: tuple[str, ...] | Mapping[str, str]
    separator: str = "\t"
    quoted: bool = False
    header: bool = False
    encoding: str = "utf-8"
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Block:
    """Some lines of a file.

    Attributes:
        path: the file.
        first_line: number of the first line, from 1.
        text: the lines.
        frame: their columns as ``pl.String``, without the blank lines.
        blank_lines: how many lines were blank.
        layout: how the lines were read.
    """

    path: Path
    first_line: int
    text: bytes
    frame: pl.DataFrame
    blank_lines: int
    layout: TextFormat

    def line_of(self, row: int) -> str:
        """File and line of a row of ``frame``; the row itself in a file without lines."""
        if not self.text:
            return f"{self.path}, row {row + 1}"
        rows = _rows_of(self.path, self.first_line, self.text, self.layout)
        return f"{self.path}, line {next(islice(rows, row, None))[0]}"


def read_blocks(
    path: Path, layout: TextFormat, *, block_bytes: int | None = None
) -> Iterator[Block]:
    """The file's rows, block by block.

    Raises:
        UserError: the file is missing, unreadable, truncated or malformed; with its line.
    """
    if is_typed(path):
        yield _block_of_frame(path, layout)
        return
    names: list[str] | None = None if layout.header else list(layout.columns)
    blocks = text_blocks(path, layout.encoding, block_bytes=block_bytes)
    for first_line, text in _whole_rows(blocks) if layout.quoted else blocks:
        if first_line == 1:
            check_text(path, text)
        check_returns(path, text, first_line)
        if names is None:
            header, _, text = text.partition(b"\n")
            names = _header_names(path, decoded(path, 1, header.rstrip(b"\r")), layout)
            first_line += 1
        yield _parse(path, first_line, text, names, layout)


_MOST_TOGETHER = 1 << 26
"""Bytes that are read on for the end of a row; a quote that is still open is a mistake then."""


def _whole_rows(blocks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Blocks that end with a row, since a field in quotes may have line ends in it."""
    number, rest = 1, b""
    for first_line, text in blocks:
        number = number if rest else first_line
        rest += text
        if rest.count(b'"') % 2 == 0 or len(rest) > _MOST_TOGETHER:
            yield number, rest
            rest = b""
    if rest:
        yield number, rest


def _block_of_frame(path: Path, layout: TextFormat) -> Block:
    """Columns of a table with types, as text."""
    if not isinstance(layout.columns, Mapping):
        raise UserError(f"{path} names its columns itself; leave --columns out.")
    frame = read_typed(path)
    columns = []
    for raw, name in layout.columns.items():
        if raw not in frame.columns:
            raise UserError(
                f"{path} has no column '{shown(raw)}'; its columns are: "
                f"{', '.join(shown(each, 30) for each in frame.columns[:20])}."
            )
        frame = with_whole_ids(frame, raw) if name.endswith("_id") else frame
        texts = texts_of(path, frame, raw).rename(name)
        empty = None if name in layout.optional else first_true(texts.is_null())
        if empty is not None:
            raise UserError(f"{path}, row {empty + 1}: column '{shown(raw)}' is empty; fill it in.")
        columns.append(texts)
    return Block(path, 1, b"", pl.DataFrame(columns), 0, layout)


def header_fields(header: str, separator: str, quoted: bool) -> list[str]:
    """The names in a header line, which may be in quotes with the separator in them."""
    if quoted:
        with suppress(csv.Error):  # a name of more than 128 KiB
            fields = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
            return [name.strip() for name in fields]
    return [name.strip().strip('"') for name in header.split(separator)]


def read_table(
    path: Path, layout: TextFormat, check: Callable[[Block], None] = lambda _: None
) -> pl.DataFrame:
    """A file that fits into memory, all at once.

    Args:
        path: the file.
        layout: how its lines are to be read.
        check: looks at each block; raises to refuse a line.

    Raises:
        UserError: the file cannot be read, is empty or has a malformed line.
    """
    frames = []
    for block in read_blocks(path, layout):
        check(block)
        frames.append(block.frame)
    if not frames:
        raise UserError(f"{path} is empty; expected {_expected(layout)}.")
    return pl.concat(frames)


def first_line(path: Path) -> bytes:
    """The first line that is neither blank nor a comment (``#``); empty if there is none."""
    for number, text in text_blocks(path, block_bytes=1 << 16):
        for line_number, line in enumerate(text.split(b"\n"), number):
            if line.strip() and not line.startswith(b"#"):
                check_returns(path, line + b"\n", line_number)
                return line.rstrip(b"\r")
    return b""


def is_atomic(line: bytes, columns: Iterable[str]) -> bool:
    """Whether a line is the header of an atomic file, in whatever order its columns are.

    Args:
        line: the file's first.
        columns: what that header calls the columns wanted; one of them tells it.
    """
    found = header_fields(line.decode(errors="replace"), "\t", quoted=False)
    return not set(columns).isdisjoint(found)


def _header_names(path: Path, header: str, layout: TextFormat) -> list[str]:
    """The columns of a file with a header; those that nobody asked for keep their raw name."""
    wanted = layout.columns
    assert isinstance(wanted, Mapping)
    found = header_fields(header, layout.separator, layout.quoted)
    missing = [raw for raw in wanted if raw not in found]
    if missing:
        raise UserError(
            f"{path}, line 1: the header {header[:80]!r} has no column "
            f"{shown(repr(missing[0]))}; expected {', '.join(wanted)} separated by "
            f"{layout.separator!r}, in any order. Add the header line or correct the "
            "column names or the separator."
        )
    repeated = next((raw for raw in wanted if found.count(raw) > 1), None)
    if repeated is not None:
        raise UserError(f"{path}, line 1: column {shown(repr(repeated))} occurs twice; remove one.")
    return [wanted.get(raw, f"\0{k}") for k, raw in enumerate(found)]


def _parse(path: Path, first_line: int, text: bytes, names: list[str], layout: TextFormat) -> Block:
    columns = [*names, _OVERFLOW]
    separator = "\t" if len(layout.separator) > 1 else layout.separator
    plain = (
        text if separator == layout.separator else text.replace(layout.separator.encode(), b"\t")
    )
    # A header of its own tells Polars how many columns to look for in every line.
    header = separator.join(f"c{k}" for k in range(len(columns)))
    required = [name for name in names if not name.startswith("\0") and name not in layout.optional]
    try:
        frame = pl.read_csv(
            header.encode() + b"\n" + plain,
            separator=separator,
            quote_char='"' if layout.quoted else None,
            infer_schema=False,
            truncate_ragged_lines=True,
            new_columns=columns,
        )
    except pl.exceptions.PolarsError as error:
        _explain(path, first_line, text, names, required, layout)
        if not layout.quoted:
            raise UserError(f"{path} cannot be parsed: {error}; correct the file.") from error
        # Python's reader takes a quote within a field as it is, such as 27" for inches.
        rows = [fields for _, fields in _rows_of(path, first_line, text, layout)]
        frame = _frame_of(rows, names)
    filled, first = frame, frame[names[0]]
    if first.null_count() or any(first.str.starts_with(blank).any() for blank in " \t"):
        empty = pl.all().is_null() | (pl.all().str.strip_chars() == "")
        filled = frame.filter(~pl.all_horizontal(empty))
    if sum(filled[name].null_count() for name in required) or filled[_OVERFLOW].count():
        _explain(path, first_line, text, names, required, layout)
    wanted = [name for name in names if not name.startswith("\0")]
    blank = frame.height - filled.height
    return Block(path, first_line, text, filled.select(wanted), blank, layout)


def _frame_of(rows: list[list[str]], names: list[str]) -> pl.DataFrame:
    """Rows of as many fields as there are names, as Polars reads them."""
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    there = frame.select(pl.when(pl.col(name) != "").then(name) for name in names)
    return there.with_columns(pl.lit(None, pl.String).alias(_OVERFLOW))


def _explain(
    path: Path,
    first_line: int,
    text: bytes,
    names: list[str],
    required: list[str],
    layout: TextFormat,
) -> None:
    """Raise for the first row of a block that is not as it should be."""
    for number, fields in _rows_of(path, first_line, text, layout):
        if len(fields) != len(names):
            row = layout.separator.join(fields)
            raise UserError(
                f"{path}, line {number}: {len(fields)} column(s) separated by "
                f"{layout.separator!r} found in {row[:80]!r}, expected {len(names)}; correct the "
                "line or the separator."
            )
        for name, value in zip(names, fields, strict=True):
            if name in required and not value:
                raise empty_column(path, number, name)


_Rows = Iterator[tuple[int, list[str]]]
"""The first line of each row that is not blank, and its fields."""


def _rows_of(path: Path, first_line: int, text: bytes, layout: TextFormat) -> _Rows:
    lines = (
        decoded(path, number, raw.rstrip(b"\r"))
        for number, raw in enumerate(text.split(b"\n"), first_line)
    )
    rows = _quoted_rows if layout.quoted else _plain_rows
    return rows(path, first_line, lines, layout.separator)


def _plain_rows(path: Path, first_line: int, lines: Iterator[str], separator: str) -> _Rows:
    for number, line in enumerate(lines, first_line):
        fields = line.split(separator)
        if any(map(str.strip, fields)):
            yield number, fields


def _quoted_rows(path: Path, first_line: int, lines: Iterator[str], separator: str) -> _Rows:
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=separator, strict=True)
    number = first_line
    try:
        for fields in reader:
            if any(map(str.strip, fields)):
                yield number, fields
            number = first_line + reader.line_num
    except csv.Error as error:
        if str(error) == "unexpected end of data":
            raise UserError(
                f"{path}, line {number}: a double quote is not closed; close it."
            ) from error
        raise UserError(
            f"{path}, line {number}: the row cannot be read as CSV ({error}); correct it."
        ) from error


def _expected(layout: TextFormat) -> str:
    names = ", ".join(layout.columns)
    return f"{len(layout.columns)} ({names}) separated by {layout.separator!r}"
