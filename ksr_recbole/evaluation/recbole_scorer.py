"""How a model of RecBole answers the evaluator: one forward pass for each user."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.data.transform import construct_transform
from recbole.utils import ModelType
from torch import Tensor

from ksr_recbole.config_types import Configuration
from ksr_recbole.distributed.sharding import rows_of
from ksr_recbole.errors import UserError
from ksr_recbole.evaluation.scorer import PAIRS

_TRAINING_ONLY = ("mask_itemseq", "crop_itemseq", "reorder_itemseq")
"""Transforms of RecBole that add what the loss alone reads."""


class RecBoleScorer:
    """Scores all items for users' histories with ``full_sort_predict``.

    A model that has none (NeuMF, DIN, ...) is asked for pairs of a user and an item with
    ``predict``, many at a time.  Sequential models read the last ``MAX_ITEM_LIST_LENGTH`` items of
    a history, padded at the end to that length, as RecBole's loaders give them.

    Args:
        model: a model of RecBole.
        config: the run's configuration.
        dataset: the built dataset; its ``join`` adds the features of users.
    """

    def __init__(self, model: Any, config: Configuration, dataset: Any) -> None:
        self._model, self._dataset = model, dataset
        self._sequences, self._start = dataset.sequences, dataset.split.train_start
        self._device = config["device"]
        self._name, self._user = config["model"], config["USER_ID_FIELD"]
        self._item, suffix = config["ITEM_ID_FIELD"], config["LIST_SUFFIX"]
        self._items, self._length = self._item + suffix, config["ITEM_LIST_LENGTH_FIELD"]
        self._negatives = config["NEG_PREFIX"] + self._items
        self._longest = config["MAX_ITEM_LIST_LENGTH"]
        self._sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        transforms = config["transform"] is not None and config["transform"] not in _TRAINING_ONLY
        self._transform = construct_transform(config) if transforms else None
        self._has_full_sort = True

    def history(self, users: np.ndarray, history_end: np.ndarray) -> Interaction:
        """What RecBole's loaders give of each user: ``[B]``, and ``[B, longest]`` of histories."""
        fields = {self._user: torch.from_numpy(users)}
        if self._sequential:
            fields |= self._read(users, history_end)
        batch = self._dataset.join(Interaction(fields))
        if self._transform is not None:
            batch = self._transform(self._dataset, batch)
        return batch.to(self._device)

    def _read(self, users: np.ndarray, history_end: np.ndarray) -> dict[str, Tensor]:
        start = np.maximum(self._start[users], history_end - self._longest)
        padded, lengths = self._sequences.padded(users, start, history_end)
        items = torch.zeros(len(users), self._longest, dtype=torch.int64)
        items[:, : padded.shape[1]] = torch.from_numpy(padded)
        # DIEN asks for negatives too, for a loss that is not computed here.
        negatives = {self._negatives: torch.zeros_like(items)}
        return {self._items: items, self._length: torch.from_numpy(lengths), **negatives}

    def score_candidates(
        self, users: np.ndarray, history_end: np.ndarray, candidates: Tensor
    ) -> Tensor:
        """Scores of ``candidates [B, C]`` for each user, ``[B, C]``."""
        if (scores := self._full_sort(users, history_end)) is not None:
            return scores.gather(1, candidates.to(scores.device))
        return self._pairs(users, history_end, candidates)

    def score_all(self, users: np.ndarray, history_end: np.ndarray) -> Tensor:
        """Scores of every item id including padding, ``[B, n_items]``."""
        if (scores := self._full_sort(users, history_end)) is not None:
            return scores
        items = torch.arange(self._sequences.n_items).expand(len(users), -1)
        return self._pairs(users, history_end, items)

    def _full_sort(self, users: np.ndarray, history_end: np.ndarray) -> Tensor | None:
        """Scores of all items, ``[B, n_items]``; ``None`` of a model that gives none."""
        if not self._has_full_sort:
            return None
        batch = self.history(users, history_end)
        if self._sequential:  # some compute the loss as well; they are given no target
            target = torch.zeros(len(users), dtype=torch.int64, device=self._device)
            batch.update(Interaction({self._item: target}))
        try:
            scores = self._model.full_sort_predict(batch)
        except NotImplementedError:
            self._has_full_sort = False
            return None
        shape = (len(users), self._sequences.n_items)
        if scores.numel() != shape[0] * shape[1]:
            raise UserError(
                f"RecBole's {self._name} gave {scores.numel()} scores for {shape[0]} users and "
                f"{shape[1]} items, so it cannot be ranked by the paper's protocol."
            )
        return scores.reshape(shape)

    def _pairs(self, users: np.ndarray, history_end: np.ndarray, items: Tensor) -> Tensor:
        """Scores of pairs by ``predict``; ``items [B, C]``, the padding item is never asked for."""
        batch, n_items = self.history(users, history_end), items.shape[1]
        rows = torch.arange(len(users)).repeat_interleave(n_items).to(self._device)
        asked = items.flatten().to(self._device)
        scores = asked.new_zeros(len(asked), dtype=torch.float32)
        real = torch.nonzero(asked).view(-1)
        for some in real.split(max(1, PAIRS // self._longest)):
            pairs = rows_of(batch, rows[some])
            pairs.update(Interaction({self._item: asked[some]}))
            scores[some] = self._model.predict(pairs).view(-1).float()
        return scores.view(len(users), n_items)
