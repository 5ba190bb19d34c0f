"""What all sequence models share: a state carried along, the loss of Eq. 11, prediction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import (
    AbstractRecommender,
    KnowledgeRecommender,
    SequentialRecommender,
)
from torch import Tensor, nn
from torch.nn import functional as F

from ksr_recbole.config.options import SIZE, Options, choice, flag, real, whole
from ksr_recbole.config.shared import SHARED_SAMPLE, SampleOptions
from ksr_recbole.config_types import ConfigValues
from ksr_recbole.dataset.dataloader import CANDIDATES, CHUNK_START, LOG_INCLUSION_PROBS, SAMPLE
from ksr_recbole.dataset.pretrained import GraphData, ModelData
from ksr_recbole.errors import UserError
from ksr_recbole.model.kernels.losses import (
    gbce_beta,
    gbce_loss,
    sampled_softmax_loss,
    softmax_loss,
)
from ksr_recbole.model.kernels.packing import Packing
from ksr_recbole.model.kernels.scores import sampled_scores


class SequenceState(NamedTuple):
    """What a model remembers of a sequence, so that it can continue from there.

    Attributes:
        hidden: GRU states, ``[num_layers, B, H]``; ``[0, B, 0]`` in a model without a GRU.
        values: the memory, ``[B, ...]``: KSR's and RUM_F's value matrices ``[B, A, E]``, the
            slots of an exact memory ``[B, S, V]``, the items in RUM_I's slots ``int64 [B, K]``.
    """

    hidden: Tensor
    values: Tensor

    @classmethod
    def cat(cls, states: Sequence[SequenceState]) -> SequenceState:
        """The states of all users of ``states``, one after the other."""
        hidden, values = zip(*states, strict=True)
        return cls(torch.cat(hidden, dim=1), torch.cat(values))

    def of_users(self, users: slice | Tensor) -> SequenceState:
        """The state of some users, in the order of ``users``: a slice, or ``int64 [n]``."""
        return SequenceState(self.hidden[:, users].contiguous(), self.values[users])

    def to(self, device: torch.device) -> SequenceState:
        """The same state on a device."""
        return SequenceState(self.hidden.to(device), self.values.to(device))

    def detach(self) -> SequenceState:
        """The same numbers without their history of gradients."""
        return SequenceState(self.hidden.detach(), self.values.detach())

    def to_lanes(self, packing: Packing) -> SequenceState:
        """Reordered from rows to the lanes of ``packing``."""
        return SequenceState(packing.to_lanes(self.hidden, 1), packing.to_lanes(self.values))

    def to_rows(self, packing: Packing) -> SequenceState:
        """Reordered from the lanes of ``packing`` to rows."""
        return SequenceState(packing.to_rows(self.hidden, 1), packing.to_rows(self.values))


@dataclass(frozen=True, kw_only=True)
class SequenceOptions(Options):
    """The options that all sequence models read."""

    embedding_size: int = whole(256, 1, below=SIZE)
    """Item embedding q_i (Sec. 4.3)."""
    kg_embedding_size: int = whole(50, 1, below=SIZE)
    """KB embedding, key and value vectors, L_E = L_K = L_V."""
    item_init: str = choice("random", "bpr", "random")
    """bpr: pretrained with BPR (Sec. 4.3); random: learned, with freeze_item: False."""
    kb_score: bool = flag(False)
    """Item side of the score reads q_i and e_i (Sec. 4.3); False: q_i alone."""
    kb_scale: float = real(1.0, 0)
    """Factor of all KB embeddings; it sharpens the gates of Eq. 8 and the attention of Eq. 6."""
    freeze_item: bool = flag(False)
    """Keep the pretrained item embeddings fixed."""
    freeze_kg: bool = flag(True)
    """Keep the KB embeddings (and so the keys) fixed."""
    loss_type: str = choice("CE", "BPR", "CE", *SHARED_SAMPLE)
    """BPR: sampled negatives, Eq. 11; CE: softmax over all items (RecBole); sampled_CE: the same
    estimated from a sample of items; gBCE: gSASRec's, on a sample."""
    train_batch_size: int = whole(4096, 1)
    """Positions (targets) in a batch."""
    chunk_length: int = whole(64, 1)
    """Longer sequences are trained in pieces of this length; states are carried over."""

    def check(self) -> None:
        """Refuse item embeddings that would never be learned.

        Raises:
            UserError: ``freeze_item`` is True with ``item_init: random``.
        """
        if self.freeze_item and self.item_init == "random":
            raise UserError(
                "Config key freeze_item is True with item_init: random, so the item "
                "embeddings would never be learned; use freeze_item: False or item_init: bpr."
            )

    @classmethod
    def of_effect(cls, config: ConfigValues) -> list[str]:
        """All, those of the KB embeddings only where the model reads these."""
        every = super().of_effect(config)
        reads_kb = any(config[key] for key in ("kb_input", "kb_score") if key in every)
        return [key for key in every if reads_kb or key not in _OF_KB]

    @property
    def reads_kb(self) -> bool:
        """Whether the model reads KB embeddings."""
        return self.kb_score

    def feature_size(self, with_kb: bool) -> int:
        """Columns of :math:`q_i`, or of :math:`q_i \\oplus e_i`."""
        return self.embedding_size + (self.kg_embedding_size if with_kb else 0)


_OF_KB = ("kg_embedding_size", "kb_scale", "freeze_kg")
"""Options that mean something only where KB embeddings are read."""


class SequenceRecommender(SequentialRecommender):
    """A model that reads a user's items one after the other and scores items after each.

    It trains on the batches of :class:`~ksr_recbole.dataset.dataloader.SequenceTrainLoader`
    and answers RecBole's ``predict`` and ``full_sort_predict`` and the evaluation's
    ``score_candidates``.  A model says how it reads (:meth:`read`, and :meth:`write` and
    :meth:`read_state` where only the end counts) and how it scores what it has read: by inner
    products with :meth:`item_vectors` (Eq. 2 and 10), unless it overrides :meth:`scores` and
    :meth:`all_scores` and says so in :attr:`INNER_PRODUCT`.

    Items have an embedding :math:`q_i`, learned (``item_init: random``) or pretrained with BPR,
    and, as far as ``kb_score`` (and ``kb_input`` of models with a GRU) say, a KB embedding
    :math:`e_i`.

    Sizes: ``B`` users, ``T`` steps, ``P`` packed positions, ``d`` size of a user vector.

    Args:
        config: the run's configuration.
        dataset: a built dataset, or what else is :class:`~ksr_recbole.dataset.pretrained.ModelData`
            (for KB embeddings :class:`~ksr_recbole.dataset.pretrained.GraphData`).

    Raises:
        UserError: an option has a value it cannot have, or vectors are missing.
    """

    Options: type[SequenceOptions] = SequenceOptions
    """The class of the model's options."""
    options: SequenceOptions
    CONSTANT_BUFFERS: ClassVar[frozenset[str]] = frozenset(
        {
            *("item_entities", "attributes", "shared_value_matrix", "exact.value_weights"),
            *("exact.starts", "exact.columns", "exact.attributes", "exact.entities"),
        }
    )
    """Buffers of the models of this package, none of which training changes."""

    INNER_PRODUCT = True
    """Whether a score is the inner product of a user vector and an item vector (Eq. 2 and 10)."""

    def __init__(self, config: ConfigValues, dataset: ModelData) -> None:
        super().__init__(config, dataset)
        self.n_users = dataset.num(self.USER_ID)
        self._carried: SequenceState | None = None
        self.options = self.read_options(config)
        self.sample_options = SampleOptions.of(config)
        self.item_embedding = self._item_embedding(dataset)
        if self.options.reads_kb:
            self._init_kb(cast(GraphData, dataset))

    @classmethod
    def read_options(cls, config: ConfigValues) -> SequenceOptions:
        """The options in a configuration, checked; no model is made.

        Raises:
            UserError: an option has a value it cannot have.
        """
        return cls.Options.of(config)

    def _item_embedding(self, dataset: ModelData) -> nn.Embedding:
        options = self.options
        if options.item_init == "random":
            embedding = nn.Embedding(self.n_items, options.embedding_size, padding_idx=0)
            nn.init.xavier_normal_(embedding.weight)
            return embedding
        vectors = torch.tensor(_given(dataset, "items"))  # a copy, as it may be trained
        return nn.Embedding.from_pretrained(vectors, freeze=options.freeze_item, padding_idx=0)

    def _init_kb(self, dataset: GraphData) -> None:
        """KB embeddings by entity and by relation (Sec. 4.2.2), and the entity of every item."""
        options = self.options
        entities, relations = (
            torch.from_numpy(_given(dataset, kind)) * options.kb_scale
            for kind in ("entities", "relations")
        )
        self.entity_embedding = nn.Embedding.from_pretrained(
            entities, freeze=options.freeze_kg, padding_idx=0
        )
        self.relation_embedding = nn.Embedding.from_pretrained(relations, freeze=options.freeze_kg)
        self.register_buffer("item_entities", torch.from_numpy(dataset.item_entities))

    # Items ----------------------------------------------------------------------------------

    def item_features(self, items: Tensor, with_kb: bool) -> Tensor:
        """:math:`q_i`, or :math:`q_i \\oplus e_i` (Sec. 4.3), of items ``[...]``: ``[..., D]``."""
        embeddings = self.item_embedding(items)
        if not with_kb:
            return embeddings
        return torch.cat([embeddings, self.entity_embedding(self.item_entities[items])], dim=-1)

    # What a model provides ------------------------------------------------------------------

    @abstractmethod
    def initial_state(self, n_users: int) -> SequenceState:
        """The state of ``n_users`` users who have no interaction yet."""

    @abstractmethod
    def read(
        self, users: Tensor, items: Tensor, packing: Packing, state: SequenceState
    ) -> tuple[Any, SequenceState]:
        """Read packed items.

        Args:
            users: user of each packed item, ``int64 [P]``.
            items: item ids, ``int64 [P]``.
            packing: their layout.
            state: what was remembered before, by lane.

        Returns:
            What items are scored with after each step (user vectors ``[P, d]`` for models that
            score by inner products) and the state after each lane's last step, by lane.
        """

    @abstractmethod
    def write(self, items: Tensor, packing: Packing, state: SequenceState) -> SequenceState:
        """The state after packed ``items [P]``, by lane: :meth:`read`'s second result."""

    @abstractmethod
    def read_state(self, users: Tensor, state: SequenceState) -> Any:
        """What items are scored with in a state, as :meth:`read`'s first result.

        Args:
            users: ``int64 [B]``.
            state: states in the order of ``users``.
        """

    def advance(
        self, item_seq: Tensor, lengths: Tensor, state: SequenceState | None = None
    ) -> SequenceState:
        """The state after each row's last item, by row.

        Args:
            item_seq: item ids, ``int64 [B, T]``, padded with 0 at the end.
            lengths: valid columns of each row, from 0 upwards, ``int64 [B]``.
            state: what was remembered before, by row, or ``None`` at the beginning.
        """
        packing = Packing.of(lengths)
        state = (state or self.initial_state(len(item_seq))).to_lanes(packing)
        steps, left = packing.pack(item_seq).split(packing.widths), packing.to_lanes(lengths)
        # In pieces, so that memory stays bounded however long the longest history is.
        for start in range(0, len(steps), self.options.chunk_length):
            items = torch.cat(steps[start : start + self.options.chunk_length])
            piece = Packing.of((left - start).clamp(0, self.options.chunk_length))
            state = self.write(items, piece, state)
        return state.to_rows(packing)

    def read_last(self, users: Tensor, item_seq: Tensor, lengths: Tensor) -> Any:
        """As :meth:`read`'s first result, after each row's last item only.

        Args:
            users: ``int64 [B]``.
            item_seq: item ids, ``int64 [B, T]``, padded with 0 at the end.
            lengths: valid columns of each row, ``int64 [B]``.
        """
        return self.read_state(users, self.advance(item_seq, lengths))

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Item side of the score, :math:`q_i` or :math:`q_i \\oplus e_i`, ``[..., d]``.

        Args:
            items: item ids of any shape; all items including padding when ``None``.
        """
        if items is None:
            items = torch.arange(self.n_items, device=self.item_embedding.weight.device)
        return self.item_features(items, self.options.kb_score)

    # Scores ---------------------------------------------------------------------------------

    def scores(self, read: Any, items: Tensor) -> Tensor:
        """Scores of ``items [P, C]`` after what :meth:`read` gave, ``[P, C]``."""
        if items.numel() >= self.n_items:
            vectors, given = self.item_vectors(), items
        else:
            distinct, given = torch.unique(items, return_inverse=True)
            vectors = self.item_vectors(distinct)
        scores = sampled_scores(self.user_vectors(read), vectors, given)  # Eq. 2 and 10
        return _sum(scores, self.terms(read, own=items)[1])

    def all_scores(self, read: Any, vectors: Tensor | None = None) -> Tensor:
        """Scores of every item, padding included, ``[P, n_items]``.

        Args:
            read: what :meth:`read` gave.
            vectors: :meth:`item_vectors` of all items, where they are at hand.
        """
        vectors = self.item_vectors() if vectors is None else vectors
        scores = self.user_vectors(read) @ vectors.T  # Eq. 2 and 10
        everything = torch.arange(self.n_items, device=scores.device)
        return _sum(scores, self.terms(read, everything)[0])

    def user_vectors(self, read: Any) -> Tensor:
        """User side of the inner product in what :meth:`read` gave, ``[P, d]``."""
        return read

    def terms(
        self, read: Any, shared: Tensor | None = None, own: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """What scores have besides the inner product, or nothing.

        Args:
            read: what :meth:`read` gave.
            shared: items that all users are scored with, ``int64 [m]``.
            own: each user's own items, ``int64 [P, C]``.

        Returns:
            Of the shared items ``[P, m]``, and of the own ones ``[P, C]``.
        """
        return None, None

    # Training: Eq. 11 -----------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Loss of one batch of ``SequenceTrainLoader``, summed over targets (Eq. 11), a scalar.

        The sum is divided by ``train_batch_size``, so that every target weighs the same
        whatever the size of its batch.

        Raises:
            UserError: a row of the batch has a target for its last position only.
        """
        if interaction[self.POS_ITEM_ID].dim() != 2:
            raise UserError(
                "calculate_loss needs a target for every position of a sequence; take batches of "
                "RecBole's data_preparation after ksr_recbole.register()."
            )
        packing = Packing.of((interaction[self.ITEM_SEQ] > 0).sum(1))
        items, positives = (packing.pack(interaction[f]) for f in (self.ITEM_SEQ, self.POS_ITEM_ID))
        users = interaction[self.USER_ID][packing.rows]
        read, state = self.read(users, items, packing, self._state_of(interaction, packing))
        self._carried = state.to_rows(packing).detach()
        if self.options.loss_type == "CE":
            loss = self._cross_entropy(read, positives)
        elif self.options.loss_type in SHARED_SAMPLE:
            sample, log_inclusion_probs = (
                interaction[field][0] for field in (SAMPLE, LOG_INCLUSION_PROBS)
            )
            loss = self._sampled_loss(read, positives, sample, log_inclusion_probs)
        else:
            negatives = packing.pack(interaction[self.NEG_ITEM_ID])
            scores = self.scores(read, torch.cat([positives[:, None], negatives], dim=1))
            loss = -F.logsigmoid(scores[:, :1] - scores[:, 1:]).sum()  # Eq. 11
        return loss / self.options.train_batch_size

    def _state_of(self, interaction: Interaction, packing: Packing) -> SequenceState:
        n_users = len(interaction[self.USER_ID])
        if self._carried is None or int(interaction[CHUNK_START][0]) == 0:
            return self.initial_state(n_users)
        return self._carried.of_users(slice(n_users)).to_lanes(packing)

    def _cross_entropy(self, read: Any, positives: Tensor) -> Tensor:
        """RecBole's ``CE``: softmax over all items instead of sampled negatives."""
        items = torch.arange(1, self.n_items, device=positives.device)
        terms, _ = self.terms(read, items)
        vectors = self.item_vectors()[1:]
        return softmax_loss(self.user_vectors(read), vectors, positives - 1, terms)

    def _sampled_loss(
        self, read: Any, positives: Tensor, sample: Tensor, log_inclusion_probs: Tensor
    ) -> Tensor:
        """The loss over one sample of items, in rising order, for all positions."""
        # Where in the sample each target is, or -1: there it is no negative.
        row = torch.searchsorted(sample, positives).clamp(max=len(sample) - 1)
        target_rows = row.masked_fill(sample[row] != positives, -1)
        # One product for the vectors of the sample and of each different target.
        targets, target_of = torch.unique(positives, return_inverse=True)
        vectors = self.item_vectors(torch.cat([sample, targets]))
        sample_vectors, target_vectors = vectors.split([len(sample), len(targets)])
        users = self.user_vectors(read)
        sample_terms, target_terms = self.terms(read, sample, positives[:, None])
        products = sampled_scores(users, target_vectors, target_of[:, None])
        target_scores = _sum(products, target_terms)[:, 0]
        given = users, target_scores, sample_vectors
        if self.options.loss_type == "sampled_CE":
            return sampled_softmax_loss(*given, log_inclusion_probs, target_rows, sample_terms)
        beta = gbce_beta(len(sample) / (self.n_items - 1), self.sample_options.calibration)
        return gbce_loss(*given, target_rows, beta, sample_terms)

    # Prediction -----------------------------------------------------------------------------

    def _read_history(self, interaction: Interaction) -> Any:
        fields = (self.USER_ID, self.ITEM_SEQ, self.ITEM_SEQ_LEN)
        return self.read_last(*(interaction[field] for field in fields))

    def score_candidates(self, interaction: Interaction) -> Tensor:
        """Scores of each user's candidates with one forward pass per user.

        Args:
            interaction: ``user_id [B]``, ``item_id_list [B, T]``, ``item_length [B]``,
                ``candidates [B, C]``.

        Returns:
            ``[B, C]``.
        """
        return self.scores(self._read_history(interaction), interaction[CANDIDATES])

    def predict(self, interaction: Interaction) -> Tensor:
        """Scores of one item a row: ``item_id [B]`` after ``item_id_list [B, T]``; ``[B]``."""
        read = self._read_history(interaction)
        return self.scores(read, interaction[self.ITEM_ID][:, None])[:, 0]

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of all items, padding included, after ``item_id_list``: ``[B, n_items]``."""
        return self.all_scores(self._read_history(interaction))


class WithGraph(KnowledgeRecommender):
    """Mixin over a :class:`SequenceRecommender` that is one of RecBole's knowledge-aware models.

    It adds what RecBole's code expects of those: the fields of triples, ``n_entities`` and
    ``n_relations``.  It is the last of a class's bases, and its :meth:`ask_graph` is called before
    any other ``__init__``, since RecBole's two base classes do not pass on their arguments.
    """

    def __init__(self) -> None:
        AbstractRecommender.__init__(self)  # what RecBole's SequentialRecommender means to call

    def ask_graph(self, config: ConfigValues, dataset: ModelData) -> None:
        """Set RecBole's attributes; every layer that the model had by then is lost."""
        super().__init__(config, dataset)


def _sum(scores: Tensor, terms: Tensor | None) -> Tensor:
    return scores if terms is None else scores + terms


def _given(dataset: ModelData, kind: str) -> np.ndarray:
    """The vectors of a kind that a dataset has for its models.

    Raises:
        UserError: it has none.
    """
    vectors = getattr(dataset.pretrained, kind, None)
    if vectors is None:
        raise UserError(
            f"The dataset has no pretrained vectors of its {kind}; call "
            "`pretrained_vectors(config, dataset)` before the model is made."
        )
    return vectors
