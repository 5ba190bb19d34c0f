"""How a model answers the evaluator: histories in, scores out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.dataloader import CANDIDATES
from ksr_recbole.dataset.sequences import Split, UserSequences
from ksr_recbole.distributed.sharding import rows_of
from ksr_recbole.model.sequence_recommender import SequenceRecommender

PAIRS = 1 << 20
"""Users times items that a model of RecBole scores at a time."""

SCORES_AT_ONCE = 1 << 26
"""Scores held at a time, 256 MiB, or what a model makes for each score.  With a million items that
is still 64 users: a product with one of them reads every item vector for two operations on each
number."""

STATE_NUMBERS_AT_ONCE = 1 << 26
"""Numbers of the memories that are held at a time: a memory of exact values can be large."""


class ModelScorer:
    """Feeds users' histories to a model: one forward pass per user.

    A scorer is made for one evaluation.  Where all items are scored, their vectors are computed
    once, so a model whose weights have changed needs another scorer.

    Args:
        model: has ``score_candidates`` and ``full_sort_predict``.
        config: the run's configuration, for field names and the device.
        sequences: all users' sequences.
        split: where a history starts.
    """

    def __init__(
        self, model: Any, config: Configuration, sequences: UserSequences, split: Split
    ) -> None:
        self._model = model
        self._sequences = sequences
        self._start = split.train_start
        self._device = config["device"]
        self._user = config["USER_ID_FIELD"]
        self._item = config["ITEM_ID_FIELD"]
        self._items = self._item + config["LIST_SUFFIX"]
        self._length = config["ITEM_LIST_LENGTH_FIELD"]
        self._vectors: Tensor | None = None

    def history(self, users: np.ndarray, history_end: np.ndarray) -> Interaction:
        """The items of ``users[k]`` before ``history_end[k]``, padded at the end, ``[B, T]``."""
        return self._history(users, self._start[users], history_end)

    def _history(self, users: np.ndarray, start: np.ndarray, end: np.ndarray) -> Interaction:
        items, lengths = self._sequences.padded(users, start, end)
        fields = {self._user: users, self._items: items, self._length: lengths}
        batch = Interaction({name: torch.from_numpy(value) for name, value in fields.items()})
        return batch.to(self._device)

    def score_candidates(
        self, users: np.ndarray, history_end: np.ndarray, candidates: Tensor
    ) -> Tensor:
        """Scores of ``candidates [B, C]`` for each user, ``[B, C]``."""
        if parts := self._parts(len(users)):
            scores = [self.score_candidates(users[p], history_end[p], candidates[p]) for p in parts]
            return torch.cat(scores)
        batch = self.history(users, history_end)
        batch.update(Interaction({CANDIDATES: candidates.to(self._device)}))
        return self._model.score_candidates(batch)

    def score_all(self, users: np.ndarray, history_end: np.ndarray) -> Tensor:
        """Scores of every item id including padding, ``[B, n_items]``."""
        if parts := self._parts(len(users), self._sequences.n_items):
            return torch.cat([self.score_all(users[p], history_end[p]) for p in parts])
        model, batch = self._model, self.history(users, history_end)
        if not _predicts_by_vectors(model):
            return model.full_sort_predict(batch)
        if self._vectors is None:
            self._vectors = model.item_vectors()
        read = model.read_last(batch[self._user], batch[self._items], batch[self._length])
        return model.all_scores(read, self._vectors)

    def _parts(self, n_users: int, n_items: int = 0) -> list[slice]:
        """Parts of users whose memories can be held at a time; none if all of them can."""
        if not isinstance(self._model, SequenceRecommender):
            return []
        memory = self._model.initial_state(1).values
        most = STATE_NUMBERS_AT_ONCE // max(1, memory.numel())
        if n_items and not self._model.INNER_PRODUCT:  # scores of each slot are made
            most = min(most, SCORES_AT_ONCE // (n_items * max(1, memory.shape[1])))
        most = max(1, most)
        return [slice(k, k + most) for k in range(0, n_users, most)] if n_users > most else []


def _predicts_by_vectors(model: Any) -> bool:
    """Whether ``full_sort_predict`` is that of :class:`SequenceRecommender`."""
    own = getattr(type(model), "full_sort_predict", None)
    return own is SequenceRecommender.full_sort_predict


class PairScorer(ModelScorer):
    """Asks a model of RecBole for the score of every pair of a user and an item (``predict``).

    The history is the last item alone: of the models compared here BPR, NeuMF and CKE read
    none and FPMC's Markov chain is of first order.
    """

    def history(self, users: np.ndarray, history_end: np.ndarray) -> Interaction:
        """The item of ``users[k]`` before ``history_end[k]``, ``[B, 1]``."""
        return self._history(users, history_end - 1, history_end)

    def score_candidates(
        self, users: np.ndarray, history_end: np.ndarray, candidates: Tensor
    ) -> Tensor:
        """Scores of ``candidates [B, C]`` for each user, ``[B, C]``."""
        batch, n_items = self.history(users, history_end), candidates.shape[1]
        rows = torch.arange(len(users), device=self._device).repeat_interleave(n_items)
        items = candidates.to(self._device).flatten()
        scores = []
        for row, item in zip(rows.split(PAIRS), items.split(PAIRS), strict=True):
            pairs = rows_of(batch, row)
            pairs.update(Interaction({self._item: item}))
            scores.append(self._model.predict(pairs).view(-1))
        return torch.cat(scores).view(len(users), n_items)

    def score_all(self, users: np.ndarray, history_end: np.ndarray) -> Tensor:
        """Scores of every item id including padding, ``[B, n_items]``."""
        items = torch.arange(self._sequences.n_items).expand(len(users), -1)
        return self.score_candidates(users, history_end, items)
