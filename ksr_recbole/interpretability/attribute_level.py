"""Attribute level (Sec. 5.4): does the next item follow the attribute of largest attention?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from ksr_recbole.dataset.sequences import Split, UserSequences
from ksr_recbole.explanation.value_entities import ValueEntities
from ksr_recbole.interpretability.cases import Cases, items_before

WINDOWS = (1, 10)
"""Items before the test item that it may agree with: the previous one, any of the last ten."""
CHOICES = ("attention", "majority", "chance", "any")
"""By what an attribute is chosen: the largest attention, what agrees most often in training, at
random; ``any`` is whether there is an attribute to be chosen at all."""


def attribute_level(
    entities: ValueEntities, cases: Cases, weights: np.ndarray, names: list[str]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Agreement of the items with the histories on the attribute of largest attention.

    Args:
        entities: the value entities.
        cases: the items.
        weights: each user's attention before them, ``float64 [U, A]``.
        names: the attributes' names.

    Returns:
        The figures as JSON values, and every user's, ``float64 [U]``.
    """
    chosen = weights.argmax(axis=1)
    told: dict[str, Any] = {
        "largest": _by_name(names, np.bincount(chosen, minlength=len(names)) / len(chosen)),
        "mean_weight": _by_name(names, weights.mean(axis=0)),
    }
    arrays = {"attention/users": cases.users}
    overall: dict[str, dict[str, float]] = {choice: {} for choice in CHOICES}
    for window in WINDOWS:
        metric = f"agreement@{window}"
        before = items_before(
            cases.sequences, cases.users, np.maximum(cases.starts, cases.ends - window), cases.ends
        )
        agrees = agreement(entities, cases.items, before[cases.owners])
        training = training_agreement(entities, cases.sequences, cases.split, window)
        found = _by_choice(cases, agrees, chosen[cases.owners], int(training.argmax()))
        for choice, values in found.items():
            arrays[f"attention/{choice}/{metric}"] = values
            overall[choice][metric] = float(values.mean())
        per_attribute = [float(cases.per_user(column).mean()) for column in agrees.T]
        told[metric] = {
            "majority": names[training.argmax()],
            "test": _by_name(names, per_attribute),
            "training": _by_name(names, training),
        }
    return {"overall": overall, **told}, arrays


def _by_choice(
    cases: Cases, agrees: np.ndarray, chosen: np.ndarray, majority: int
) -> dict[str, np.ndarray]:
    """Each user's agreement on the attribute chosen in each way, ``float64 [U]``.

    Args:
        cases: the items.
        agrees: ``bool [P, A]``.
        chosen: the attribute of largest attention before each item, ``int64 [P]``.
        majority: the attribute that agrees most often in training.
    """
    of_items = {
        "attention": agrees[np.arange(len(chosen)), chosen],
        "majority": agrees[:, majority],
        "chance": agrees.mean(axis=1),
        "any": agrees.any(axis=1),
    }
    return {choice: cases.per_user(of_items[choice]) for choice in CHOICES}


def _by_name(names: list[str], values: Any) -> Mapping[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


_ROWS = 1 << 15
"""Rows of training interactions looked at together, which bounds the memory."""


def agreement(entities: ValueEntities, items: np.ndarray, before: csr_matrix) -> np.ndarray:
    """Whether ``items[k]`` shares an entity with an item of row ``k``, by attribute.

    Args:
        entities: the value entities.
        items: item ids, ``int64 [N]``.
        before: from :func:`items_before`, ``[N, n_items]``.

    Returns:
        ``bool [N, A]``; an item without entities on an attribute agrees on it with none.
    """
    columns = [
        (before @ of_items).multiply(of_items[items]).tocsr().getnnz(axis=1) > 0
        for of_items in entities.of_items
    ]
    return np.stack(columns, axis=1)


def training_agreement(
    entities: ValueEntities, sequences: UserSequences, split: Split, window: int
) -> np.ndarray:
    """How often training items agree with one of the ``window`` before them, ``float64 [A]``.

    Over all training interactions but each user's first; nothing else is looked at.
    """
    indices, users = split.training_interactions(sequences)
    position, start = indices - sequences.offsets[users], split.train_start[users]
    later = position > start
    indices, users, position, start = (x[later] for x in (indices, users, position, start))
    begin = np.maximum(start, position - window)
    agreeing = np.zeros(len(entities.attributes))
    for first in range(0, len(indices), _ROWS):
        part = slice(first, first + _ROWS)
        before = items_before(sequences, users[part], begin[part], position[part])
        agreeing += agreement(entities, sequences.items[indices[part]], before).sum(axis=0)
    return agreeing / max(len(indices), 1)  # nobody may have two
