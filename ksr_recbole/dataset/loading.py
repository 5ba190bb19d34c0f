"""Atomic files as data frames.

RecBole reads atomic files with Pandas' Python parser, which makes a Python object of every
cell.  :func:`read_columns` reads them with Polars, one object for each different token, and
:func:`with_ids` makes codes of the ids.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from recbole.utils import FeatureSource, FeatureType, dataset_arguments

from dataset_atomic.atomic import RECBOLES, atomic_path, read_ids, scan_checked
from dataset_atomic.atomic_files import check_atomic_file, columns_of
from dataset_atomic.layout import Layout
from dataset_atomic.lines import EXACT, MISSING, first_true
from ksr_recbole.config.evaluation_keys import puts_in_order
from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.mixin import DatasetMixin
from ksr_recbole.dataset.tokens import as_categoricals
from ksr_recbole.errors import UserError, shown
from ksr_recbole.text import counted

SETTINGS = (
    *dataset_arguments,
    "encoding",
    "kg_reverse_r",
    "entity_kg_num_interval",
    "relation_kg_num_interval",
    "numerical_features",
    "discretization",
)
"""Config keys that decide what RecBole makes of the atomic files."""


def read_columns(
    path: str | os.PathLike[str],
    types: Mapping[str, str],
    layout: Layout = RECBOLES,
) -> pd.DataFrame:
    """Some columns of an atomic file that was checked before.

    What is read of a column does not depend on the others: a token is the text between two
    separators (``NA`` is a token, not a missing one), without quotation marks around it.

    Args:
        path: the file.
        types: type of each column wanted.
        layout: how the file is written.

    Returns:
        Tokens as Python strings, ``NaN`` where there is none; numbers as ``float64``, ``NaN``
        where there is none; sequences as arrays.

    Raises:
        UserError: what should be a number is none, with its line.
    """
    return _as_frame(path, _texts(path, list(types), layout), types, layout)


def with_ids(
    path: str | os.PathLike[str],
    types: Mapping[str, str],
    required: Mapping[str, str],
    kinds_of_id: Sequence[Sequence[str]],
    layout: Layout,
) -> pd.DataFrame:
    """As :func:`read_columns`, but ids are categorical, and what was held of them is used.

    Args:
        path: the file.
        types: type of each column wanted.
        required: type of each column that must be there, as the file was checked for.
        kinds_of_id: columns of ids, those of one kind together; all of them are required.
        layout: how the file is written.

    Raises:
        UserError: what should be a number is none, with its line.
    """
    kinds, texts = read_ids(path, required, kinds_of_id, layout)
    found: dict[str, Any] = {}
    for ids in kinds:
        found |= as_categoricals(ids)
    rest = {name: kind for name, kind in types.items() if name not in found}
    if not rest.keys() <= required.keys():
        texts = _texts(path, list(rest), layout)
    frame = _as_frame(path, texts, rest, layout)
    return pd.DataFrame({**found, **frame}, columns=list(types), copy=False)


def _as_frame(
    path: str | os.PathLike[str],
    frame: pl.DataFrame,
    types: Mapping[str, str],
    layout: Layout,
) -> pd.DataFrame:
    """Columns of text as what their types say."""
    found: dict[str, Any] = {}
    for name, kind in types.items():
        text = _without_quotes(frame[name])
        if kind == "float":
            found[name] = _numbers(text, path, name)
        elif kind == "token":
            found[name] = _as_objects(text)
        else:
            found[name] = _sequences(text, kind, layout.within, path, name)
    return pd.DataFrame(found, columns=list(types))


def _texts(path: str | os.PathLike[str], columns: Sequence[str], layout: Layout) -> pl.DataFrame:
    return scan_checked(path, columns_of(path, layout), layout).select(*columns).collect()


def order_of(times: pl.Series) -> np.ndarray | None:
    """The order of times that are too large to be told apart as floats, ``int64 [n]``.

    Returns:
        ``None`` if floats tell them apart; equal times keep their order.
    """
    whole = times.str.strip_chars().cast(pl.Int64, strict=False)
    if whole.null_count() or not (whole.abs() > EXACT).any():
        return None
    return np.argsort(whole.to_numpy(), kind="stable")


def order_in_float32(times: np.ndarray) -> np.ndarray | None:
    """The order of times that ``float32`` cannot tell apart, ``int64 [n]``.

    Args:
        times: ``float64 [n]``.

    Returns:
        ``None`` if it tells all different times apart; equal times keep their order.
    """
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    lost = (ordered[1:] != ordered[:-1]) & (np.diff(ordered.astype(np.float32)) == 0)
    return order if lost.any() else None


def _without_quotes(text: pl.Series) -> pl.Series:
    if not text.str.starts_with('"').any():  # a tenth of the time of the pattern
        return text
    quoted = text.str.contains(r'^".*"$').fill_null(False)
    bare = text.str.slice(1, text.str.len_chars() - 2).str.replace_all('""', '"', literal=True)
    return text.zip_with(~quoted, bare)


def _numbers(text: pl.Series, path: str | os.PathLike[str], name: str) -> np.ndarray:
    numbers = text.cast(pl.Float64, strict=False)
    if numbers.null_count() > text.null_count():
        text = text.str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False)
    odd = np.flatnonzero((numbers.is_null() & text.is_not_null()).to_numpy())
    values = numbers.to_numpy(writable=True)
    for row in odd:  # "+5", which Python reads, and what stands for a missing number
        word = text[int(row)]
        try:
            values[row] = np.nan if word.lower() in MISSING else float(word)
        except ValueError:
            raise UserError(
                f"{path}, line {row + 2}: {shown(repr(word))} in column {name!r} is not a number; "
                "correct the value or the type in the header."
            ) from None
    return values


def _as_objects(column: pl.Series) -> np.ndarray:
    tokens = column.drop_nulls().unique(maintain_order=True)
    codes = column.cast(pl.Enum(tokens)).to_physical().cast(pl.Int64).fill_null(len(tokens))
    return np.array([*tokens.to_list(), np.nan], dtype=object)[codes.to_numpy()]


def _sequences(
    text: pl.Series, kind: str, separator: str, path: str | os.PathLike[str], name: str
) -> pd.Series:
    parts = text.fill_null("").str.split(separator)
    row = np.repeat(np.arange(len(parts)), parts.list.len().to_numpy())
    flat = parts.explode()
    real = (flat != "").fill_null(False)
    flat, row = flat.filter(real), row[real.to_numpy()]
    if kind == "float_seq":
        numbers = flat.cast(pl.Float64, strict=False)
        if (first := first_true(numbers.is_null())) is not None:
            raise UserError(
                f"{path}, line {row[first] + 2}: {shown(repr(flat[first]))} in column {name!r} is "
                f"not a number; numbers stand there with {separator!r} (seq_separator) between."
            )
        values = numbers.to_numpy()
    else:
        values = np.array(flat.to_list(), dtype=str)
    ends = np.cumsum(np.bincount(row, minlength=len(parts)))[:-1]
    return pd.Series(np.split(values, ends), dtype=object)


def suffix_of(source: Any) -> str:
    """``inter``, ``item`` and so on, for RecBole's source of a feature."""
    return source.value if isinstance(source, FeatureSource) else str(source)


class AtomicReading(DatasetMixin):
    """Mixin over a RecBole dataset: one reader for all files, of the columns that are needed.

    RecBole reads what ``load_col`` and ``unload_col`` say and stops where what it needs is not
    among it.  Here the columns that a dataset cannot do without, and those that ``val_interval``
    looks at, are read in any case.
    """

    of_sequences = False
    """Whether it is one of ours, to which some of RecBole's settings mean nothing."""

    @property
    def time_is_needed(self) -> bool:
        """Whether ``.inter`` must have times."""
        return self.of_sequences or puts_in_order(self.config)

    def _needed(self, suffix: str) -> dict[str, str]:
        """Columns without which the file is of no use, with their types."""
        names: list[str] = {
            "inter": [self.uid_field, self.iid_field],
            "user": [self.uid_field],
            "item": [self.iid_field],
        }.get(suffix, [])
        needed = {name: "token" for name in names if name}
        if suffix == "inter" and self.time_is_needed and self.time_field:
            needed[self.time_field] = "float"
        return needed

    def _kinds_of_id(self, suffix: str) -> Sequence[Sequence[str]]:
        """Columns of a file that are read as codes, those of one kind of id together."""
        return ()

    def _load_feat(self, filepath: str, source: Any) -> pd.DataFrame | None:
        suffix, layout = suffix_of(source), Layout.of(self.config)
        asked = Asked.of(self.config, suffix)
        if asked.nothing:
            return None
        needed = self._needed(suffix)
        types = check_atomic_file(filepath, needed, layout.separator, layout.encoding)
        asked.warn_of_absent(self.config, types, Path(filepath).name)
        columns = asked.columns(types, needed, Path(filepath).name)
        if not columns:
            return None
        wanted = {name: types[name] for name in columns}
        if kinds := self._kinds_of_id(suffix):
            frame = with_ids(filepath, wanted, needed, kinds, layout)
        else:
            frame = read_columns(filepath, wanted, layout)
        if suffix in ("user", "item"):  # of which RecBole drops later rows without a word
            of_id = self.uid_field if suffix == "user" else self.iid_field
            say_repeated(frame, str(of_id), suffix, Path(filepath).name, "describes")
        if suffix == "inter" and wanted.get(self.time_field) == "float":
            frame = self._in_order(frame, filepath, layout)
        self._note_fields(frame, source, types)
        return frame

    def _in_order(self, frame: pd.DataFrame, path: str, layout: Layout) -> pd.DataFrame:
        """Rows as in the file, or in the order of times that floats would not keep.

        RecBole makes ``float32`` of times before it sorts by them, which cannot tell seconds of
        the same two minutes apart.  Its sort is stable, so rows that are in order stay so.
        """
        times = frame[self.time_field]
        order = None
        if max(times.max(), -times.min()) >= EXACT:
            order = order_of(_texts(path, [str(self.time_field)], layout).to_series())
        elif self.time_is_needed and not self.of_sequences:
            order = order_in_float32(times.to_numpy())
        return frame if order is None else frame.iloc[order].reset_index(drop=True)

    def _note_fields(self, frame: pd.DataFrame, source: Any, types: Mapping[str, str]) -> None:
        """Field properties as RecBole notes them, and sequences cut to ``seq_len``."""
        lengths = self.config["seq_len"] or {}
        for name in frame.columns:
            if source == "link":
                continue
            kind = FeatureType(types[name])
            self.field2source[name], self.field2type[name] = source, kind
            if "float" in kind.value:
                self.field2bucketnum[name] = 2
            if not kind.value.endswith("seq"):
                self.field2seqlen[name] = 1
                continue
            longest = max(map(len, frame[name]), default=0)
            most = lengths.get(name, longest)
            if longest > most:
                frame[name] = [sequence[:most] for sequence in frame[name]]
            self.field2seqlen[name] = min(most, longest)


def say_repeated(frame: pd.DataFrame, column: str, what: str, file: str, does: str) -> np.ndarray:
    """Say how many rows have an id that an earlier row has, where the first row of each counts.

    Args:
        frame: the rows of a file.
        column: the ids.
        what: they are ids of, such as ``"item"``.
        file: the file's name.
        does: what a row does to an item, such as ``"links"``.

    Returns:
        Whether a row is such a one, ``bool [n]``.
    """
    repeated = frame.duplicated(column).to_numpy()
    if repeated.any():
        one = f"{'an' if what == 'item' else 'a'} {what}"
        example = shown(frame[column].iloc[int(repeated.argmax())])
        getLogger().warning(
            f"{file} has {counted(int(repeated.sum()), 'line')} of {one} that an earlier line "
            f"{does}, such as {example}; the first line of {one} counts."
        )
    return repeated


@dataclass(frozen=True)
class Asked:
    """What a configuration asks to be read of one file.

    Attributes:
        suffix: of the file.
        load: the columns of ``load_col``; all of them if ``None``.
        unload: the columns of ``unload_col``.
        used: columns that a filter of the configuration looks at.
    """

    suffix: str
    load: tuple[str, ...] | None
    unload: tuple[str, ...]
    used: tuple[str, ...]

    @classmethod
    def of(cls, config: Configuration, suffix: str) -> Asked:
        """What a configuration asks of the file with this suffix.

        Raises:
            UserError: ``load_col`` and ``unload_col`` both name columns of it.
        """
        load_col, unload_col = config["load_col"], config["unload_col"] or {}
        whole = load_col is None or (suffix in load_col and load_col[suffix] in ("*", None))
        load = None if whole else tuple(load_col.get(suffix, ()))
        unload = tuple(unload_col.get(suffix) or ())
        if load and unload:
            raise UserError(
                f"Config keys load_col and unload_col both name columns of .{suffix}; give one of "
                "them."
            )
        used = tuple(config["val_interval"] or {})
        if suffix not in ("user", "item"):
            return cls(suffix, load, unload, (*used, *(config["threshold"] or {})))
        if used:  # what the interactions have is looked at elsewhere only if it is loaded there
            of_inter = _columns_of_inter(config)
            used = tuple(name for name in used if name not in of_inter)
        return cls(suffix, load, unload, used)

    @property
    def nothing(self) -> bool:
        """Whether the file need not be looked at: as in RecBole, without a column to load."""
        needed = self.suffix in ("inter", "kg", "link") or self.used
        return self.load == () and not needed

    def columns(
        self,
        types: Mapping[str, str],
        needed: Iterable[str],
        file: str,
    ) -> list[str]:
        """The columns to read of a file, in the file's order.

        Args:
            types: all columns of the file.
            needed: columns without which the file is of no use.
            file: the file's name, for the sentences.

        Raises:
            UserError: ``unload_col`` names a column that is needed, or that a filter looks at.
        """
        used = set(self.used) & set(types)
        if lost := sorted(set(self.unload) & {*needed, *used}):
            raise UserError(
                f"Config key unload_col leaves out {shown(lost[0])} of {file}, which is needed; "
                "take it off the list."
            )
        asked = set(types if self.load is None else self.load) - set(self.unload)
        if self.load == () and self.suffix in ("user", "item") and not used:
            return []
        if added := sorted({*needed} & set(types) - asked) if self.load else []:
            getLogger().info(f"Read from {file} too, since it is needed: {', '.join(added)}.")
        wanted = asked | used | set(needed)
        return [name for name in types if name in wanted]

    def warn_of_absent(self, config: Configuration, types: Mapping[str, str], file: str) -> None:
        """Say which columns that the user names are not in a file.

        Args:
            config: the configuration.
            types: all columns of the file.
            file: its name.
        """
        key = "unload_col" if self.unload else "load_col"
        absent = sorted({*(self.load or ()), *self.unload} - set(types))
        if absent and key in config.external_config_dict:
            getLogger().warning(
                f"Config key {key} names {shown(', '.join(absent), 200)}, but {file} has "
                f"{shown(', '.join(types), 200)}."
            )


def warn_of_absent_columns(config: Configuration, name: str) -> None:
    """As :meth:`Asked.warn_of_absent`, of all files of a dataset that need not be read.

    Args:
        config: the configuration.
        name: of the dataset.
    """
    layout = Layout.of(config)
    for suffix in ("inter", "kg", "link"):
        path = atomic_path(config["data_path"], name, suffix)
        Asked.of(config, suffix).warn_of_absent(config, columns_of(path, layout), path.name)


def _columns_of_inter(config: Configuration) -> set[str]:
    """The columns of the interactions; of files that cannot be read, which loading says, none."""
    layout, found = Layout.of(config), set[str]()
    for path in layout.inter_paths(Path(config["data_path"]), config["dataset"]):
        with suppress(UserError):
            found |= columns_of(path, layout).keys()
    return found
