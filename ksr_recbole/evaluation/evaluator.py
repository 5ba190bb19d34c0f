"""Scores a model's users in batches and ranks their positives: sampled (Sec. 5.1) or full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ksr_recbole.bars import Bar
from ksr_recbole.config.evaluation_keys import parse_metrics, parse_topk
from ksr_recbole.dataset.sequences import EvalPhase, Split, UserSequences, ragged_positions
from ksr_recbole.distributed.group import summed, this_process
from ksr_recbole.evaluation.candidates import CandidateSets, phase_targets
from ksr_recbole.evaluation.metrics import (
    check_scores,
    joint_ranks,
    positions_within_users,
    rank_of_positives,
    ranking_metrics,
)
from ksr_recbole.evaluation.scorer import SCORES_AT_ONCE


class SequenceScorer(Protocol):
    """A model as the evaluation sees it: users' histories in, scores of items out.

    Both methods may read, for user ``users[b]``, what lies before position ``history_end[b]`` of
    his or her sequence, and nothing after it.  Scores may lie on any device.
    """

    def score_candidates(
        self, users: np.ndarray, history_end: np.ndarray, candidates: torch.Tensor
    ) -> torch.Tensor:
        """Scores ``[B, C]`` of item ids ``candidates`` (``int64 [B, C]``, on the CPU).

        Cells with item 0 (padding) are ignored, whatever their score.
        """
        ...

    def score_all(self, users: np.ndarray, history_end: np.ndarray) -> torch.Tensor:
        """Scores ``[B, n_items]`` of every item id; the padding item's is ignored."""
        ...


@dataclass(frozen=True, eq=False)
class EvalResult:
    """Metrics of a phase, and the ranks they come from.

    Attributes:
        metrics: means over users by RecBole's name (``"ndcg@10"``), unrounded.
        users: user of each positive, ascending, ``int64 [P]``.
        ranks: rank of each positive in its user's list, ``int64 [P]``.
    """

    metrics: dict[str, float]
    users: np.ndarray
    ranks: np.ndarray


@torch.no_grad()
def evaluate_sampled(
    scorer: SequenceScorer,
    candidates: CandidateSets,
    split: Split,
    phase: EvalPhase,
    metrics: Sequence[str],
    topk: Sequence[int],
    batch_size: int,
    show_progress: bool = False,
) -> EvalResult:
    """Rank each positive among its candidates; a user's positives share one joint list.

    Every user is scored once, whatever the number of his or her positives.

    Args:
        scorer: the model.
        candidates: as :func:`~ksr_recbole.evaluation.candidates.draw_candidates` gave them
            for the same ``split`` and ``phase``.
        split: the split.
        phase: the phase.
        metrics: RecBole's names, such as ``"NDCG"``.
        topk: cut-offs.
        batch_size: positives scored at once.
        show_progress: whether to show a progress bar.

    Returns:
        Metrics, and users and ranks ``[P]`` in the order of the candidates.

    Raises:
        UserError: a score is NaN, a metric or cut is unknown, or nobody has a positive.
    """
    metrics, topk = parse_metrics(metrics), parse_topk(topk)
    users, negatives = candidates.users, candidates.negatives
    ranks = np.zeros(len(users), dtype=np.int64)
    history_end = split.history_end(phase)
    for kept, scores, single in _scored(scorer, candidates, history_end, batch_size, show_progress):
        positive, negative = scores[:, 0], scores[:, 1:]
        if single:
            ranks[kept] = rank_of_positives(positive, negative)
        else:
            ranks[kept] = joint_ranks(users[kept], positive, negatives[kept], negative)
    ranks = summed(ranks)  # of each positive, one process has the rank and the others 0
    return EvalResult(ranking_metrics(users, ranks, metrics, topk), users, ranks)


@torch.no_grad()
def candidate_scores(
    scorer: SequenceScorer, candidates: CandidateSets, history_end: np.ndarray, batch_size: int
) -> np.ndarray:
    """Scores of :attr:`~ksr_recbole.evaluation.candidates.CandidateSets.lists`, ``float64``.

    Args:
        scorer: the model.
        candidates: the positives and negatives.
        history_end: where each user's history ends, ``int64 [n_users]``.
        batch_size: positives scored at once.
    """
    scores = np.zeros((len(candidates.users), 1 + candidates.negatives.shape[1]))
    for kept, some, _ in _scored(scorer, candidates, history_end, batch_size, show_progress=False):
        scores[kept] = some
    return summed(scores)  # of each positive, one process has the scores and the others 0


def _scored(
    scorer: SequenceScorer,
    candidates: CandidateSets,
    history_end: np.ndarray,
    batch_size: int,
    show_progress: bool,
) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """This process's batches: rows of the candidates ``int64 [R]``, their scores ``float64 [R, C]``
    and whether each user has a single one."""
    lists = candidates.lists
    batches = _user_batches(candidates.users, history_end, batch_size)
    for users, rows in _progress(batches, show_progress):
        real = rows >= 0
        items = np.where(real[:, :, None], lists[rows], 0).reshape(len(rows), -1)
        scores = scorer.score_candidates(users, history_end[users], torch.from_numpy(items))
        _check_shape(scores, items.shape)
        values = _to_numpy(scores).reshape(*rows.shape, -1)
        yield rows[real], values[real], rows.shape[1] == 1


@torch.no_grad()
def evaluate_full(
    scorer: SequenceScorer,
    sequences: UserSequences,
    split: Split,
    phase: EvalPhase,
    metrics: Sequence[str],
    topk: Sequence[int],
    batch_size: int,
    show_progress: bool = False,
) -> EvalResult:
    """Rank each positive among all items except padding and those of the user's history.

    A positive competes even if the history holds it too (a repeat), and a user's positives
    are never negatives: they stand in one list, as in :func:`evaluate_sampled`.

    Args:
        scorer: the model.
        sequences: all users' sequences.
        split: the split.
        phase: the phase.
        metrics: RecBole's names, such as ``"NDCG"``.
        topk: cut-offs.
        batch_size: positives ranked at once; no more users than that are scored at once.  With
            very many items they are fewer (:data:`SCORES_AT_ONCE`).
        show_progress: whether to show a progress bar.

    Returns:
        Metrics, and users and ranks ``[P]`` in the order of
        :func:`~ksr_recbole.evaluation.candidates.phase_targets`.

    Raises:
        UserError: a score is NaN, a metric or cut is unknown, or nobody has a positive.
    """
    metrics, topk = parse_metrics(metrics), parse_topk(topk)
    users, positives = phase_targets(sequences, split, phase)
    history_end = split.history_end(phase)
    ranks = np.zeros(len(users), dtype=np.int64)
    batch_size = min(batch_size, max(1, SCORES_AT_ONCE // sequences.n_items))
    batches = _user_batches(users, history_end, batch_size)
    for batch_users, rows in _progress(batches, show_progress):
        ends = history_end[batch_users]
        scores = scorer.score_all(batch_users, ends)
        _check_shape(scores, (len(batch_users), sequences.n_items))
        owner, column = np.nonzero(rows >= 0)
        kept = rows[owner, column]
        negative = _negative_mask(sequences, batch_users, ends, scores.device)
        ahead, own = _count_ahead(scores, negative, owner, positives[kept], batch_size)
        ranks[kept] = 1 + ahead + positions_within_users(owner, -own)
    ranks = summed(ranks)
    return EvalResult(ranking_metrics(users, ranks, metrics, topk), users, ranks)


def _negative_mask(
    sequences: UserSequences, users: np.ndarray, history_end: np.ndarray, device: torch.device
) -> torch.Tensor:
    """Items that are neither padding nor in the user's history, ``bool [B, n_items]``.

    It is made where the scores are; of the histories the items alone go there.
    """
    negative = torch.ones(len(users), sequences.n_items, dtype=torch.bool, device=device)
    negative[:, 0] = False
    rows, _ = ragged_positions(history_end)
    spans = sequences.spans(users, np.zeros_like(history_end), history_end)
    at = (torch.from_numpy(x).to(device) for x in (rows, sequences.items[spans]))
    return negative.index_put_(tuple(at), negative.new_zeros(()))


def _count_ahead(
    scores: torch.Tensor, mask: torch.Tensor, owner: np.ndarray, items: np.ndarray, chunk: int
) -> tuple[np.ndarray, np.ndarray]:
    """Negatives that score at least as much as each positive, by counting (no sort).

    Args:
        scores: ``[B, n_items]``.
        mask: the user's negatives and perhaps positives, ``bool [B, n_items]``; the positives are
            taken out of it.
        owner: row of ``scores`` of each positive, rising, each row at least once, ``int64 [P]``.
        items: the positives, ``int64 [P]``.
        chunk: positives compared at once.

    Returns:
        ``(ahead, own)``: the counts, ``int64 [P]``, and the positives' scores, ``[P]``.
    """
    if torch.isnan(scores[:, 1:]).any():  # seen on the device; only then copied to be counted
        check_scores(_to_numpy(scores[:, 1:]))
    row, column = (torch.from_numpy(x).to(scores.device) for x in (owner, items))
    own = scores[row, column]
    mask[row, column] = False
    if len(owner) == len(scores):  # each user has one positive, in the order of the scores
        return ((scores >= own[:, None]) & mask).sum(dim=1).cpu().numpy(), _to_numpy(own)
    ahead = [
        ((scores[r] >= s[:, None]) & mask[r]).sum(dim=1)
        for r, s in zip(row.split(chunk), own.split(chunk), strict=True)
    ]
    return torch.cat(ahead).cpu().numpy(), _to_numpy(own)


def _user_batches(
    users: np.ndarray, history_end: np.ndarray, batch_size: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut the users of ``users`` ``[P]`` (ascending) into batches of at most ``batch_size`` rows.

    Users with as many positives, and with histories as long, go together, so that neither
    needs much padding; the longest come first, so that a batch too large fails at once.

    Returns:
        Per batch its users ``int64 [B]`` and their rows of ``users``, ``int64 [B, R]``, -1
        where a user has fewer than ``R``.  A single user may exceed ``batch_size``.
    """
    unique, starts, counts = np.unique(users, return_index=True, return_counts=True)
    order = np.lexsort((unique, -history_end[unique], -counts))
    batches = []
    begin = 0
    while begin < len(order):
        most = counts[order[begin]]
        chosen = order[begin : begin + max(1, batch_size // most)]
        column = np.arange(most)
        rows = np.where(column < counts[chosen, None], starts[chosen, None] + column, -1)
        batches.append((unique[chosen], rows))
        begin += len(chosen)
    return batches


def _progress(
    batches: list[tuple[np.ndarray, np.ndarray]], show: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """This process's batches, behind a progress bar."""
    batches = batches[this_process().rank :: this_process().size]
    yield from Bar(batches, desc="Evaluate   ", disable=not show)


def _to_numpy(scores: torch.Tensor) -> np.ndarray:
    """Scores as float64 on the CPU; every narrower float goes into it exactly."""
    return scores.detach().to("cpu", torch.float64).numpy()


def _check_shape(scores: torch.Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(scores.shape) != tuple(wanted):
        raise ValueError(f"the scorer gave scores of shape {tuple(scores.shape)}, not {wanted}")
