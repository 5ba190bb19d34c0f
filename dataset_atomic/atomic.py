"""Reading and writing RecBole's atomic files with Polars.

Every column stays the text it is in the file: what a conversion does not change is written back
byte for byte, and the same source always gives the same files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import polars as pl

from dataset_atomic.atomic_files import (
    LONGEST_ID,
    PADDING,
    READ_BY_RECBOLE,
    check_atomic_file,
    columns_of,
    is_atomic_name,
    is_utf8,
    open_as_utf8,
)
from dataset_atomic.held import held_or
from dataset_atomic.ids import Ids, numbered
from dataset_atomic.layout import Layout
from ksr_recbole.errors import UserError, shown
from ksr_recbole.files import replacing
from ksr_recbole.one_step import nothing_to_check

RECBOLES = Layout()
"""The layout that RecBole assumes unless told otherwise."""


@dataclass(frozen=True)
class AtomicTable:
    """The content of one atomic file.

    Attributes:
        frame: the rows; columns are named without their type and are all ``pl.String``, an
            empty field being null.
        types: RecBole's type of every column, in the frame's order.
    """

    frame: pl.DataFrame
    types: dict[str, str]


def scan_atomic(
    path: str | os.PathLike[str],
    required: Mapping[str, str] | Sequence[str],
    layout: Layout = RECBOLES,
) -> pl.LazyFrame:
    """The rows of an atomic file as text, read when collected.

    The file is checked right away (:func:`dataset_atomic.atomic_files.check_atomic_file`
    explains ``required`` and raises the :class:`~ksr_recbole.errors.UserError`).
    """
    types = check_atomic_file(path, required, layout.separator, layout.encoding)
    return scan_checked(path, list(types), layout)


def read_ids(
    path: str | os.PathLike[str],
    required: Mapping[str, str],
    kinds: Sequence[Sequence[str]],
    layout: Layout,
) -> tuple[list[Ids], pl.DataFrame]:
    """The required columns of a file that was checked before.

    Args:
        path: the file.
        required: type of each column.
        kinds: those of ids, columns of one kind together.
        layout: how the file is written.

    Returns:
        The ids of each kind, and the other columns as text.
    """

    def read() -> tuple[list[Ids], pl.DataFrame]:
        frame = scan_checked(path, columns_of(path, layout), layout).select(*required).collect()
        ids = [numbered({name: frame[name] for name in names}) for names in kinds]
        return ids, frame.drop(name for names in kinds for name in names)

    what = ("ids", tuple(required.items()), tuple(map(tuple, kinds)), layout)
    return held_or(path, what, read)


def read_atomic(
    path: str | os.PathLike[str], required: Mapping[str, str] | Sequence[str]
) -> AtomicTable:
    """A checked atomic file of RecBole's layout, as :func:`scan_atomic` but with its types."""
    types = check_atomic_file(path, required, RECBOLES.separator, RECBOLES.encoding)
    return AtomicTable(scan_checked(path, list(types), RECBOLES).collect(), types)


def write_atomic_files(
    folder: str | os.PathLike[str],
    name: str,
    tables: Mapping[str, AtomicTable],
    stale: Sequence[str] = (),
    check: Callable[[], None] = nothing_to_check,
    layout: Layout = RECBOLES,
    look: Callable[[Path], None] = lambda _: None,
) -> None:
    """Write ``<folder>/<name>.<suffix>`` for every suffix of ``tables``, in one step.

    Args:
        folder: the dataset's folder.
        name: the dataset's name.
        tables: the files' content, by suffix.
        stale: suffixes of files that are removed in the same step, if they are there.
        check: called right before the step; raises to give up.
        layout: how to write them; columns called as RecBole calls them get its names.
        look: called with the folder of the new files before the step: no other command replaces
            them there.

    Raises:
        UserError: a value holds the separator, or a character that the encoding lacks; an id is
            too long.
    """
    for suffix, table in tables.items():
        if f".{suffix}" in READ_BY_RECBOLE:
            _check_ids(suffix, table)
    targets = [atomic_path(folder, name, suffix) for suffix in tables]
    old = [atomic_path(folder, name, suffix) for suffix in stale]
    removed = [path for path in old if path.is_file() or path.is_symlink()]
    with replacing(*targets, removed=removed, check=check, owned=is_atomic_name) as temporaries:
        for temporary, table in zip(temporaries, tables.values(), strict=True):
            _write(temporary, table, layout)
        look(temporaries[0].parent)


def atomic_path(folder: str | os.PathLike[str], name: str, suffix: str) -> Path:
    """Where RecBole looks for the atomic file of a dataset (without its folder's name)."""
    return Path(folder) / f"{name}.{suffix}"


def scan_checked(
    path: str | os.PathLike[str], names: Iterable[str], layout: Layout
) -> pl.LazyFrame:
    """The rows of a file that was checked before and has these columns, as text."""
    source: str | BytesIO = os.fspath(path)
    if not is_utf8(layout.encoding):
        with open_as_utf8(path, layout.encoding) as file:
            source = BytesIO(file.read())
    rows = pl.scan_csv(
        source,
        separator=layout.separator,
        quote_char=None,
        infer_schema=False,
        with_column_names=lambda _: list(names),
        glob=False,
    )
    # Polars makes rows of blank lines at the end of a file.
    return rows.filter(pl.any_horizontal(pl.all().is_not_null()))


def _write(path: Path, table: AtomicTable, layout: Layout) -> None:
    names = layout.renamed()
    header = {n: f"{names.get(n, n)}:{field_type}" for n, field_type in table.types.items()}
    frame = table.frame.select(*header).rename(header)
    _check_separator(path, frame, layout.separator)
    # A Python file, so that a full disk is the OSError that `replacing` explains.
    with path.open("wb") as file:
        if is_utf8(layout.encoding):
            frame.write_csv(file, separator=layout.separator, quote_style="never")
            return
        text = frame.write_csv(separator=layout.separator, quote_style="never")
        try:
            file.write(text.encode(layout.encoding or "utf-8"))
        except UnicodeEncodeError as error:
            raise UserError(
                f"{text[error.start]!r} cannot be written in {layout.encoding}; leave encoding "
                "out to write UTF-8."
            ) from error


def _check_ids(suffix: str, table: AtomicTable) -> None:
    """Refuse ids that no reader takes, before anything is written."""
    for name, kind in table.types.items():
        if kind != "token":
            continue
        ids = table.frame[name]
        # Few categories stand for many rows, which need not become text for this.
        texts = (ids.unique() if ids.dtype == pl.Categorical else ids).cast(pl.String)
        if (texts == PADDING).any():
            raise UserError(
                f"{PADDING} in column {shown(name)} of .{suffix} is RecBole's own token of the "
                "padding; rename it in the raw files."
            )
        if len(quoted := texts.filter(texts.str.starts_with('"'))):
            raise UserError(
                f"{shown(quoted[0])} in column {shown(name)} of .{suffix} begins with a quotation "
                "mark, which RecBole would take away; remove it in the raw files."
            )
        if len(long := texts.filter(too_long(texts))):
            value = long[0]
            raise UserError(
                f"{shown(repr(value))} in column {shown(name)} of .{suffix} has "
                f"{len(value.encode()):,} bytes, and an id has at most {LONGEST_ID:,}; shorten it "
                "in the raw files."
            )


def too_long(ids: pl.Series) -> pl.Series:
    """Whether each id, of text, has more bytes than one in an atomic file may have."""
    return ids.str.len_bytes().fill_null(0) > LONGEST_ID


def _check_separator(path: Path, frame: pl.DataFrame, separator: str) -> None:
    if separator == RECBOLES.separator:  # refused when the raw files are read
        return
    for name, column in frame.to_dict().items():
        text = column.cast(pl.String)
        held = text.str.contains(separator, literal=True).fill_null(False)
        if held.any() or separator in name:
            value = text.filter(held).head(1).to_list() or [name]
            raise UserError(
                f"{shown(repr(value[0]))} in column {shown(name)} of .{path.suffix.strip('.')} "
                f"holds the separator {separator!r}; choose another field_separator."
            )
