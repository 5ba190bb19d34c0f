"""Atomic files as data frames, and loaded datasets as arrays for the cache.

RecBole reads atomic files with Pandas' Python parser, which makes a Python object of every
cell.  :func:`read_columns` reads them with Polars, one object for each different token.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from recbole.utils import FeatureSource, FeatureType, dataset_arguments

from ksr_recbole.cache import DamagedFileError, compact, widened
from ksr_recbole.dataset.funnel import DataFunnel
from ksr_recbole.files import open_regular, sha256_of

SETTINGS = (
    *dataset_arguments,
    "encoding",
    "kg_reverse_r",
    "entity_kg_num_interval",
    "relation_kg_num_interval",
)
"""Config keys that decide what RecBole makes of the atomic files."""

_FORMAT = 2
_FRAMES = ("inter_feat", "kg_feat")
_FEATURE_FIELDS = ("field2type", "field2source", "field2seqlen", "field2bucketnum")


def read_columns(path: str | os.PathLike[str], types: Mapping[str, str], separator: str) -> Any:
    """Columns of an atomic file.

    Args:
        path: the file.
        types: type of each column wanted, ``token`` or ``float``.
        separator: RecBole's ``field_separator``.

    Returns:
        A ``pandas.DataFrame`` with one column for each of ``types``; tokens as Python strings.

    Raises:
        polars.exceptions.PolarsError: Polars cannot read the file, though Pandas perhaps can.
    """
    names = {f"{name}:{kind}": name for name, kind in types.items()}
    schema = {c: pl.Float64 if c.endswith(":float") else pl.String for c in names}
    frame = pl.read_csv(path, separator=separator, columns=list(names), schema_overrides=schema)
    # Polars makes rows of blank lines at the end of a file.
    frame = frame.filter(pl.any_horizontal(pl.all().is_not_null()))
    columns = {name: _as_numpy(frame[column]) for column, name in names.items()}
    return pd.DataFrame(columns, columns=list(types))


def _as_numpy(column: pl.Series) -> np.ndarray:
    if column.dtype != pl.String:
        return column.to_numpy()
    tokens = column.drop_nulls().unique(maintain_order=True)
    codes = column.cast(pl.Enum(tokens)).to_physical().cast(pl.Int64).fill_null(len(tokens))
    return np.array([*tokens.to_list(), np.nan], dtype=object)[codes.to_numpy()]


class WithPolars:
    """Mixin over a RecBole dataset that reads its files with :func:`read_columns`."""

    def _load_feat(self, filepath: str, source: Any) -> Any:
        """As RecBole's, many times faster where all columns are tokens or numbers."""
        separator = self.config["field_separator"]
        with TextIOWrapper(open_regular(filepath), encoding=self.config["encoding"]) as file:
            header = file.readline()
        if "_seq" in header:
            return super()._load_feat(filepath, source)
        with tempfile.TemporaryDirectory() as folder:
            # RecBole notes the fields and their types from a file that is all header.
            empty = Path(folder) / Path(filepath).name
            empty.write_text(header, encoding=self.config["encoding"])
            frame = super()._load_feat(str(empty), source)
        if frame is None:
            return None
        kinds = dict(column.split(":") for column in header.rstrip("\r\n").split(separator))
        try:
            return read_columns(filepath, {name: kinds[name] for name in frame.columns}, separator)
        except pl.exceptions.PolarsError:
            return super()._load_feat(filepath, source)


# The cache ------------------------------------------------------------------------------------


def cache_parts(config: Any, name: str) -> dict[str, Any]:
    """What the content of a loaded dataset depends on: the files' bytes and the settings."""
    folder = Path(config["data_path"])
    digests = {s: sha256_of(folder / f"{name}.{s}") for s in ("inter", "kg", "link")}
    settings = {key: repr(config[key]) for key in SETTINGS}
    return {"format": _FORMAT, "files": digests, "settings": settings}


def to_arrays(dataset: Any) -> dict[str, np.ndarray]:
    """A loaded dataset that has interactions, triples and links only, as named arrays."""
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
            arrays[f"tokens.{len(stored)}"] = _packed(array)
            stored.append(array)
    arrays["links"] = _packed([token for pair in dataset.item2entity.items() for token in pair])
    meta: dict[str, Any] = {"tokens": tokens}
    meta |= {name: _in_json(getattr(dataset, name)) for name in _FEATURE_FIELDS}
    meta["alias"] = {name: list(fields) for name, fields in dataset.alias.items()}
    meta["rest"] = list(dataset._rest_fields)
    meta["funnel"] = asdict(dataset.funnel)
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    return arrays


def restore(dataset: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Give a dataset without content the one that :func:`to_arrays` took from its like.

    Raises:
        DamagedFileError: the arrays are not those of a dataset; it has to be loaded then.
    """
    try:
        _restore(dataset, arrays)
        _check_frames(dataset)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DamagedFileError("it does not hold the arrays of a dataset") from error


def _check_frames(dataset: Any) -> None:
    """Whether everything that has an id has a token and an entity, and every time is a number."""
    triple = (dataset.head_entity_field, dataset.relation_field, dataset.tail_entity_field)
    user_item = (dataset.uid_field, dataset.iid_field)
    needed = ((dataset.inter_feat, (*user_item, dataset.time_field)), (dataset.kg_feat, triple))
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
    stored = {k: _unpacked(arrays[f"tokens.{k}"]) for k in set(meta["tokens"].values())}
    ids = {k: {token: n for n, token in enumerate(tokens)} for k, tokens in stored.items()}
    as_arrays = {k: np.array(tokens) for k, tokens in stored.items()}
    dataset.field2id_token = {field: as_arrays[k] for field, k in meta["tokens"].items()}
    dataset.field2token_id = {field: ids[k] for field, k in meta["tokens"].items()}
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


def _packed(tokens: Any) -> np.ndarray:
    # A token cannot hold a line end: it came from a line of a file.
    return np.frombuffer("\n".join(map(str, tokens)).encode(), np.uint8)


def _unpacked(data: np.ndarray) -> list[str]:
    return data.tobytes().decode().split("\n")


def _in_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, "value", value) for name, value in fields.items()}
