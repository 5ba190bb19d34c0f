"""Updates of those rows of a table that a step has read, for catalogues of many items.

A table of a million vectors has four gigabytes with Adam's means, and a step reads some thousand
rows of it.  Here a gradient is sparse, and rows without one stay as they are.  With Adagrad and
SGD that changes no result.  With Adam it is lazy (:mod:`ksr_recbole.lazy_adam`).
"""

from __future__ import annotations

from logging import getLogger

from torch import nn

from ksr_recbole.config.shared import MANY_ITEMS, SHARED_SAMPLE
from ksr_recbole.config_types import Configuration
from ksr_recbole.distributed.group import this_process

logger = getLogger(__name__)

_KNOWN = ("adam", "adagrad", "sgd")
"""Optimizers whose steps can leave rows out."""


def update_rows_alone(config: Configuration, model: nn.Module) -> bool:
    """Give a model's item vectors sparse gradients where they are many; says whether it does.

    The loss must be one that reads a sample of the items, and nothing may change every row in
    each step: weight decay, clipping by the norm, or an average of the weights.

    Args:
        config: the run's configuration.
        model: one of this package's models, whose trainer has no optimizer yet.
    """
    table = getattr(model, "item_embedding", None)
    if not isinstance(table, nn.Embedding) or table.num_embeddings <= MANY_ITEMS:
        return False
    if config["loss_type"] not in SHARED_SAMPLE or not table.weight.requires_grad:
        return False
    if config["learner"] not in _KNOWN:
        return False
    if config["device"].type == "cuda" and this_process().size > 1:
        return False  # NCCL sums no sparse gradients
    if config["weight_decay"] or config["clip_grad_norm"] or config["ema_decay"] is not None:
        return False
    table.sparse = True
    if config["learner"] == "adam":
        logger.info(
            f"The model has {table.num_embeddings - 1:,} items, so a step updates only the item "
            "vectors it reads (lazy Adam)."
        )
    return True
