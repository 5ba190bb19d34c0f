"""What speaks for a score: parts of it, or what it loses without an item of the history."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ksr_recbole.model.ksr import KSR
from ksr_recbole.model.sequence_recommender import SequenceState

LOOKED_BACK = 50
"""Latest items of a history that are left out one by one, which bounds the cost for long ones."""

_ROWS = 4096
"""Histories that are read at a time."""


def is_split(model: Any) -> bool:
    """Whether the model's score is a sum with an exact part for each attribute."""
    return bool(getattr(model, "splits_score", False))


def influence(
    model: KSR, items: Tensor, lengths: Tensor, before: SequenceState, candidates: Tensor
) -> Tensor:
    """By how much the score of each candidate falls if one item of the history is left out.

    Args:
        model: reads without dropout and gradients.
        items: the latest items of ``B`` histories, ``int64 [B, L]``, padded with 0 at the end.
        lengths: how many of them there are, ``int64 [B]``.
        before: the states before those items.
        candidates: item ids, ``int64 [B, K]``.

    Returns:
        ``[B, L, K]``, 0 on padding.
    """
    whole = _scores(model, items, lengths, before, candidates)
    lost = whole.new_zeros(*items.shape, candidates.shape[1])
    rows, places = torch.nonzero(items > 0, as_tuple=True)
    if not len(rows):
        return lost
    column = torch.arange(max(items.shape[1] - 1, 0), device=items.device)
    for row, place in zip(rows.split(_ROWS), places.split(_ROWS), strict=True):
        kept = items[row[:, None], column + (column >= place[:, None])]
        state = SequenceState(before.hidden[:, row].contiguous(), before.values[row])
        without = _scores(model, kept, lengths[row] - 1, state, candidates[row])
        lost[row, place] = whole[row] - without
    return lost


def _scores(
    model: KSR, items: Tensor, lengths: Tensor, before: SequenceState, candidates: Tensor
) -> Tensor:
    """Scores of ``candidates [B, K]`` after ``items [B, L]``, ``[B, K]``."""
    nobody = torch.zeros(len(items), dtype=torch.long, device=items.device)
    state = model.advance(items, lengths, before)
    return model.scores(model.read_state(nobody, state), candidates)
