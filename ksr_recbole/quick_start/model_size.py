"""Whether a model fits into memory, and a sentence for a GPU whose memory ends later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch

from ksr_recbole.config_types import Configuration
from ksr_recbole.errors import UserError

_COPIES = 4
"""Of each weight: itself, its gradient and the two means that Adam keeps."""

_SIZES = ("embedding_size", "mf_embedding_size", "mlp_embedding_size", "kg_embedding_size")


def check_memory(config: Configuration, dataset: Any) -> None:
    """Refuse sizes with which the weights alone do not fit.

    What else a run needs is not counted, so that one which passes may still be too large.

    Raises:
        UserError: naming the sizes.
    """
    device = config["device"]
    needed, here = 4 * _COPIES * n_weights(config, dataset), _bytes_of_memory(device)
    if needed > here:
        sizes = {key: config[key] for key in (*_SIZES, "hidden_size", "num_layers")}
        told = ", ".join(f"{key} {value}" for key, value in sizes.items() if value is not None)
        where = "GPU" if device.type == "cuda" else "machine"
        raise UserError(
            f"The weights of {config['model']} with {told} need {needed / 2**30:,.1f} GiB to "
            f"train, but this {where} has {here / 2**30:,.1f} GiB; give smaller sizes."
        )


def n_weights(config: Configuration, dataset: Any) -> int:
    """Weights of the tables of vectors and of the GRU, at least."""
    rows = dataset.item_num + dataset.user_num
    entities = getattr(dataset, "entity_num", 0)
    size = {key: config[key] or 0 for key in _SIZES}
    item, kg = size["embedding_size"], size["kg_embedding_size"]
    others = size["mf_embedding_size"] + size["mlp_embedding_size"]
    hidden, layers = config["hidden_size"] or 0, config["num_layers"] or 1
    tables = dataset.item_num * item + rows * others + entities * kg
    if config["kge_method"] == "TransR" and hasattr(dataset, "relation_num"):
        tables += dataset.relation_num * kg * kg  # a matrix for each relation
    return tables + 3 * layers * hidden * (hidden + item) + hidden * kg


def _bytes_of_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return psutil.virtual_memory().total


@contextmanager
def naming_full_gpu() -> Iterator[None]:
    """A block in which a full GPU is an error with what to do.

    Raises:
        UserError: its memory ended inside the block.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            "The memory of the GPU is full; give a smaller train_batch_size or eval_batch_size, "
            "or end what else runs on it (nvidia-smi shows it)."
        ) from error
