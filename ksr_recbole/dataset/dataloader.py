"""Batches for training, of whole sequences or single interactions, and data for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain, count
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader.knowledge_dataloader import KGDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import InputType, KGDataLoaderState, ModelType

from ksr_recbole.config.checks import no_negatives
from ksr_recbole.config.options import Value
from ksr_recbole.config.shared import SHARED_SAMPLE, SampleOptions
from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.graph_batches import graph_loader
from ksr_recbole.dataset.negatives import NegativeSampler, SharedSampler
from ksr_recbole.dataset.sequence_datasets import WithSequences
from ksr_recbole.dataset.sequences import GIVEN_FILES, EvalPhase, Phase, ragged_positions
from ksr_recbole.distributed.sharding import owners, share_of_mean, share_of_sum
from ksr_recbole.errors import UserError

CANDIDATES = "candidates"
"""Field of an evaluation batch: item ids to score for each user, ``[B, C]``."""

CHUNK_START = "chunk_start"
"""Field of a training batch: position of its first column in the users' sequences, ``[B]``."""

SAMPLE, LOG_INCLUSION_PROBS = "sampled_items", "sampled_log_inclusion_probs"
"""Fields of a training batch, ``[1, k]``: items that all its positions are compared with, in rising
order, and the logarithms of their inclusion probabilities."""

LENGTH_JITTER = 0.1
"""Relative noise on lengths before bucketing, so that epochs batch users differently."""

_NEEDED = {
    "next-item": "the four interactions that training, validation and test need",
    GIVEN_FILES: "two interactions in the file of training, and one in each of the others",
    "next-session": "two interactions before the last two sessions, the validation and the test",
}
"""What a user must have, by name of the split."""


class TrainLoader:
    """What every training loader has: an epoch to set, negatives, and triples when asked.

    The order of batches and the negative items depend on ``seed`` and the epoch alone, so a
    resumed run sees what the uninterrupted one would have seen; RecBole draws the negatives of
    triples from NumPy's global generator, whose state checkpoints keep.  Each of several
    processes makes the same batches and yields its share of every one
    (:mod:`ksr_recbole.distributed.sharding`).

    Args:
        config: the run's configuration.
        dataset: a built dataset, the training view.
        draws_negatives: whether negatives are drawn, as ``train_neg_sample_args`` says.

    Raises:
        UserError: an option has a value it cannot have, or a user has no negative.
    """

    def __init__(
        self, config: Configuration, dataset: WithSequences, draws_negatives: bool
    ) -> None:
        self.config = config
        self._dataset = self.dataset = dataset
        self.shuffle = config["shuffle"]
        self._batch_size = config["train_batch_size"]
        self._seed = config["seed"]
        self._epoch = 0
        self._state = KGDataLoaderState.RS
        self._kg_loader: KGDataLoader | None = None
        self._n_negatives = 0
        if draws_negatives:
            self._init_negatives(config["train_neg_sample_args"])

    def _init_negatives(self, given: dict[str, Any] | None) -> None:
        if given is None or given.get("distribution") == "none":  # as RecBole writes None
            raise no_negatives(self.config["model"])
        self._n_negatives = Value(int, 1)("sample_num", given["sample_num"])
        distribution = given["distribution"]
        alpha = Value(float, 0)("alpha", given["alpha"])
        if given.get("dynamic"):
            raise UserError(
                "Config key train_neg_sample_args.dynamic is set, but negatives are drawn here as "
                "distribution and alpha say; leave it out."
            )
        self._drawn_by = distribution, alpha
        split, n_items = self._dataset.split, self._dataset.sequences.n_items
        if (split.train_end - split.train_start).max() >= n_items - 1:
            _ = self._sampler  # which refuses a user with all items

    @cached_property
    def _sampler(self) -> NegativeSampler:
        """Draws the negatives; made with the first ones, since a loaded model is not trained."""
        sequences = self._dataset.sequences
        indices, users = self._dataset.split.training_interactions(sequences)
        items = sequences.items[indices]
        return NegativeSampler(users, items, sequences.n_items, *self._drawn_by)

    is_sequential = False
    """As :attr:`SequenceEvalData.is_sequential`."""

    @property
    def uid2history_item(self) -> SeenItems:
        """What RecBole's ``full_sort_scores`` leaves out for each user: the training items."""
        return SeenItems(self._dataset, "train")

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration yields."""
        self._epoch = epoch

    def set_mode(self, state: KGDataLoaderState) -> None:
        """Choose interactions (``RS``), triples (``KG``) or both, as RecBole's KGTrainer does."""
        if state == KGDataLoaderState.RSKG and not self._trains_on_both():
            state = KGDataLoaderState.RS
        if state != KGDataLoaderState.RS and self._kg_loader is None:
            self._kg_loader = graph_loader(self.config, self._dataset)
        self._state = state

    def _trains_on_both(self) -> bool:
        """Whether triples belong to the batches: RecBole asks for them whatever the model."""
        knowledge = self.config["MODEL_TYPE"] == ModelType.KNOWLEDGE
        return knowledge and hasattr(self._dataset, "triples")

    def __len__(self) -> int:
        if self._state == KGDataLoaderState.KG:
            return len(self._triples)
        return self._n_batches()

    def __iter__(self) -> Iterator[Interaction]:
        if self._kg_loader is not None:
            self._kg_loader.generator.manual_seed(self._seed + self._epoch)
        if self._state == KGDataLoaderState.KG:
            yield from map(share_of_mean, self._triples)
            return
        batches = self._batches(np.random.default_rng([self._seed, self._epoch, 1]))
        if self._state == KGDataLoaderState.RS:
            yield from batches
            return
        # The triples start again as often as needed, as in RecBole's KnowledgeBasedDataLoader.
        triples = chain.from_iterable(self._triples for _ in count())
        for batch in batches:
            batch.update(next(triples))
            yield batch

    @property
    def _triples(self) -> KGDataLoader:
        assert self._kg_loader is not None, "set_mode makes it"
        return self._kg_loader

    @property
    def n_targets(self) -> int:
        """How many interactions an epoch trains on; ``train_batch_size`` counts them."""
        raise NotImplementedError

    def _n_batches(self) -> int:
        raise NotImplementedError

    def _batches(self, rng: np.random.Generator) -> Iterator[Interaction]:
        raise NotImplementedError


class SequenceTrainLoader(TrainLoader):
    """Iterates over training sequences in batches of about ``train_batch_size`` positions.

    Users of similar length share a batch.  A sequence longer than ``chunk_length`` comes as
    several consecutive batches of the same users, in which the model carries its state on;
    users whose sequence has ended drop out of the later ones.  Within a batch users stand in
    order of falling length, so those who stay are always the first rows.

    Every batch is an ``Interaction`` with ``B`` rows (RecBole's field names, ``T`` columns):

    - ``user_id [B]``, ``chunk_start [B]``, ``item_length [B]``: valid columns of each row;
    - ``item_id_list [B, T]``: the items read, :math:`i_t`;
    - ``item_id [B, T]``: the targets, :math:`i_{t+1}`, so that every position
      :math:`t \\ge 2` of Eq. 11 is one; 0 where there is none;
    - ``neg_item_id [B, T, N]``: sampled negatives (only for ``loss_type: BPR``);
    - ``sampled_items [1, k]``, ``sampled_log_inclusion_probs [1, k]``: what all positions are
      compared with (only for :data:`SHARED_SAMPLE`).  Every process gets the same, as the whole
      batch would have.
    """

    def __init__(self, config: Configuration, dataset: WithSequences) -> None:
        super().__init__(config, dataset, draws_negatives=config["loss_type"] == "BPR")
        self._shared: SharedSampler | None = None
        if config["loss_type"] in SHARED_SAMPLE:
            sample = SampleOptions.of(config)
            indices, _ = dataset.split.training_interactions(dataset.sequences)
            self._shared = SharedSampler(
                dataset.sequences.items[indices],
                dataset.sequences.n_items,
                sample.sample_size(dataset.sequences.n_items),
                sample.popularity if config["loss_type"] == "sampled_CE" else 0.0,
            )
        self._chunk = config["chunk_length"]
        split = dataset.split
        self._begin = dataset.sequences.offsets[:-1] + split.train_start
        targets = np.maximum(split.train_end - split.train_start - 1, 0)
        self._users = np.flatnonzero(targets)
        self._targets = targets[self._users]
        self._fields = {
            "user": config["USER_ID_FIELD"],
            "items": config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"],
            "length": config["ITEM_LIST_LENGTH_FIELD"],
            "target": config["ITEM_ID_FIELD"],
            "negative": config["NEG_PREFIX"] + config["ITEM_ID_FIELD"],
        }

    @property
    def n_targets(self) -> int:
        """How many positions of all sequences have a target."""
        return int(self._targets.sum())

    def _n_batches(self) -> int:
        return sum(-(-int(self._targets[rows[0]]) // self._chunk) for rows in self._plan())

    def _batches(self, rng: np.random.Generator) -> Iterator[Interaction]:
        if self._shared is not None:
            self._shared.shuffle(rng)
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
            rows = order[start : start + max(1, self._batch_size // columns)]
            batches.append(rows[np.argsort(-self._targets[rows], kind="stable")])
            start += len(rows)
        if self.shuffle:
            batches = [batches[k] for k in rng.permutation(len(batches))]
        return batches

    def _chunks(
        self, users: np.ndarray, targets: np.ndarray, rng: np.random.Generator
    ) -> Iterator[Interaction]:
        sequences, owner = self._dataset.sequences, owners(len(users))
        for start in range(0, int(targets[0]), self._chunk):
            stay = int(np.count_nonzero(targets > start))
            users, targets = users[:stay], targets[:stay]
            lengths = np.minimum(targets - start, self._chunk)
            rows, columns = ragged_positions(lengths)
            flat = self._begin[users][rows] + start + columns
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
            whole = Interaction({name: torch.from_numpy(v) for name, v in batch.items()})
            # A user stays with one process, where the state carried over is.
            share = share_of_sum(whole, owner[:stay])
            if self._shared is not None:
                found, log_probs = (
                    torch.from_numpy(part[None]) for part in self._shared.sample(rng)
                )
                share.update(Interaction({SAMPLE: found, LOG_INCLUSION_PROBS: log_probs}))
            yield share


class PairTrainLoader(TrainLoader):
    """Iterates over training interactions one by one, for the models of RecBole compared here.

    As RecBole's ``TrainDataLoader``, of which it keeps the fields: ``user_id``, ``item_id``,
    and the negatives, in ``neg_item_id`` for pairwise models and as further rows with
    ``label`` 0 for pointwise ones.  Sequential models (FPMC, a Markov chain of first order)
    also get the item before, as a list of length 1, and no first interactions.  Negatives are
    drawn for a whole batch at once instead of one by one.
    """

    def __init__(self, config: Configuration, dataset: WithSequences) -> None:
        super().__init__(config, dataset, draws_negatives=True)
        self._sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        self._pairwise = config["MODEL_INPUT_TYPE"] == InputType.PAIRWISE
        sequences = dataset.sequences
        self._indices, self._users = dataset.split.training_interactions(sequences)
        if self._sequential:
            follows = np.zeros(len(self._users), dtype=bool)
            follows[1:] = self._users[1:] == self._users[:-1]
            self._indices, self._users = self._indices[follows], self._users[follows]

    @property
    def n_targets(self) -> int:
        """How many pairs of a user and an item an epoch trains on."""
        return len(self._users)

    def _n_batches(self) -> int:
        return -(-len(self._users) // self._batch_size)

    def _batches(self, rng: np.random.Generator) -> Iterator[Interaction]:
        order = np.arange(len(self._users))
        if self.shuffle:
            rng.shuffle(order)
        for start in range(0, len(order), self._batch_size):
            yield share_of_mean(self._batch(order[start : start + self._batch_size], rng))

    def _batch(self, rows: np.ndarray, rng: np.random.Generator) -> Interaction:
        config, all_items = self.config, self._dataset.sequences.items
        item = config["ITEM_ID_FIELD"]
        users, items = self._users[rows], all_items[self._indices[rows]]
        batch = {config["USER_ID_FIELD"]: users, item: items}
        if self._sequential:
            batch[item + config["LIST_SUFFIX"]] = all_items[self._indices[rows] - 1][:, None]
            batch[config["ITEM_LIST_LENGTH_FIELD"]] = np.ones_like(users)
        negatives = self._sampler.sample(users, self._n_negatives, rng).T.ravel()
        copies = self._n_negatives + (not self._pairwise)
        batch = {name: np.concatenate([value] * copies) for name, value in batch.items()}
        if self._pairwise:
            batch[config["NEG_PREFIX"] + item] = negatives
        else:
            batch[item][len(rows) :] = negatives
            batch[config["LABEL_FIELD"]] = np.repeat(
                np.array([1, 0], np.float32), [len(rows), len(negatives)]
            )
        return Interaction({name: torch.from_numpy(value) for name, value in batch.items()})


class SeenItems:
    """``seen[users]`` is the items that each user had before the targets of a phase.

    Args:
        dataset: a built dataset.
        phase: the phase.
    """

    def __init__(self, dataset: WithSequences, phase: Phase) -> None:
        self._sequences = dataset.sequences
        self._end = dataset.split.history_end(phase)

    def __getitem__(self, users: Any) -> list[torch.Tensor]:
        """A tensor of item ids, ``int64 [n]``, for each user id."""
        users = np.asarray(users, dtype=np.int64)
        ends = self._end[users]
        spans = self._sequences.spans(users, np.zeros_like(ends), ends)
        return list(torch.from_numpy(self._sequences.items[spans]).split(ends.tolist()))


class SequenceEvalData:
    """The data one evaluation phase needs; truthy as soon as a user has a target in it.

    Args:
        config: the run's configuration.
        dataset: a built dataset.
        phase: ``"valid"`` or ``"test"``.

    Attributes:
        uid2history_item: what RecBole's ``full_sort_scores`` leaves out for each user, as our
            full ranking does.
    """

    is_sequential = False
    """RecBole's name for "a row is a prefix"; here a user is one, so that it leaves items out."""

    def __init__(self, config: Configuration, dataset: WithSequences, phase: EvalPhase) -> None:
        self.config = config
        self._dataset = self.dataset = dataset
        self.phase = phase
        self.mode: str = config["eval_args"]["mode"][phase]
        self.uid2history_item = SeenItems(dataset, phase)

    def __iter__(self) -> Iterator[Any]:
        """Refuses: a phase is ranked as a whole, and is no loader of batches.

        Raises:
            UserError: always.
        """
        raise UserError(
            "The data of validation and test have no batches: the trainer ranks a phase as a "
            "whole. Use trainer.evaluate(data), or data.dataset.sequences and data.dataset.split "
            "for the interactions themselves."
        )

    def __len__(self) -> int:
        start, end = self._dataset.split.target_range(self.phase, self._dataset.sequences)
        return int(np.count_nonzero(end > start))


def check_not_empty(config: Configuration, *data: TrainLoader | SequenceEvalData) -> None:
    """Refuse a dataset whose sequences leave nothing to train on, to validate or to test.

    Raises:
        UserError: one of ``data`` is empty.
    """
    if not all(map(len, data)):
        raise UserError(
            f"No user of {config['dataset']} has {_NEEDED[data[0].dataset.split.name]}; "
            "give longer sequences."
        )


def data_preparation(
    config: Configuration, dataset: WithSequences
) -> tuple[TrainLoader, SequenceEvalData, SequenceEvalData]:
    """Split ``dataset`` and return its training, validation and test data.

    As RecBole's function of this name, for the models of this comparison: whole sequences for
    those of this package (which have a ``chunk_length``), single interactions for RecBole's.
    """
    train, valid, test = dataset.build()
    loader = PairTrainLoader if config["chunk_length"] is None else SequenceTrainLoader
    return (
        loader(config, train),
        SequenceEvalData(config, valid, "valid"),
        SequenceEvalData(config, test, "test"),
    )
