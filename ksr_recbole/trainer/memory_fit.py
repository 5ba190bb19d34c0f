"""Finds the weights of an exact memory on validation, once its model is trained.

On training's own positions a trained model ranks so well that a memory seems of little use;
validation's positives are the first that it has not seen.  So its model trains without a memory,
and then the few weights of the read, one for each time scale and attribute, are those of a
conditional logit of validation's positives among their candidates.  Popularity is a feature of that
logit too, so that the memory is not taken for it, but its weight is not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ksr_recbole.evaluation.candidates import CandidateSets
from ksr_recbole.evaluation.logit import conditional_logit
from ksr_recbole.evaluation.metrics import rank_of_positives
from ksr_recbole.evaluation.scorer import ModelScorer
from ksr_recbole.model.exact_memory import ExactMemory

MOST_POSITIVES = 10_000
"""Positives that the weights are fitted on; of more than that some are drawn."""

PENALTY = 1e-3
"""What a squared weight of a feature of unit size costs next to the mean loss of a positive."""

_NUMBERS_AT_ONCE = 1 << 25
"""Numbers of users' slots that are held at a time."""


def fitted_later(model: Any) -> ExactMemory | None:
    """The exact memory of a model, if it is fitted once the model is trained."""
    memory = getattr(model, "exact", None)
    return memory if isinstance(memory, ExactMemory) and memory.fitted_later else None


@dataclass(frozen=True)
class MemoryFit:
    """What came of a fit.

    Attributes:
        weights: of time scales and attributes, ``float32 [S, A]``; all 0 where the memory does
            not rank the positives better.
        positives: how many positives the weights were fitted on.
        without: mean reciprocal rank of these positives among their candidates by the model's
            score and popularity.
        with_memory: the same with the memory in addition; half of the users are ranked with the
            weights of the other half.
    """

    weights: Tensor
    positives: int
    without: float
    with_memory: float

    @property
    def used(self) -> bool:
        """Whether the memory ranks positives better that its weights were not fitted on."""
        return self.with_memory > self.without

    def report(self) -> dict[str, Any]:
        """The numbers for a result file."""
        return {**asdict(self), "weights": self.weights.tolist(), "used": self.used}

    def __str__(self) -> str:
        told = (
            f"The memory's {self.weights.numel()} weights were fitted on {self.positives:,} "
            f"positives of validation. Each half of the users ranked with the weights of the other "
            f"half: MRR {self.without:.4f} without the memory, {self.with_memory:.4f} with it"
        )
        return told + ("." if self.used else "; so the memory is left unread.")


def some_of(candidates: CandidateSets, seed: int, most: int = MOST_POSITIVES) -> CandidateSets:
    """All positives with their candidates, or as many as ``most``, drawn evenly."""
    n_positives = len(candidates.users)
    if n_positives <= most:
        return candidates
    rows = np.sort(np.random.default_rng(seed).choice(n_positives, most, replace=False))
    parts = (candidates.users, candidates.positives, candidates.negatives)
    return CandidateSets(*(part[rows] for part in parts))


def fit_memory(
    model: Any,
    scorer: ModelScorer,
    candidates: CandidateSets,
    history_end: np.ndarray,
    log_popularity: np.ndarray,
) -> MemoryFit:
    """The weights of a model's exact memory under which validation's positives are most likely.

    Args:
        model: a KSR with an exact memory, whose weights count as 0 here whatever they are.
        scorer: gives users' histories to the model.
        candidates: validation's positives and negatives.
        history_end: where each user's history ends, ``int64 [n_users]``.
        log_popularity: of every item, ``[n_items]``.
    """
    memory = model.exact
    shape = memory.weights.shape
    memory.wake(torch.zeros(shape))
    model.eval()
    features = np.zeros((*candidates.lists.shape, 2 + shape.numel()), np.float32)
    features[:, :, 1] = log_popularity[candidates.lists]
    for rows, scores, parts in _batches(model, scorer, candidates, history_end):
        features[rows, :, 0] = scores.cpu().numpy()
        features[rows, :, 2:] = parts.flatten(2).cpu().numpy()
    return _fitted(features, candidates.users, shape)


@torch.no_grad()
def _batches(
    model: Any, scorer: ModelScorer, candidates: CandidateSets, history_end: np.ndarray
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows of the candidates, their scores ``[R, C]`` and their matches ``[R, C, S, A]``."""
    lists = torch.from_numpy(candidates.lists)
    of_user = max(1, int(np.prod(model.exact.slot_shape)))
    step = max(1, _NUMBERS_AT_ONCE // (of_user + lists.shape[1] * model.exact.weights.numel()))
    for first in range(0, len(lists), step):
        rows = slice(first, first + step)
        users, at = np.unique(candidates.users[rows], return_inverse=True)
        batch = scorer.history(users, history_end[users])
        state = model.advance(batch[model.ITEM_SEQ], batch[model.ITEM_SEQ_LEN])
        items, index = lists[rows].to(state.values.device), torch.from_numpy(at)
        index = index.to(items.device)
        read = model.user_vectors(model.read_state(batch[model.USER_ID], state))
        scores = model.scores(read[index], items)
        yield rows, scores, model.exact.parts(state.values[index], items)


def _fitted(features: np.ndarray, users: np.ndarray, shape: torch.Size) -> MemoryFit:
    """The fit to features ``[P, C, F]``: score, log popularity, and the matches."""
    sizes = features.std(axis=(0, 1))
    sizes[~(sizes > 0)] = 1.0  # an attribute without values, whose weight stays 0
    features /= sizes
    _, number = np.unique(users, return_inverse=True)
    halves = [number % 2 == 0, number % 2 == 1]
    without, with_memory = (
        float((1 / _ranks_by_halves(features[:, :, :n], halves)).mean())
        for n in (2, features.shape[2])
    )
    weights = np.zeros(features.shape[2])
    if with_memory > without:
        weights = _logit(features) / sizes
    kept = weights[2:] / weights[0] if weights[0] > 0 else np.zeros(len(weights) - 2)
    found = torch.from_numpy(kept.astype(np.float32)).view(shape)
    return MemoryFit(found, len(features), without, with_memory)


def _ranks_by_halves(features: np.ndarray, halves: list[np.ndarray]) -> np.ndarray:
    """Rank of each positive with the weights of the other half of the users, ``int64 [P]``."""
    ranks = np.ones(len(features), np.int64)
    if not all(half.any() for half in halves):  # a single user: all ranks are equal
        return ranks
    for half, other in (halves, halves[::-1]):
        scores = features[half] @ _logit(features[other]).astype(features.dtype)
        ranks[half] = rank_of_positives(scores[:, 0], scores[:, 1:])
    return ranks


def _logit(features: np.ndarray) -> np.ndarray:
    penalties = np.full(features.shape[2], PENALTY)
    penalties[:2] = 0.0
    return conditional_logit(features, penalties)
