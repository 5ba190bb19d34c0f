"""Atomic files as data frames, and loaded datasets as arrays for the cache.

RecBole reads atomic files with Pandas' Python parser, which makes a Python object of every
cell.  :func:`read_columns` reads them with Polars, one object for each different token, and
:func:`with_ids` makes codes of the ids.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
from recbole.utils import FeatureSource, FeatureType, dataset_arguments

from dataset_atomic.atomic import RECBOLES, atomic_path, read_ids, scan_checked
from dataset_atomic.atomic_files import check_atomic_file, columns_of
from dataset_atomic.layout import Layout
from dataset_atomic.lines import EXACT, MISSING, first_true
from ksr_recbole import digests
from ksr_recbole.cache import DamagedFileError, compact, widened
from ksr_recbole.dataset.funnel import DataFunnel
from ksr_recbole.dataset.tokens import as_categoricals
from ksr_recbole.errors import UserError, shown

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

_FORMAT = 4
_FRAMES = ("inter_feat", "kg_feat")
_FEATURE_FIELDS = ("field2type", "field2source", "field2seqlen", "field2bucketnum")


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
    layout: Layout = RECBOLES,
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


class AtomicReading:
    """Mixin over a RecBole dataset: one reader for all files, of the columns that are needed.

    RecBole reads what ``load_col`` and ``unload_col`` say and stops where what it needs is not
    among it.  Here the columns that a dataset cannot do without, and those that ``val_interval``
    looks at, are read in any case.
    """

    time_is_needed = False
    """Whether ``.inter`` must have times."""

    if TYPE_CHECKING:  # what RecBole's Dataset, which this class is mixed into, provides
        config: Any
        uid_field: Any
        iid_field: Any
        time_field: Any
        field2source: dict[str, Any]
        field2type: dict[str, FeatureType]
        field2seqlen: dict[str, int]
        field2bucketnum: dict[str, int]

    def _needed(self, suffix: str) -> dict[str, str]:
        """Columns without which the file is of no use, with their types."""
        names: list[str | None] = {
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
        # A time that is not needed is still what rows are put into order by.
        also = [*needed, *([self.time_field] if suffix == "inter" and self.time_field else [])]
        asked.warn_of_absent(self.config, types, Path(filepath).name)
        columns = asked.columns(types, needed, also, Path(filepath).name)
        if not columns:
            return None
        wanted = {name: types[name] for name in columns}
        if kinds := self._kinds_of_id(suffix):
            frame = with_ids(filepath, wanted, needed, kinds, layout)
        else:
            frame = read_columns(filepath, wanted, layout)
        if suffix == "inter" and wanted.get(self.time_field) == "float":
            frame = self._in_order(frame, filepath, layout)
        self._note_fields(frame, source, types)
        return frame

    def _in_order(self, frame: pd.DataFrame, path: str, layout: Layout) -> pd.DataFrame:
        """Rows as in the file, or in the order of times that floats would not keep."""
        times = frame[self.time_field]
        if not max(times.max(), -times.min()) >= EXACT:
            return frame
        order = order_of(_texts(path, [str(self.time_field)], layout).to_series())
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


@dataclass(frozen=True)
class Asked:
    """What a configuration asks to be read of one file.

    Attributes:
        suffix: of the file.
        load: the columns of ``load_col``; all of them if ``None``.
        unload: the columns of ``unload_col``.
        used: columns that a filter of the configuration looks at.
        ids: whether the ids are needed, though no column is asked for.
    """

    suffix: str
    load: tuple[str, ...] | None
    unload: tuple[str, ...]
    used: tuple[str, ...]
    ids: bool

    @classmethod
    def of(cls, config: Any, suffix: str) -> Asked:
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
            return cls(suffix, load, unload, (*used, *(config["threshold"] or {})), False)
        if load == () and used:  # what the interactions have is looked at there alone
            elsewhere = _columns_of_inter(config)
            used = tuple(name for name in used if name not in elsewhere)
        # As in RecBole: without a word in load_col the file is not there.
        named = load_col is None or suffix in load_col
        ids = named and bool(config["filter_inter_by_user_or_item"])
        return cls(suffix, load, unload, used, ids)

    @property
    def nothing(self) -> bool:
        """Whether the file need not be looked at."""
        needed = self.suffix in ("inter", "kg", "link") or self.ids or self.used
        return self.load == () and not needed

    def columns(
        self,
        types: Mapping[str, str],
        needed: Iterable[str],
        also: Iterable[str],
        file: str,
    ) -> list[str]:
        """The columns to read of a file, in the file's order.

        Args:
            types: all columns of the file.
            needed: columns without which the file is of no use.
            also: what is read in any case where the file has it.
            file: the file's name, for the sentences.

        Raises:
            UserError: ``unload_col`` names a needed column.
        """
        if lost := sorted(set(self.unload) & set(needed)):
            raise UserError(
                f"Config key unload_col leaves out {lost[0]} of {file}, which is needed; take it "
                "off the list."
            )
        asked = set(types if self.load is None else self.load) - set(self.unload)
        used = set(self.used) & set(types)
        if self.load == () and self.suffix in ("user", "item") and not (self.ids or used):
            return []
        if added := sorted(set(also) & set(types) - asked) if self.load else []:
            getLogger().info(f"Read from {file} too, since it is needed: {', '.join(added)}.")
        wanted = asked | used | set(also)
        return [name for name in types if name in wanted]

    def warn_of_absent(self, config: Any, types: Mapping[str, str], file: str) -> None:
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


def warn_of_absent_columns(config: Any, name: str) -> None:
    """As :meth:`Asked.warn_of_absent`, of all files of a dataset that need not be read.

    Args:
        config: the configuration.
        name: of the dataset.
    """
    layout = Layout.of(config)
    for suffix in ("inter", "kg", "link"):
        path = atomic_path(config["data_path"], name, suffix)
        Asked.of(config, suffix).warn_of_absent(config, columns_of(path, layout), path.name)


def _columns_of_inter(config: Any) -> set[str]:
    """The columns of the interactions; of files that cannot be read, which loading says, none."""
    layout, found = Layout.of(config), set[str]()
    for path in layout.inter_paths(Path(config["data_path"]), config["dataset"]):
        with suppress(UserError):
            found |= columns_of(path, layout).keys()
    return found


# The cache ------------------------------------------------------------------------------------


def cache_parts(config: Any, name: str, of_sequences: bool) -> dict[str, Any]:
    """What the content of a loaded dataset depends on: the files' bytes and the settings.

    Args:
        config: the configuration.
        name: of the dataset.
        of_sequences: whether it is one of ours, to which some of RecBole's settings mean nothing.
    """
    folder = Path(config["data_path"])
    files = {s: digests.of_file_once(folder / f"{name}.{s}") for s in ("inter", "kg", "link")}
    for suffix in ("user", "item"):  # in some configurations they are filters
        path = folder / f"{name}.{suffix}"
        if path.is_file() and not Asked.of(config, suffix).nothing:
            files[suffix] = digests.of_file_once(path)
    settings = {key: repr(config[key]) for key in SETTINGS}
    parts = {"format": _FORMAT, "files": files, "settings": settings}
    return parts if of_sequences else {**parts, "of": "RecBole"}


def is_plain(dataset: Any) -> bool:
    """Whether a dataset is one that :func:`to_arrays` takes: numbers alone, no sequences."""
    if dataset.user_feat is not None or dataset.item_feat is not None:
        return False
    try:
        _check_frames(dataset, needs_time=False)
    except ValueError:  # sequences, or tokens that some rows lack
        return False
    return True


def to_arrays(dataset: Any) -> dict[str, np.ndarray]:
    """A loaded dataset of which :func:`is_plain` is true, as named arrays."""
    arrays: dict[str, np.ndarray] = {"item_entities": dataset.item_entities}
    for name in _FRAMES:
        for field, column in getattr(dataset, name).items():
            arrays[f"{name}.{field}"] = compact(column.to_numpy())
    stored: list[Any] = []
    tokens = {}
    for field, array in dataset.field2id_token.items():
        # Fields of one alias share their tokens.
        same = [k for k, other in enumerate(stored) if other is array]
        tokens[field] = same[0] if same else len(stored)
        if not same:
            arrays[f"tokens.{len(stored)}"] = _packed(array.tolist())
            stored.append(array)
    arrays["links"] = _packed([token for pair in dataset.item2entity.items() for token in pair])
    meta: dict[str, Any] = {"tokens": tokens}
    meta |= {name: _in_json(getattr(dataset, name)) for name in _FEATURE_FIELDS}
    meta["alias"] = {name: list(fields) for name, fields in dataset.alias.items()}
    meta["rest"] = list(dataset._rest_fields)
    meta["funnel"] = asdict(dataset.funnel)
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    return arrays


def restore(dataset: Any, arrays: Mapping[str, np.ndarray], needs_time: bool) -> None:
    """Give a dataset without content the one that :func:`to_arrays` took from its like.

    Args:
        dataset: the dataset.
        arrays: what was taken.
        needs_time: whether its interactions must have times.

    Raises:
        DamagedFileError: the arrays are not those of a dataset; it has to be loaded then.
    """
    try:
        _restore(dataset, arrays)
        _check_frames(dataset, needs_time)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DamagedFileError("it does not hold the arrays of a dataset") from error


def _check_frames(dataset: Any, needs_time: bool) -> None:
    """Whether everything that has an id has a token and an entity, and every time is a number."""
    triple = (dataset.head_entity_field, dataset.relation_field, dataset.tail_entity_field)
    user_item = (dataset.uid_field, dataset.iid_field)
    of_inter = (*user_item, dataset.time_field) if needs_time else user_item
    needed = ((dataset.inter_feat, of_inter), (dataset.kg_feat, triple))
    if not {*user_item, *triple} <= dataset.field2id_token.keys():
        raise ValueError("tokens")
    for frame, fields in needed:
        if not {*fields} <= {*frame.columns}:
            raise ValueError("fields")
        for field, column in frame.items():
            tokens, kind = dataset.field2id_token.get(field), column.dtype.kind
            if kind not in "iuf" or (tokens is not None and kind == "f"):
                raise ValueError(field)
            if tokens is not None:
                _check_ids(column.to_numpy(), len(tokens))
    n_items, n_entities = (
        len(dataset.field2id_token[field]) for field in (dataset.iid_field, dataset.entity_field)
    )
    if dataset.item_entities.shape != (n_items,) or dataset.item_entities.dtype.kind not in "iu":
        raise ValueError("item_entities")
    _check_ids(dataset.item_entities, n_entities)


def _check_ids(ids: np.ndarray, size: int) -> None:
    if len(ids) and not (ids.min() >= 0 and ids.max() < size):
        raise ValueError("ids")


def _restore(dataset: Any, arrays: Mapping[str, np.ndarray]) -> None:
    meta = json.loads(arrays["meta"].tobytes())
    for name in _FRAMES:
        fields = [key.removeprefix(f"{name}.") for key in arrays if key.startswith(f"{name}.")]
        columns = {field: widened(arrays[f"{name}.{field}"]) for field in fields}
        order = [field for field in meta["field2type"] if field in columns]
        setattr(dataset, name, pd.DataFrame(columns, columns=order))
    dataset.user_feat = dataset.item_feat = None
    dataset.feat_name_list = list(_FRAMES)
    dataset.item_entities = arrays["item_entities"]
    stored = {k: np.array(_unpacked(arrays[f"tokens.{k}"])) for k in {*meta["tokens"].values()}}
    dataset.field2id_token |= {field: stored[k] for field, k in meta["tokens"].items()}
    pairs = _unpacked(arrays["links"])
    dataset.item2entity = dict(zip(pairs[::2], pairs[1::2], strict=True))
    dataset.entity2item = {}
    for item, entity in dataset.item2entity.items():
        dataset.entity2item.setdefault(entity, item)
    dataset.field2type = {k: FeatureType(v) for k, v in meta["field2type"].items()}
    dataset.field2source = {k: FeatureSource(v) for k, v in meta["field2source"].items()}
    dataset.field2seqlen = meta["field2seqlen"]
    dataset.field2bucketnum = meta["field2bucketnum"]
    dataset.alias = {name: np.array(fields) for name, fields in meta["alias"].items()}
    dataset._rest_fields = np.array(meta["rest"])
    dataset.funnel = DataFunnel.from_json(meta["funnel"])


def _packed(tokens: Iterable[str]) -> np.ndarray:
    # A token cannot hold a line end: it came from a line of a file.
    return np.frombuffer("\n".join(tokens).encode(), np.uint8)


def _unpacked(data: np.ndarray) -> list[str]:
    return data.tobytes().decode().split("\n")


def _in_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, "value", value) for name, value in fields.items()}
