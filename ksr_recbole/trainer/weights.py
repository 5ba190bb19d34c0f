"""Saved weights: what they say of a model's sizes, and whether they are those of a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ksr_recbole.errors import UserError

_ITEMS, _ENTITIES = "item_embedding.weight", "entity_embedding.weight"
_RELATIONS, _USERS = "relation_embedding.weight", "user_embedding.weight"

_VALUES = ("starts", "columns", "attributes", "entities")
"""Whole numbers of an exact memory."""

_LAYERS = ("num_layers", "score_mlp_layers", "query_mlp_layers")
"""Options that are numbers of layers, each of which has weights."""

_HIDDEN = 1 << 12
"""The most a model without a GRU may have as ``hidden_size``, which is of no effect on it."""

_SLOTS = 1 << 16
"""The most items that RUM's memory can hold; histories have a few thousand."""

_SPARE = 1 << 20
"""Numbers that a model may have besides those of its weights."""


def difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """In a few words, the first difference in name, type or shape, or ``None``.

    Args:
        found: weights by name.
        wanted: a model's state dict; its values do not matter.
    """
    for name, tensor in wanted.items():
        if name not in found:
            return f"{name} is missing"
        if _told(found[name]) != _told(tensor):
            return f"{name} is {_told(found[name])} instead of {_told(tensor)}"
    extra = found.keys() - wanted.keys()
    return f"it knows no {ascii(min(extra))[:80]}" if extra else None


@contextmanager
def no_larger_than(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """End the making of a model that is much larger than its weights, before it is filled.

    Twice their size is allowed, for tables that are made and then replaced.

    Raises:
        UserError: the model becomes larger.
    """
    left = 2 * sum(tensor.numel() for tensor in weights.values()) + _SPARE
    mine = threading.get_ident()

    def count(_: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        if parameter is None or threading.get_ident() != mine:
            return
        left -= parameter.numel()
        if left < 0:
            raise UserError(
                "The options describe a larger model than the one that was saved. Save the model "
                "again."
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def problem_in_sizes(
    weights: Mapping[str, Tensor], option_of: Callable[[str], Any], n_items: int, n_users: int
) -> str | None:
    """Why no model can be built of weights and options, or ``None``.

    Without this check, wrong options could build a very large model before the mistake is found.

    Args:
        weights: a state dict of a sequence model.
        option_of: gives an option's value, ``None`` for what the model does not have.
        n_items: number of items with the padding item.
        n_users: number of users with the padding user.
    """
    rows = {_ITEMS: n_items, _USERS: n_users}
    columns = {_ITEMS: "embedding_size"}
    columns |= dict.fromkeys((_ENTITIES, _RELATIONS), "kg_embedding_size")
    if _ITEMS not in weights:
        return f"{_ITEMS} is missing"
    for name in (_ITEMS, _USERS, _ENTITIES, _RELATIONS):
        tensor = weights.get(name)
        if tensor is None:
            continue
        if tensor.ndim != 2 or tensor.dtype != torch.float32:
            return f"{name} is {_told(tensor)}"
        if len(tensor) != rows.get(name, len(tensor)):
            return f"{name} has {len(tensor)} rows instead of {rows[name]}"
        key = columns.get(name)
        if key is not None and tensor.shape[1] != option_of(key):
            return f"{name} has {tensor.shape[1]} columns and {key} is {ascii(option_of(key))[:40]}"
    return (
        _problem_in_ids(weights, n_items)
        or _problem_in_values(weights, n_items)
        or _problem_in_layers(weights, option_of)
    )


def _problem_in_ids(weights: Mapping[str, Tensor], n_items: int) -> str | None:
    """Whether the ids among the weights are ids of what there are vectors of."""
    for name, table, size in (
        ("item_entities", _ENTITIES, n_items),
        ("attributes", _RELATIONS, None),
    ):
        ids = weights.get(name)
        if ids is None:
            continue
        if table not in weights:
            return f"{table} is missing"
        if ids.dtype != torch.int64 or ids.ndim != 1 or size not in (None, len(ids)):
            return f"{name} is {_told(ids)}"
        if len(ids) == 0:
            return f"{name} is empty"
        if not (ids.min() >= 0 and ids.max() < len(weights[table])):
            return f"{name} has ids that {table} has no rows of"
    return None


def _problem_in_values(weights: Mapping[str, Tensor], n_items: int) -> str | None:
    """Whether an exact memory reads what it has: its kernels do not look at bounds."""
    named = {name: weights[f"exact.{name}"] for name in _VALUES if f"exact.{name}" in weights}
    if not named:
        return None
    if missing := [
        name for name in (*_VALUES, "value_weights", "weights") if f"exact.{name}" not in weights
    ]:
        return f"exact.{missing[0]} is missing"
    for name, part in named.items():
        if part.dtype != torch.int64 or part.ndim != 1 or len(part) == 0:
            return f"exact.{name} is {_told(part)}"
    starts, columns, attributes, entities = named.values()
    numbers, table = weights["exact.value_weights"], weights["exact.weights"]
    size, n_entities = len(attributes), len(weights.get(_ENTITIES, ()))
    fits = len(entities) == size and numbers.shape == (size,) and table.ndim == 2
    if not fits or numbers.dtype != torch.float32 or len(starts) != n_items + 1:
        return "the parts of exact do not fit together"
    for name, part, below in (
        ("columns", columns, size),
        ("attributes", attributes, table.shape[1]),
        ("entities", entities, n_entities),
        ("starts", starts, len(columns) + 1),
    ):
        if not (part.min() >= 0 and part.max() < below):
            return f"exact.{name} has numbers outside of what they count"
    rises = bool((starts.diff() >= 0).all()) and bool((attributes.diff() >= 0).all())
    if not rises or starts[0] != 0 or starts[-1] != len(columns):
        return "exact.starts or exact.attributes do not rise as they must"
    return None


def _problem_in_layers(
    weights: Mapping[str, Tensor], option_of: Callable[[str], Any]
) -> str | None:
    recurrent, hidden = weights.get("gru.weight_hh_l0"), option_of("hidden_size")
    sizes = [3 * hidden, hidden] if isinstance(hidden, int) else None
    if recurrent is not None and list(recurrent.shape) != sizes:
        return f"gru.weight_hh_l0 is {_told(recurrent)} and hidden_size is {ascii(hidden)[:40]}"
    most = {**dict.fromkeys(_LAYERS, len(weights)), "memory_slots": _SLOTS}
    if recurrent is None:
        most["hidden_size"] = _HIDDEN
    for key, limit in most.items():
        value = option_of(key)
        if isinstance(value, int | float) and value > limit:
            return f"{key} is {ascii(value)[:40]}, more than they can have"
    return None


def not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or infinity, or ``None``."""
    for name, tensor in weights.items():
        # Of numbers of 8 bits PyTorch does not tell it.
        numbers = tensor if tensor.element_size() > 1 else tensor.float()
        if tensor.is_floating_point() and not numbers.isfinite().all():
            return ascii(name)[1:-1][:80]
    return None


def _told(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
