"""Loaded datasets as arrays for the cache."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.utils import FeatureSource, FeatureType

from ksr_recbole import digests
from ksr_recbole.cache import compact, widened
from ksr_recbole.config.evaluation_keys import puts_in_order
from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.funnel import DataFunnel
from ksr_recbole.dataset.loading import SETTINGS, Asked
from ksr_recbole.dataset.tokens import first_items
from ksr_recbole.errors import DamagedFileError

_FORMAT = 5
_FRAMES = ("inter_feat", "kg_feat")
_FEATURE_FIELDS = ("field2type", "field2source", "field2seqlen", "field2bucketnum")


def cache_parts(config: Configuration, name: str, of_sequences: bool) -> dict[str, Any]:
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
    return parts if of_sequences else {**parts, "of": "RecBole", "order": puts_in_order(config)}


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
    dataset.entity2item = first_items(dataset.item2entity)
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
