"""How a model answers the evaluator: histories in, scores out, one forward pass per user."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from ksr_recbole.dataset.sequences import UserSequences, ragged_positions

CANDIDATES = "candidates"
"""Field of an evaluation batch: item ids to score for each user, ``[B, C]``."""


class ModelScorer:
    """Feeds users' histories to a sequence model.

    Args:
        model: has ``score_candidates`` and ``full_sort_predict``.
        config: the run's configuration, for field names and the device.
        sequences: all users' sequences.
    """

    def __init__(self, model: Any, config: Any, sequences: UserSequences) -> None:
        self._model = model
        self._sequences = sequences
        self._device = config["device"]
        self._user = config["USER_ID_FIELD"]
        self._items = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
        self._length = config["ITEM_LIST_LENGTH_FIELD"]

    def history(self, users: np.ndarray, history_end: np.ndarray) -> Interaction:
        """The first ``history_end[k]`` items of ``users[k]``, padded at the end, ``[B, T]``."""
        rows, columns = ragged_positions(history_end)
        items = np.zeros((len(users), int(history_end.max())), np.int64)
        start = np.zeros_like(history_end)
        items[rows, columns] = self._sequences.items[
            self._sequences.spans(users, start, history_end)
        ]
        fields = {self._user: users, self._items: items, self._length: history_end}
        batch = Interaction({name: torch.from_numpy(value) for name, value in fields.items()})
        return batch.to(self._device)

    def score_candidates(
        self, users: np.ndarray, history_end: np.ndarray, candidates: Tensor
    ) -> Tensor:
        """Scores of ``candidates [B, C]`` for each user, ``[B, C]``."""
        batch = self.history(users, history_end)
        batch.update(Interaction({CANDIDATES: candidates.to(self._device)}))
        return self._model.score_candidates(batch)

    def score_all(self, users: np.ndarray, history_end: np.ndarray) -> Tensor:
        """Scores of every item id including padding, ``[B, n_items]``."""
        return self._model.full_sort_predict(self.history(users, history_end))
