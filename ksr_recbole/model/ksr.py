"""KSR, the Knowledge-enhanced Sequential Recommender.

Reference:
    Jin Huang, Wayne Xin Zhao, Hongjian Dou, Ji-Rong Wen, Edward Y. Chang: "Improving Sequential
    Recommendation with Knowledge-Enhanced Memory Networks", SIGIR 2018.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import KnowledgeRecommender
from torch import Tensor, nn
from torch.nn import functional as F

from ksr_recbole.config import option
from ksr_recbole.dataset.dataloader import CHUNK_START
from ksr_recbole.dataset.kg_sequence_dataset import KGSequenceDataset
from ksr_recbole.errors import UserError
from ksr_recbole.evaluation.scorer import CANDIDATES
from ksr_recbole.model.gru import run_gru
from ksr_recbole.model.layers import tanh_mlp
from ksr_recbole.model.losses import softmax_loss
from ksr_recbole.model.memory import (
    BACKENDS,
    attention_weights,
    shared_values,
    write_all,
    write_then_read,
)
from ksr_recbole.model.packing import Packing
from ksr_recbole.model.scores import sampled_scores
from ksr_recbole.pretraining.pretrain import pretrained_vectors


class SequenceState(NamedTuple):
    """What the model remembers of a sequence, to go on from there.

    Attributes:
        hidden: GRU states, ``[num_layers, B, H]``.
        values: value matrices :math:`V^u`, ``[B, A, E]`` (``[B, 0, E]`` when shared).
    """

    hidden: Tensor
    values: Tensor

    def first(self, n: int) -> SequenceState:
        """The state of the first ``n`` users."""
        return SequenceState(self.hidden[:, :n].contiguous(), self.values[:n])

    def detach(self) -> SequenceState:
        """The same numbers without their history of gradients."""
        return SequenceState(self.hidden.detach(), self.values.detach())


class KSR(KnowledgeRecommender):
    """A GRU over items whose state queries a key-value memory of attribute preferences.

    Sizes: ``D`` item embedding (``embedding_size``), ``H`` hidden (``hidden_size``), ``E`` KB
    embedding, key and value (``kg_embedding_size``), ``A`` attributes, ``B`` users, ``T`` steps.
    ``configs/model/KSR.yaml`` documents the options; their defaults are the paper's.

    The user vector is the concatenation of :math:`h_t` (not of the shorter transformed query,
    which the text of Sec. 4.3 writes): only then it has the size :math:`L_H + L_E` stated there.

    Args:
        config: the run's configuration.
        dataset: a built :class:`KGSequenceDataset`; vectors not pretrained yet are pretrained.

    Raises:
        UserError: an option has a value it cannot have.
    """

    def __init__(self, config: Any, dataset: KGSequenceDataset) -> None:
        super().__init__(config, dataset)
        self.ITEM_SEQ = self.ITEM_ID + config["LIST_SUFFIX"]
        self.ITEM_SEQ_LEN = config["ITEM_LIST_LENGTH_FIELD"]
        self.POS_ITEM_ID = self.ITEM_ID
        self._read_options(config)
        vectors = pretrained_vectors(config, dataset)
        self.item_embedding = nn.Embedding.from_pretrained(
            torch.from_numpy(vectors.items), freeze=self.freeze_item, padding_idx=0
        )
        self.entity_embedding = nn.Embedding.from_pretrained(
            torch.from_numpy(vectors.entities), freeze=self.freeze_kg, padding_idx=0
        )
        self.relation_embedding = nn.Embedding.from_pretrained(
            torch.from_numpy(vectors.relations), freeze=self.freeze_kg
        )
        self.register_buffer("item_entities", torch.from_numpy(dataset.item_entities))
        self.register_buffer("attributes", torch.from_numpy(dataset.attributes))
        n_item, n_hidden, n_kb = self.embedding_size, self.hidden_size, self.kg_embedding_size
        self.gru = nn.GRU(n_item, n_hidden, self.num_layers, batch_first=True)
        self.query_mlp = tanh_mlp(n_hidden, n_kb, self.query_mlp_layers)
        self.user_mlp = tanh_mlp(n_hidden + n_kb, n_hidden + n_kb, self.score_mlp_layers)
        self.item_mlp = tanh_mlp(n_item + n_kb, n_hidden + n_kb, self.score_mlp_layers)
        self.projection = nn.Linear(n_kb, n_kb, bias=False) if self.project_entities else None
        self.dropout = nn.Dropout(self.dropout_prob)
        self._carried: SequenceState | None = None
        if self.value_matrix == "shared":
            self.register_buffer("shared_value_matrix", self._write_shared(dataset))

    def _read_options(self, config: Any) -> None:
        self.embedding_size = option(config, "embedding_size", int, minimum=1)
        self.hidden_size = option(config, "hidden_size", int, minimum=1)
        self.num_layers = option(config, "num_layers", int, minimum=1)
        self.kg_embedding_size = option(config, "kg_embedding_size", int, minimum=1)
        self.gamma = option(config, "gamma", float, minimum=0)
        self.freeze_item = option(config, "freeze_item", bool)
        self.freeze_kg = option(config, "freeze_kg", bool)
        self.value_matrix = option(config, "value_matrix", str, choices=("private", "shared"))
        self.project_entities = option(config, "project_entities", bool)
        self.query_mlp_layers = option(config, "query_mlp_layers", int, minimum=1)
        self.score_mlp_layers = option(config, "score_mlp_layers", int, minimum=1)
        self.dropout_prob = option(config, "dropout_prob", float, minimum=0, below=1)
        self.loss_type = option(config, "loss_type", str, choices=("BPR", "CE"))
        self.train_batch_size = option(config, "train_batch_size", int, minimum=1)
        self.chunk_length = option(config, "chunk_length", int, minimum=1)
        self.memory_backend = option(config, "memory_backend", str, choices=BACKENDS)
        if self.value_matrix == "shared" and (self.project_entities or not self.freeze_kg):
            raise UserError(
                "Config key value_matrix is shared, which needs freeze_kg: True and "
                "project_entities: False, because the shared matrix is written once."
            )

    # The sequence: Eq. 1 and 3-9 ------------------------------------------------------------

    def forward(
        self, item_seq: Tensor, state: SequenceState | None = None
    ) -> tuple[Tensor, SequenceState]:
        """Read items one after the other.

        Args:
            item_seq: item ids, ``int64 [B, T]``; padding (0) only after a sequence's end.
            state: what was remembered before, or ``None`` at the beginning.

        Returns:
            User preference :math:`p_t = h_t \\oplus m_t` after each step, ``[B, T, H + E]``,
            zero on padding, and the state after each row's last item.
        """
        packing = Packing.of((item_seq > 0).sum(1))
        state = state or self.initial_state(len(item_seq))
        preference, state = self._read(packing.pack(item_seq), packing, state)
        return packing.unpack(preference, *item_seq.shape), state

    def _read(
        self, items: Tensor, packing: Packing, state: SequenceState
    ) -> tuple[Tensor, SequenceState]:
        """:meth:`forward` on packed ``items [P]``: preferences ``[P, H + E]``."""
        state = SequenceState(packing.to_lanes(state.hidden, 1), packing.to_lanes(state.values))
        inputs = self._inputs(items)
        hidden_states, hidden = run_gru(self.gru, *inputs, state.hidden, packing)  # Eq. 1
        weights = self.attention(hidden_states)
        if self.value_matrix == "shared":
            memory, values = weights @ self.shared_value_matrix, state.values  # Eq. 5
        else:
            memory, values = write_then_read(  # Eq. 5 and 7-9
                weights,
                self._entity_vectors(items),
                self.relation_embedding(self.attributes),
                state.values,
                packing.widths,
                self.memory_backend,
            )
        state = SequenceState(packing.to_rows(hidden, 1), packing.to_rows(values))
        return torch.cat([hidden_states, memory], dim=-1), state

    def _inputs(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The GRU's input vectors ``[m, D]`` and which of them each of ``items [P]`` reads."""
        if self.training and self.dropout_prob > 0:  # drawn anew at every step
            index = torch.arange(len(items), device=items.device)
            return self.dropout(self.item_embedding(items)), index
        distinct, index = torch.unique(items, return_inverse=True)
        return self.item_embedding(distinct), index

    def _last_preference(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """:math:`p_t` after each row's last item only, ``[B, H + E]``: one read a row."""
        packing = Packing.of(lengths)
        state = self.initial_state(len(item_seq))
        steps, left = packing.pack(item_seq).split(packing.widths), packing.to_lanes(lengths)
        # In pieces, so that memory stays bounded however long the longest history is.
        for start in range(0, len(steps), self.chunk_length):
            items = torch.cat(steps[start : start + self.chunk_length])
            piece = Packing.of((left - start).clamp(0, self.chunk_length))
            state = self._write(items, piece, state)
        hidden, values = state.hidden[-1], state.values
        if self.value_matrix == "shared":
            values = self.shared_value_matrix.expand(len(hidden), -1, -1)
        memory = torch.einsum("ba,bae->be", self.attention(hidden), values)  # Eq. 5
        return packing.to_rows(torch.cat([hidden, memory], dim=-1))

    def _write(self, items: Tensor, packing: Packing, state: SequenceState) -> SequenceState:
        """States by lane after packed ``items [P]``."""
        _, hidden = run_gru(self.gru, *self._inputs(items), state.hidden, packing)  # Eq. 1
        if self.value_matrix == "shared":
            return SequenceState(hidden, state.values)
        values = write_all(  # Eq. 7-9
            self._entity_vectors(items),
            self.relation_embedding(self.attributes),
            state.values,
            packing.widths,
            self.memory_backend,
        )
        return SequenceState(hidden, values)

    def initial_state(self, n_users: int) -> SequenceState:
        """Zero GRU states and zero value matrices for ``n_users`` users."""
        n_attributes = 0 if self.value_matrix == "shared" else len(self.attributes)
        zeros = self.item_embedding.weight.new_zeros
        return SequenceState(
            hidden=zeros(self.num_layers, n_users, self.hidden_size),
            values=zeros(n_users, n_attributes, self.kg_embedding_size),
        )

    def attention(self, hidden_states: Tensor) -> Tensor:
        """Attention over the attributes (Eq. 6) for GRU states ``[..., H]``: ``[..., A]``."""
        query = self.query_mlp(hidden_states)  # Sec. 4.2.1, the transformed h
        return attention_weights(query, self.relation_embedding(self.attributes), self.gamma)

    def _entity_vectors(self, items: Tensor) -> Tensor:
        vectors = self.entity_embedding(self.item_entities[items])
        return vectors if self.projection is None else self.projection(vectors)

    def _write_shared(self, dataset: KGSequenceDataset) -> Tensor:
        """The shared value matrix after all training interactions in the order of time."""
        sequences = dataset.sequences
        indices, _ = dataset.split.training_interactions(sequences)
        indices = indices[np.argsort(sequences.timestamps[indices], kind="stable")]
        stream = torch.from_numpy(sequences.items[indices])
        relations = self.relation_embedding(self.attributes)
        return shared_values(self._entity_vectors(stream), relations, self.memory_backend)

    # The score: Eq. 10 ----------------------------------------------------------------------

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Item side of Eq. 10, :math:`MLP(q_i \\oplus e_i)`, ``[..., H + E]``.

        Args:
            items: item ids of any shape; all items including padding when ``None``.
        """
        if items is None:
            items = torch.arange(self.n_items, device=self.item_entities.device)
        entities = self.entity_embedding(self.item_entities[items])
        return self.item_mlp(torch.cat([self.item_embedding(items), entities], dim=-1))

    def user_vectors(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """User side of Eq. 10 after each user's last item, ``[B, H + E]``.

        Args:
            item_seq: item ids, ``int64 [B, T]``, padded with 0 at the end.
            lengths: valid columns of each row, at least 1, ``[B]``.
        """
        return self.user_mlp(self._last_preference(item_seq, lengths))

    # Training: Eq. 11 -----------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Loss of one batch of :class:`SequenceTrainLoader`, summed over targets (Eq. 11).

        The sum is divided by ``train_batch_size``, so that every target weighs the same
        whatever the size of its batch.
        """
        packing = Packing.of((interaction[self.ITEM_SEQ] > 0).sum(1))
        items, positives = (packing.pack(interaction[f]) for f in (self.ITEM_SEQ, self.POS_ITEM_ID))
        preference, state = self._read(items, packing, self._state_of(interaction))
        self._carried = state.detach()
        users = self.user_mlp(preference)
        if self.loss_type == "CE":
            loss = self._cross_entropy(users, positives)
        else:
            loss = self._pairwise(users, positives, packing.pack(interaction[self.NEG_ITEM_ID]))
        return loss / self.train_batch_size

    def _state_of(self, interaction: Interaction) -> SequenceState:
        n_users = len(interaction[self.USER_ID])
        if int(interaction[CHUNK_START][0]) == 0:
            return self.initial_state(n_users)
        return self._carried.first(n_users)

    def _pairwise(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """BPR loss over sampled negatives, Eq. 11: ``users [P, .]``, ``negatives [P, N]``."""
        items = torch.cat([positives[:, None], negatives], dim=1)
        if items.numel() >= self.n_items:
            vectors = self.item_vectors()
        else:
            distinct, items = torch.unique(items, return_inverse=True)
            vectors = self.item_vectors(distinct)
        scores = sampled_scores(users, vectors, items)  # Eq. 10
        return -F.logsigmoid(scores[:, :1] - scores[:, 1:]).sum()

    def _cross_entropy(self, users: Tensor, positives: Tensor) -> Tensor:
        """RecBole's ``CE``: softmax over all items instead of sampled negatives."""
        return softmax_loss(users, self.item_vectors()[1:], positives - 1)

    def calculate_kg_loss(self, interaction: Interaction) -> Tensor:
        """TransE loss of one batch of triples, for training the KB embeddings jointly.

        Pairwise as RecBole's knowledge-aware models; used with ``freeze_kg: False`` and
        ``train_kg_step`` of at least 1.
        """
        head = self.entity_embedding(interaction[self.HEAD_ENTITY_ID])
        relation = self.relation_embedding(interaction[self.RELATION_ID])
        tail = self.entity_embedding(interaction[self.TAIL_ENTITY_ID])
        wrong = self.entity_embedding(interaction[self.NEG_TAIL_ENTITY_ID])
        distance = (head + relation - tail).norm(dim=1)
        wrong_distance = (head + relation - wrong).norm(dim=1)
        return -F.logsigmoid(wrong_distance - distance).mean()

    # Prediction -----------------------------------------------------------------------------

    def score_candidates(self, interaction: Interaction) -> Tensor:
        """Scores of each user's candidates with one forward pass per user.

        Args:
            interaction: ``item_id_list [B, T]``, ``item_length [B]``, ``candidates [B, C]``.

        Returns:
            ``[B, C]``.
        """
        users = self.user_vectors(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        items = interaction[CANDIDATES]
        distinct, inverse = torch.unique(items, return_inverse=True)
        return sampled_scores(users, self.item_vectors(distinct), inverse)  # Eq. 10

    def predict(self, interaction: Interaction) -> Tensor:
        """Scores of one item a row: ``item_id [B]`` after ``item_id_list [B, T]``; ``[B]``."""
        users = self.user_vectors(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return (users * self.item_vectors(interaction[self.ITEM_ID])).sum(-1)  # Eq. 10

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of all items, padding included, after ``item_id_list``: ``[B, n_items]``."""
        users = self.user_vectors(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return users @ self.item_vectors().T  # Eq. 10
