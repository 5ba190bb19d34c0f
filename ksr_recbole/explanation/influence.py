"""What speaks for a score: parts of it, or what it loses without an item of the history."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from ksr_recbole.explanation.knowledge import Knowledge
from ksr_recbole.model.exact_memory import ExactMemory
from ksr_recbole.model.ksr import KSR
from ksr_recbole.model.sequence_recommender import SequenceState

LOOKED_BACK = 50
"""Latest items of a history that are left out one by one, which bounds the cost for long ones."""

_ROWS = 4096
"""Histories that are read at a time."""


def parts_of(
    model: KSR, knowledge: Knowledge, state: SequenceState, items: np.ndarray, owners: np.ndarray
) -> csr_matrix:
    """What each value of an item adds to its score, where the score is a sum.

    Args:
        model: its score is split.
        knowledge: what items have.
        state: the states of ``B`` users.
        items: item ids, ``int64 [R]``.
        owners: whose score of each item it is, ``int64 [R]``.

    Returns:
        ``float64 [R, F]``, sparse.  Over the values of one attribute a row sums to the item's
        match on it.
    """
    memory = model.exact
    assert memory is not None  # the score is split
    counts = memory.counts(state.hidden[-1], state.values).double().cpu().numpy()
    found = knowledge.of_items[items].tocoo()
    added = counts[owners[found.row], _columns(memory, knowledge)[found.col]]
    return csr_matrix((added, (found.row, found.col)), shape=found.shape)


def _columns(memory: ExactMemory, knowledge: Knowledge) -> np.ndarray:
    """The memory's column of each fact, ``int64 [F]``.

    It is column 0, which adds nothing, for what a single item has: the memory does not hold that.
    """
    n_entities = len(knowledge.entity_tokens)
    held = (memory.attributes * n_entities + memory.entities).cpu().numpy()  # rising
    wanted = knowledge.attribute_of * n_entities + knowledge.entity_of
    at = np.searchsorted(held, wanted).clip(max=len(held) - 1)
    return np.where(held[at] == wanted, at, 0)


def influences(
    model: KSR, items: Tensor, lengths: Tensor, candidates: Tensor, n_items: int
) -> csr_matrix:
    """What each of the latest items of ``B`` histories weighs for each candidate.

    Args:
        model: as of :func:`influence`.
        items: whole histories, ``int64 [B, T]``, padded with 0 at the end.
        lengths: how long they are, ``int64 [B]``.
        candidates: item ids, ``int64 [B, K]``.
        n_items: items of the dataset, padding among them.

    Returns:
        ``float64 [B * K, n_items]``, sparse; an item that a history has twice weighs the sum.
    """
    early = (lengths - LOOKED_BACK).clamp(min=0)
    columns = torch.arange(min(LOOKED_BACK, items.shape[1]), device=items.device)
    columns = early[:, None] + columns
    late = items.gather(1, columns.clamp(max=items.shape[1] - 1)) * (columns < lengths[:, None])
    lost = influence(model, late, lengths - early, model.advance(items, early), candidates)
    rows, steps = torch.nonzero(late, as_tuple=True)
    n_candidates = candidates.shape[1]
    at = (rows.cpu().numpy()[:, None] * n_candidates + np.arange(n_candidates)).ravel()
    named = np.repeat(late[rows, steps].cpu().numpy(), n_candidates)
    values = lost[rows, steps].double().cpu().numpy().ravel()
    return csr_matrix((values, (at, named)), shape=(candidates.numel(), n_items))


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
    rows, steps = torch.nonzero(items > 0, as_tuple=True)
    if not len(rows):
        return lost
    column = torch.arange(max(items.shape[1] - 1, 0), device=items.device)
    for row, step in zip(rows.split(_ROWS), steps.split(_ROWS), strict=True):
        kept = items[row[:, None], column + (column >= step[:, None])]
        left = before.of_users(row)
        without = _scores(model, kept, lengths[row] - 1, left, candidates[row])
        lost[row, step] = whole[row] - without
    return lost


def _scores(
    model: KSR, items: Tensor, lengths: Tensor, before: SequenceState, candidates: Tensor
) -> Tensor:
    """Scores of ``candidates [B, K]`` after ``items [B, L]``, ``[B, K]``."""
    nobody = torch.zeros(len(items), dtype=torch.long, device=items.device)
    state = model.advance(items, lengths, before)
    return model.scores(model.read_state(nobody, state), candidates)
