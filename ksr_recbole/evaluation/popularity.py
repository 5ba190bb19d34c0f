"""How much popularity a model's scores lack, fitted on validation and the same for every model.

A softmax over all items learns popularity by itself; a loss on sampled negatives learns less of it,
and candidates half of which are drawn by popularity want another share of it than all items do.
The ranking is by ``score + weight * log(1 + training interactions of the item)``, of those
interactions that ``train_ratio`` keeps.
"""

from __future__ import annotations

import numpy as np
import torch

from ksr_recbole.dataset.sequences import Split, UserSequences
from ksr_recbole.evaluation.candidates import CandidateSets
from ksr_recbole.evaluation.evaluator import SequenceScorer, candidate_scores
from ksr_recbole.evaluation.logit import conditional_logit


class WithPopularity:
    """Another scorer's scores, and a multiple of the logarithm of popularity.

    Args:
        scorer: the other one.
        sequences: all users' sequences.
        split: whose training part popularity is counted in.
        weight: what the logarithm is multiplied by.
    """

    def __init__(
        self, scorer: SequenceScorer, sequences: UserSequences, split: Split, weight: float
    ) -> None:
        self._scorer = scorer
        self._added = torch.from_numpy(weight * log_popularity(sequences, split))

    def score_candidates(
        self, users: np.ndarray, history_end: np.ndarray, candidates: torch.Tensor
    ) -> torch.Tensor:
        """As :class:`~ksr_recbole.evaluation.evaluator.SequenceScorer`'s, ``float64``."""
        scores = self._scorer.score_candidates(users, history_end, candidates)
        return scores + self._added[candidates].to(scores.device)

    def score_all(self, users: np.ndarray, history_end: np.ndarray) -> torch.Tensor:
        """As :class:`~ksr_recbole.evaluation.evaluator.SequenceScorer`'s, ``float64``."""
        scores = self._scorer.score_all(users, history_end)
        return scores + self._added.to(scores.device)


def training_counts(sequences: UserSequences, split: Split) -> np.ndarray:
    """The interactions of every item that models are trained on, ``int64 [n_items]``.

    Those that ``train_ratio`` leaves out do not count.
    """
    indices, _ = split.training_interactions(sequences)
    return np.bincount(sequences.items[indices], minlength=sequences.n_items)


def log_popularity(sequences: UserSequences, split: Split) -> np.ndarray:
    """``log(1 + training interactions)`` of every item, ``float64 [n_items]``."""
    return np.log1p(training_counts(sequences, split))


def popularity_weight(
    scorer: SequenceScorer,
    candidates: CandidateSets,
    sequences: UserSequences,
    split: Split,
    batch_size: int,
) -> float:
    """The weight under which validation's positives are most likely among their candidates.

    Candidates drawn uniformly stand for all items (see :func:`conditional_logit`).

    Args:
        scorer: the trained model.
        candidates: validation's positives and negatives.
        sequences: all users' sequences.
        split: where validation begins.
        batch_size: positives scored at once.

    Returns:
        What to multiply the logarithms by before they are added to scores; 0 where the scores say
        nothing of the positives, so that no multiple of theirs can be compared with popularity.
    """
    scores = candidate_scores(scorer, candidates, split.history_end("valid"), batch_size)
    return fitted_weight(scores, log_popularity(sequences, split)[candidates.lists])


def fitted_weight(scores: np.ndarray, logarithms: np.ndarray) -> float:
    """``b / a`` of the conditional logit ``a * scores + b * logarithms``.

    Args:
        scores: of the positive, in column 0, and its negatives, ``float64 [P, C]``.
        logarithms: of their popularity, ``float64 [P, C]``.
    """
    size = float(scores.std())
    if not np.isfinite(size) or size == 0:
        return 0.0
    a, b = conditional_logit(np.stack([scores / size, logarithms], axis=2))
    return float(b / a * size) if a > 0 else 0.0
