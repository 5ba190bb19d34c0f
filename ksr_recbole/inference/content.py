"""What a model directory holds, and whether all of it fits together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ksr_recbole.dataset.item_values import Facts
from ksr_recbole.errors import DamagedFileError
from ksr_recbole.records import Each, check_shape
from ksr_recbole.trainer.weights import not_finite


@dataclass(frozen=True)
class Histories:
    """All interactions of every user of the dataset, in the order of time.

    User ``u``'s are ``items[offsets[u]:offsets[u + 1]]``.

    Attributes:
        items: item ids, ``int32 [n_interactions]``.
        offsets: ``int64 [n_users + 1]``, ``n_users`` counting the padding user.
        starts: position of the first item that a model reads, 0 unless ``train_ratio`` left
            the earlier ones out, ``int32 [n_users]``.
    """

    items: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray

    def of(self, user: int) -> np.ndarray:
        """All items of a user, ``int64 [n]``."""
        return self.items[self.offsets[user] : self.offsets[user + 1]].astype(np.int64)


@dataclass(frozen=True)
class SavedModel:
    """What a model directory holds.

    Attributes:
        model: name of the model (``"KSR"``).
        about: what a reader may want to know: the dataset, its fingerprint, the best epoch.
        settings: the config values that the model is built with.
        tokens: by ``user`` and ``item``, and ``entity`` and ``relation`` where the model has a
            knowledge graph, the token of every id; id 0 is padding.
        weights: the state dict, item-entity map and attributes included.
        histories: all users' interactions.
        names: by ``item`` the title of every id, and by ``entity`` and ``attribute`` their names
            where the model has attributes.
        facts: what items have, with ``names``.
        digest: of the directory's files; empty before they are written.
    """

    model: str
    about: dict[str, Any]
    settings: dict[str, Any]
    tokens: dict[str, list[str]]
    weights: dict[str, Tensor]
    histories: Histories
    names: dict[str, list[str]]
    facts: Facts
    digest: str = ""


def check_saved(saved: SavedModel) -> None:
    """Make sure that tokens, weights, settings and histories are of one model.

    Whether the weights are those of the model is seen when it is built.

    Raises:
        DamagedFileError: naming what does not fit.
    """
    _check_tokens(saved.tokens, saved.weights)
    _check_histories(saved.histories, len(saved.tokens["user"]), len(saved.tokens["item"]))
    _check_finite(saved.settings, "config.json")
    _check_names(saved.names, saved.facts, saved.tokens, saved.weights)
    if name := not_finite(saved.weights):
        raise DamagedFileError(f"{name} among the weights is not finite")
    for name in _FIELDS:
        if not isinstance(saved.settings.get(name, ""), str):
            raise DamagedFileError(f"{name} in config.json is no text")


_FIELDS = (
    *("USER_ID_FIELD", "ITEM_ID_FIELD", "NEG_PREFIX", "LIST_SUFFIX", "ITEM_LIST_LENGTH_FIELD"),
    *("HEAD_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "ENTITY_ID_FIELD"),
)
"""Settings that are names of columns, or parts of such."""


def _check_tokens(tokens: Mapping[str, list[str]], weights: Mapping[str, Tensor]) -> None:
    check_shape(tokens, {"user": Each(str, list), "item": Each(str, list)}, "tokens.json")
    check_shape(tokens, Each(Each(str, list)), "tokens.json")
    _check_letters(tokens, "tokens.json")
    for kind in ("entity", "relation"):
        if f"{kind}_embedding.weight" in weights and kind not in tokens:
            raise DamagedFileError(f"tokens.json has no {kind}")
    for kind, each in tokens.items():
        rows = weights.get(f"{kind}_embedding.weight")
        if len(each) < 2:
            raise DamagedFileError(f"tokens.json has no token of {ascii(kind)[:40]}")
        if len(set(each)) < len(each):
            raise DamagedFileError(f"tokens.json has the same token of {ascii(kind)[:40]} twice")
        if rows is not None and rows.ndim and len(rows) != len(each):
            told = f"{len(each)} tokens of {kind} and {len(rows)} vectors"
            raise DamagedFileError(f"there are {told}")


def _check_letters(texts: Mapping[str, list[str]], name: str) -> None:
    """Half of a letter, which JSON can spell, cannot be written anywhere later."""
    for each in texts.values():
        try:
            "\n".join(each).encode()  # two halves next to each other make no letter
        except UnicodeEncodeError as error:
            raise DamagedFileError(
                f"{name} has an incomplete character (a lone surrogate)"
            ) from error


def _check_histories(histories: Histories, n_users: int, n_items: int) -> None:
    items, offsets, starts = histories.items, histories.offsets, histories.starts
    if len(offsets) != n_users + 1 or len(starts) != n_users:
        raise DamagedFileError(f"the histories are not of {n_users - 1} users")
    lengths = np.diff(offsets)
    whole = offsets[0] == 0 and offsets[-1] == len(items)
    if not whole or offsets.min() < 0 or lengths.min() < 0:
        raise DamagedFileError("the histories do not cover their items")
    if (starts < 0).any() or (starts > lengths).any():
        raise DamagedFileError("a history begins after its end")
    if len(items) and not (items.min() >= 1 and items.max() < n_items):
        raise DamagedFileError("the histories have items without tokens")


def _check_names(
    names: Mapping[str, list[str]],
    facts: Facts,
    tokens: Mapping[str, list[str]],
    weights: Mapping[str, Tensor],
) -> None:
    check_shape(names, Each(Each(str, list)), "names.json")
    _check_letters(names, "names.json")
    attributes = weights.get("attributes")
    n_attributes = 0 if attributes is None else attributes.numel()
    n_entities = len(tokens.get("entity", ())) if n_attributes else 0
    sizes = {"item": len(tokens["item"]), "entity": n_entities, "attribute": n_attributes}
    for kind, size in sizes.items():
        if len(names.get(kind, ())) != size:
            raise DamagedFileError(f"names.json does not name {size} of {kind}")
    if len({len(part) for part in vars(facts).values()}) != 1:
        raise DamagedFileError("the facts have parts of different lengths")
    rows = {"item": facts.items, "entity": facts.entities, "attribute": facts.attributes}
    for kind, ids in rows.items():
        least = 0 if kind == "attribute" else 1
        if len(ids) and not (ids.min() >= least and ids.max() < sizes[kind]):
            raise DamagedFileError(f"the facts have an {kind} without a name")


def _check_finite(value: Any, name: str, depth: int = 0) -> None:
    if depth > 5:
        raise DamagedFileError(f"{name} is nested too deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise DamagedFileError(f"{name} has a number that is not finite")
    inner = value.values() if isinstance(value, Mapping) else value
    if isinstance(value, Mapping | list):
        for each in inner:
            _check_finite(each, name, depth + 1)
