"""Reading and writing RecBole's atomic files with Polars.

Every column stays the text it is in the file: what a conversion does not change is written back
byte for byte, and the same source always gives the same files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from dataset_atomic.atomic_files import check_atomic_file
from ksr_recbole.files import replacing
from ksr_recbole.one_step import nothing_to_check

SEPARATOR = "\t"


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

    def with_frame(self, frame: pl.DataFrame) -> AtomicTable:
        """The same columns with other rows."""
        return replace(self, frame=frame)


def scan_atomic(
    path: str | os.PathLike[str], required: Mapping[str, str] | Sequence[str]
) -> pl.LazyFrame:
    """The rows of an atomic file as text, read when collected.

    The file is checked right away (:func:`dataset_atomic.atomic_files.check_atomic_file`
    explains ``required`` and raises the :class:`~ksr_recbole.errors.UserError`).
    """
    return _scan(path, list(check_atomic_file(path, required, SEPARATOR)))


def read_atomic(
    path: str | os.PathLike[str], required: Mapping[str, str] | Sequence[str]
) -> AtomicTable:
    """A checked atomic file, as :func:`scan_atomic` but with its types."""
    types = check_atomic_file(path, required, SEPARATOR)
    return AtomicTable(_scan(path, list(types)).collect(), types)


def write_atomic_files(
    folder: str | os.PathLike[str],
    name: str,
    tables: Mapping[str, AtomicTable],
    stale: Sequence[str] = (),
    check: Callable[[], None] = nothing_to_check,
) -> None:
    """Write ``<folder>/<name>.<suffix>`` for every suffix of ``tables``, in one step.

    Args:
        folder: the dataset's folder.
        name: the dataset's name.
        tables: the files' content, by suffix.
        stale: suffixes of files that are removed in the same step, if they are there.
        check: called right before the step; raises to give up.
    """
    targets = [atomic_path(folder, name, suffix) for suffix in tables]
    old = [atomic_path(folder, name, suffix) for suffix in stale]
    removed = [path for path in old if path.is_file() or path.is_symlink()]
    with replacing(*targets, removed=removed, check=check) as temporaries:
        for temporary, table in zip(temporaries, tables.values(), strict=True):
            _write(temporary, table)


def atomic_path(folder: str | os.PathLike[str], name: str, suffix: str) -> Path:
    """Where RecBole looks for the atomic file of a dataset (but for its folder's name)."""
    return Path(folder) / f"{name}.{suffix}"


def _scan(path: str | os.PathLike[str], names: list[str]) -> pl.LazyFrame:
    rows = pl.scan_csv(
        path,
        separator=SEPARATOR,
        quote_char=None,
        infer_schema=False,
        with_column_names=lambda _: names,
        glob=False,
    )
    # Polars makes rows of blank lines at the end of a file.
    return rows.filter(pl.any_horizontal(pl.all().is_not_null()))


def _write(path: Path, table: AtomicTable) -> None:
    header = {name: f"{name}:{field_type}" for name, field_type in table.types.items()}
    # A Python file, so that a full disk is the OSError that `replacing` explains.
    with path.open("wb") as file:
        table.frame.select(*header).rename(header).write_csv(
            file, separator=SEPARATOR, quote_style="never"
        )
