"""Batches of whole user sequences for training, and the data of an evaluation phase."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from recbole.data.dataloader.knowledge_dataloader import KGDataLoader
from recbole.data.interaction import Interaction
from recbole.sampler import KGSampler
from recbole.utils import KGDataLoaderState

from ksr_recbole.config import option
from ksr_recbole.dataset.kg_sequence_dataset import KGSequenceDataset
from ksr_recbole.dataset.negatives import NegativeSampler
from ksr_recbole.dataset.sequences import ragged_positions

CHUNK_START = "chunk_start"
"""Field of a training batch: position of its first column in the users' sequences, ``[B]``."""

LENGTH_JITTER = 0.1
"""Relative noise on lengths before bucketing, so that epochs batch users differently."""


class SequenceTrainLoader:
    """Iterates over training sequences in batches of ``train_batch_size`` positions.

    Users of similar length share a batch.  A sequence longer than ``chunk_length`` comes as
    several consecutive batches of the same users, in which the model carries its state on;
    users whose sequence has ended drop out of the later ones.  Within a batch users stand in
    order of falling length, so those who stay are always the first rows.

    Every batch is an ``Interaction`` with ``B`` rows (RecBole's field names, ``T`` columns):

    - ``user_id [B]``, ``chunk_start [B]``, ``item_length [B]``: valid columns of each row;
    - ``item_id_list [B, T]``: the items read, :math:`i_t`;
    - ``item_id [B, T]``: the targets, :math:`i_{t+1}`, so that every position
      :math:`t \\ge 2` of Eq. 11 is one; 0 where there is none;
    - ``neg_item_id [B, T, N]``: sampled negatives (only for ``loss_type: BPR``).

    The order of batches and the negatives depend on ``seed`` and the epoch alone, so a resumed
    run sees what the uninterrupted one would have seen.
    """

    def __init__(self, config: Any, dataset: KGSequenceDataset) -> None:
        self.config = config
        self._dataset = self.dataset = dataset
        self.shuffle = option(config, "shuffle", bool)
        self._positions = option(config, "train_batch_size", int, minimum=1)
        self._chunk = option(config, "chunk_length", int, minimum=1)
        self._seed = option(config, "seed", int, minimum=0)
        self._epoch = 0
        self._state = KGDataLoaderState.RS
        self._kg_loader: KGDataLoader | None = None
        self._init_negatives(config)
        targets = np.maximum(dataset.split.train_end - 1, 0)
        self._users = np.flatnonzero(targets)
        self._targets = targets[self._users]
        self._fields = {
            "user": config["USER_ID_FIELD"],
            "items": config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"],
            "length": config["ITEM_LIST_LENGTH_FIELD"],
            "target": config["ITEM_ID_FIELD"],
            "negative": config["NEG_PREFIX"] + config["ITEM_ID_FIELD"],
        }

    def _init_negatives(self, config: Any) -> None:
        given = config["train_neg_sample_args"]
        self._n_negatives = 0
        if config["loss_type"] == "BPR":
            self._n_negatives = option(given, "sample_num", int, minimum=1)
            distribution = option(given, "distribution", str, choices=("uniform", "popularity"))
            sequences = self._dataset.sequences
            indices, users = self._dataset.split.training_interactions(sequences)
            alpha = option(given, "alpha", float, minimum=0)
            self._sampler = NegativeSampler(
                users, sequences.items[indices], sequences.n_items, distribution, alpha
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration yields."""
        self._epoch = epoch

    def set_mode(self, state: KGDataLoaderState) -> None:
        """Switch between sequences (``RS``) and triples (``KG``), as RecBole's KGTrainer does."""
        if state == KGDataLoaderState.KG and self._kg_loader is None:
            sampler = KGSampler(self._dataset, "uniform", 1.0)
            self._kg_loader = KGDataLoader(self.config, self._dataset, sampler, shuffle=True)
        self._state = state

    def __len__(self) -> int:
        if self._state == KGDataLoaderState.KG:
            return len(self._kg_loader)
        return sum(-(-int(self._targets[rows[0]]) // self._chunk) for rows in self._plan())

    def __iter__(self) -> Iterator[Interaction]:
        if self._state == KGDataLoaderState.KG:
            self._kg_loader.generator.manual_seed(self._seed + self._epoch)
            yield from self._kg_loader
            return
        rng = np.random.default_rng([self._seed, self._epoch, 1])
        for rows in self._plan():
            yield from self._chunks(self._users[rows], self._targets[rows], rng)

    def _plan(self) -> list[np.ndarray]:
        """Rows (into ``_users``) of every batch of the epoch, longest sequence first in each."""
        rng = np.random.default_rng([self._seed, self._epoch, 0])
        noise = rng.normal(0.0, LENGTH_JITTER, len(self._users)) if self.shuffle else 0.0
        order = np.argsort(-self._targets * np.exp(noise), kind="stable")
        lengths = self._targets[order]
        batches, start = [], 0
        while start < len(order):
            columns = min(int(lengths[start]), self._chunk)
            rows = order[start : start + max(1, self._positions // columns)]
            batches.append(rows[np.argsort(-self._targets[rows], kind="stable")])
            start += len(rows)
        if self.shuffle:
            batches = [batches[k] for k in rng.permutation(len(batches))]
        return batches

    def _chunks(
        self, users: np.ndarray, targets: np.ndarray, rng: np.random.Generator
    ) -> Iterator[Interaction]:
        sequences = self._dataset.sequences
        for start in range(0, int(targets[0]), self._chunk):
            stay = int(np.count_nonzero(targets > start))
            users, targets = users[:stay], targets[:stay]
            lengths = np.minimum(targets - start, self._chunk)
            rows, columns = ragged_positions(lengths)
            flat = sequences.offsets[users][rows] + start + columns
            shape = (stay, int(lengths.max()))
            items, positives = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
            items[rows, columns] = sequences.items[flat]
            positives[rows, columns] = sequences.items[flat + 1]
            batch = {
                self._fields["user"]: users,
                CHUNK_START: np.full(stay, start),
                self._fields["length"]: lengths,
                self._fields["items"]: items,
                self._fields["target"]: positives,
            }
            if self._n_negatives:
                negatives = np.zeros((*shape, self._n_negatives), np.int64)
                drawn = self._sampler.sample(users[rows], self._n_negatives, rng)
                negatives[rows, columns] = drawn
                batch[self._fields["negative"]] = negatives
            yield Interaction({name: torch.from_numpy(v) for name, v in batch.items()})


class SequenceEvalData:
    """The data one evaluation phase needs; truthy as soon as a user has a target in it.

    Args:
        config: the run's configuration.
        dataset: a built dataset.
        phase: ``"valid"`` or ``"test"``.
    """

    def __init__(
        self, config: Any, dataset: KGSequenceDataset, phase: Literal["valid", "test"]
    ) -> None:
        self.config = config
        self._dataset = self.dataset = dataset
        self.phase = phase
        self.mode: str = config["eval_args"]["mode"][phase]

    def __len__(self) -> int:
        start, end = self._dataset.split.target_range(self.phase, self._dataset.sequences)
        return int(np.count_nonzero(end > start))


def data_preparation(
    config: Any, dataset: KGSequenceDataset
) -> tuple[SequenceTrainLoader, SequenceEvalData, SequenceEvalData]:
    """Split ``dataset`` and return its training, validation and test data.

    As RecBole's function of this name, for this package's models.
    """
    train, valid, test = dataset.build()
    return (
        SequenceTrainLoader(config, train),
        SequenceEvalData(config, valid, "valid"),
        SequenceEvalData(config, test, "test"),
    )
