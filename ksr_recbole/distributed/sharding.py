"""Dealing the rows of a batch out to the processes of a run.

Every process makes the same batch, negatives included, from the same seed and keeps its share.
So the shares together are the batch of a run in one process, and the sum of their gradients is
its gradient.
"""

from __future__ import annotations

import numpy as np
import torch
from recbole.data.interaction import Interaction

from ksr_recbole.distributed.group import this_process

WEIGHT = "share_weight"
"""Field of a share: what its loss is multiplied by, before losses are added up; ``[B]``."""


def owners(n_rows: int) -> np.ndarray:
    """The process that each row of a batch belongs to.

    Rows are dealt there and back (0, 1, 2, 2, 1, 0, 0, ...).  Where they stand in order of
    falling length, as a batch of sequences does, every process gets nearly the same number of
    targets, also of those in the later pieces of long sequences.

    Args:
        n_rows: rows of the batch.

    Returns:
        ``int64 [n_rows]``.
    """
    n_processes = this_process().size
    turn = np.arange(n_rows) % (2 * n_processes)
    return np.minimum(turn, 2 * n_processes - 1 - turn)


def share_of_sum(batch: Interaction, owner: np.ndarray) -> Interaction:
    """This process's rows of a batch whose loss is a sum over rows.

    A process without a row gets the first one with weight 0: it must take part in adding up the
    gradients, and of the same parameters as the others.

    Args:
        batch: the whole batch, the same in every process.
        owner: process of each row, ``int64 [len(batch)]``.
    """
    if this_process().size == 1:
        return batch
    rows = np.flatnonzero(owner == this_process().rank)
    return _share(batch, rows, weight=1.0)


def share_of_mean(batch: Interaction) -> Interaction:
    """This process's rows of a batch whose loss is a mean over rows.

    Its weight is its part of the batch, so that shares of unequal size add up to the mean.
    """
    if this_process().size == 1:
        return batch
    rows = np.flatnonzero(owners(len(batch)) == this_process().rank)
    return _share(batch, rows, weight=len(rows) / len(batch))


def rows_of(interactions: Interaction, rows: np.ndarray | torch.Tensor) -> Interaction:
    """Some rows; ``interactions[rows]`` would make a list of all their numbers."""
    index = torch.as_tensor(rows)
    return Interaction({name: interactions[name][index] for name in interactions})


def _share(batch: Interaction, rows: np.ndarray, weight: float) -> Interaction:
    if len(rows) == 0:
        rows, weight = np.zeros(1, np.int64), 0.0
    share = rows_of(batch, rows)
    share.update(Interaction({WEIGHT: torch.full((len(rows),), weight)}))
    return share
