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

from ksr_recbole.errors import UserError
from ksr_recbole.evaluation.candidates import CandidateSets
from ksr_recbole.evaluation.logit import conditional_logit
from ksr_recbole.evaluation.metrics import check_scores, rank_of_positives
from ksr_recbole.evaluation.scorer import ModelScorer
from ksr_recbole.model.exact_memory import ExactMemory

MOST_POSITIVES = 10_000
"""Positives that the weights are fitted on; of more than that some are drawn."""

MOST_NUMBERS = 1 << 26
"""Numbers that all features of the fit may have; with many candidates fewer positives are drawn."""

PENALTY = 150.0
"""What a squared weight of a feature of unit size costs next to the loss of all positives: about
0.03 for each of 5,000 positives, the best by halves of validation's users on ml-1m and Music."""

_NUMBERS_AT_ONCE = 1 << 24
"""Numbers of users' slots and of features that are held at a time."""

_USERS_AT_ONCE = 512


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
        without: mean reciprocal rank of these positives among their candidates by the score
            without the memory.
        with_memory: the same with the memory; half of the users are ranked with the weights of
            the other half.
    """

    weights: Tensor
    positives: int
    without: float
    with_memory: float

    @property
    def used(self) -> bool:
        """Whether the memory is read at all."""
        return bool(self.weights.any())

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


def some_of(candidates: CandidateSets, seed: int, n_features: int) -> CandidateSets:
    """The positives to fit on, with their candidates: all, or as many as fit, drawn evenly."""
    n_positives, n_negatives = candidates.negatives.shape
    most = min(MOST_POSITIVES, max(1, MOST_NUMBERS // ((1 + n_negatives) * n_features)))
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

    Raises:
        UserError: a score is NaN or infinite.
    """
    memory = model.exact
    shape = memory.weights.shape
    memory.wake(torch.zeros(shape))
    model.eval()
    features = np.zeros((*candidates.lists.shape, 2 + shape.numel()), np.float32)
    features[:, :, 1] = log_popularity[candidates.lists]
    for rows, scores, parts in _batches(model, scorer, candidates, history_end):
        features[rows, :, 0] = scores.cpu().numpy()
        _check_finite(features[rows, :, 0])
        features[rows, :, 2:] = parts.flatten(2).cpu().numpy()
    return _fitted(features, candidates.users, shape)


@torch.no_grad()
def _batches(
    model: Any, scorer: ModelScorer, candidates: CandidateSets, history_end: np.ndarray
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows of the candidates, their scores ``[R, C]`` and their matches ``[R, C, S, A]``."""
    lists = torch.from_numpy(candidates.lists)
    held = int(np.prod(model.exact.slot_shape)) + lists.shape[1] * model.exact.weights.numel()
    step = min(_USERS_AT_ONCE, max(1, _NUMBERS_AT_ONCE // held))
    for first in range(0, len(lists), step):
        rows = slice(first, first + step)
        users, at = np.unique(candidates.users[rows], return_inverse=True)
        batch = scorer.history(users, history_end[users])
        state = model.advance(batch[model.ITEM_SEQ], batch[model.ITEM_SEQ_LEN])
        items, index = (
            part.to(state.values.device) for part in (lists[rows], torch.from_numpy(at))
        )
        read = model.user_vectors(model.read_state(batch[model.USER_ID], state))
        scores = model.scores(read[index], items)
        yield rows, scores, model.exact.parts(state.values[index], items)


def _check_finite(scores: np.ndarray) -> None:
    check_scores(scores)
    if np.isinf(scores).any():
        raise UserError(
            "A score of the model is infinite, so its memory cannot be fitted: its training has "
            "diverged; lower learning_rate and train again."
        )


def _fitted(features: np.ndarray, users: np.ndarray, shape: torch.Size) -> MemoryFit:
    """The fit to features ``[P, C, F]``: score, log popularity, and the matches."""
    sizes = features.std(axis=(0, 1), dtype=np.float64)
    sizes[~(sizes > 0)] = 1.0  # an attribute without values, whose weight stays 0
    features /= sizes
    without = _mrr(features[:, :, 0])
    with_memory = _mrr(_scores_by_halves(features, users))
    weights = np.zeros(shape.numel())
    if with_memory > without:
        weights = _weights(features) * sizes[0] / sizes[2:]
    found = torch.from_numpy(weights.astype(np.float32)).view(shape)
    return MemoryFit(found, len(features), without, with_memory)


def _scores_by_halves(features: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Scores with the memory, ``[P, C]``, by the weights of the other half of the users."""
    _, number = np.unique(users, return_inverse=True)
    odd = number % 2 == 1
    scores = features[:, :, 0].copy()
    for half in (odd, ~odd):
        scores[half] += features[half, :, 2:] @ _weights(features[~half]).astype(scores.dtype)
    return scores


def _weights(features: np.ndarray) -> np.ndarray:
    """Weights of the matches next to a score of weight 1; 0 if the score says nothing, or nobody
    is there (the other half of a single user)."""
    own = features[:, :, 0]
    if (own == own[:, :1]).all():
        return np.zeros(features.shape[2] - 2)
    penalties = np.full(features.shape[2], PENALTY / len(features))
    penalties[:2] = 0.0
    weights = conditional_logit(features, penalties)
    return weights[2:] / weights[0] if weights[0] > 0 else np.zeros(len(weights) - 2)


def _mrr(scores: np.ndarray) -> float:
    """Mean reciprocal rank of the positives, in column 0 of ``[P, C]``."""
    return float((1 / rank_of_positives(scores[:, 0], scores[:, 1:])).mean())
