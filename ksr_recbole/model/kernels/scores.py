"""Inner products of users with a few items each, Eq. 10, without copying the items' vectors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ksr_recbole.model.kernels.fused import fused


def sampled_scores(users: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """Scores of each user's items, Eq. 10.

    Args:
        users: user vectors, ``[P, d]``.
        table: item vectors, ``[m, d]``.
        items: rows of ``table`` for each user, ``int64 [P, N]``.

    Returns:
        ``[P, N]``.

    Raises:
        IndexError: one of ``items`` is no row of ``table``.
    """
    if users.device.type == "cpu" and users.dtype == table.dtype == torch.float32:
        kernels = fused("scores")
        if kernels is not None:
            return kernels.sampled_scores(users, table, items)
    # F.embedding instead of table[items]: its backward pass is many times faster
    return torch.einsum("pd,pnd->pn", users, F.embedding(items, table))
