"""Whether a model fits into memory, before any of it is taken."""

from __future__ import annotations

import os
from typing import Any

from ksr_recbole.errors import UserError

_COPIES = 4
"""Of each weight: itself, its gradient and the two means that Adam keeps."""

_SIZES = ("embedding_size", "mf_embedding_size", "mlp_embedding_size", "kg_embedding_size")


def check_memory(config: Any, dataset: Any) -> None:
    """Refuse sizes with which the weights alone do not fit.

    What else a run needs is not counted, so that one which passes may still be too large.

    Raises:
        UserError: naming the sizes.
    """
    needed, here = 4 * _COPIES * n_weights(config, dataset), _bytes_of_memory()
    if here is not None and needed > here:
        sizes = {key: config[key] for key in (*_SIZES, "hidden_size", "num_layers")}
        told = ", ".join(f"{key} {value}" for key, value in sizes.items() if value is not None)
        raise UserError(
            f"The weights of {config['model']} with {told} need {needed / 2**30:,.1f} GiB to "
            f"train, but this machine has {here / 2**30:,.1f} GiB; give smaller sizes."
        )


def n_weights(config: Any, dataset: Any) -> int:
    """Weights of the tables of vectors and of the GRU, at least."""
    rows = dataset.item_num + dataset.user_num
    entities = getattr(dataset, "entity_num", 0)
    item, *_, kg = (config[key] or 0 for key in _SIZES)
    others = sum(config[key] or 0 for key in _SIZES[1:3])
    hidden, layers = config["hidden_size"] or 0, config["num_layers"] or 1
    tables = dataset.item_num * item + rows * others + entities * kg
    if config["kge_method"] == "TransR" and hasattr(dataset, "relation_num"):
        tables += dataset.relation_num * kg * kg  # a matrix for each relation
    return tables + 3 * layers * hidden * (hidden + item) + hidden * kg


def _bytes_of_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system
        return None
