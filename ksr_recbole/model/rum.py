"""RUM, recommendation with user memory networks: item level (RUM_I) and feature level (RUM_F).

Reference:
    Xu Chen, Hongteng Xu, Yongfeng Zhang, Jiaxi Tang, Yixin Cao, Zheng Qin, Hongyuan Zha:
    "Sequential Recommendation with User Memory Networks", WSDM 2018.

As Sec. 5.1 and 5.2 of the KSR paper have it: both read KB embeddings, the feature level's key
matrix holds the attribute embeddings and its value matrix is updated with the items' KB
embeddings.  Equations are cited as "RUM" with the section of Chen et al.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from recbole.utils import ModelType
from torch import Tensor, nn
from torch.nn import functional as F

from ksr_recbole.config.options import SIZE, choice, flag, real, whole
from ksr_recbole.config_types import ConfigValues
from ksr_recbole.dataset.pretrained import GraphData
from ksr_recbole.errors import UserError
from ksr_recbole.model.kernels.memory import replace_first
from ksr_recbole.model.kernels.packing import Packing
from ksr_recbole.model.kernels.scores import sampled_scores
from ksr_recbole.model.sequence_recommender import (
    SequenceOptions,
    SequenceRecommender,
    SequenceState,
    WithGraph,
)


class Read(NamedTuple):
    """What items are scored with at ``P`` positions.

    Attributes:
        users: user embedding :math:`p_u`, ``[P, d]``.
        memory: the user's memory :math:`M^u`: item ids ``int64 [P, K]``, 0 for an empty slot
            (RUM_I), or value matrices ``[P, A, E]`` (RUM_F).
    """

    users: Tensor
    memory: Tensor


@dataclass(frozen=True, kw_only=True)
class RUMOptions(SequenceOptions):
    """The options of both levels of RUM (Chen et al.)."""

    item_init: str = choice("bpr", "bpr", "random")
    kb_score: bool = flag(True)
    kb_scale: float = real(1.0, 0)
    """Factor of all KB embeddings."""
    loss_type: str = choice("BPR", "BPR")
    """BPR: sampled negatives, Eq. 11; a softmax over all items would read the memory for each."""
    memory_weight: float = real(1.0, 0)
    """alpha, weight of the memory next to the user embedding (RUM, Sec. 3.2)."""
    attention_scale: float = real(1.0, 0)
    """beta, strength of the attention (RUM, Sec. 3.3)."""

    def check(self) -> None:
        """Refuse a RUM without KB embeddings.

        Raises:
            UserError: ``kb_score`` is False.
        """
        super().check()
        if not self.kb_score:
            raise UserError(
                "Config key kb_score is False, but RUM is compared with KB embeddings (Sec. 5.1); "
                "set kb_score: True."
            )


@dataclass(frozen=True, kw_only=True)
class RUMItemOptions(RUMOptions):
    """The options of RUM, item level."""

    memory_slots: int = whole(5, 1, below=SIZE)
    """Latest items that are kept (RUM, Sec. 3.3)."""


class RUM(SequenceRecommender, WithGraph):
    """A user embedding merged with what the candidate item finds in the user's memory.

    :math:`s = (p_u + \\alpha\\, p^m_{u,i})^\\top x_i` (RUM, Sec. 3.2), where the item vector
    :math:`x_i = q_i \\oplus e_i` also is the query to the memory.  Unlike KSR's, the read
    depends on the candidate.

    Args:
        config: the run's configuration; ``configs/model/RUM_I.yaml`` and ``RUM_F.yaml``.
        dataset: a built dataset with a knowledge graph.

    Raises:
        UserError: an option has a value it cannot have.
    """

    type = ModelType.KNOWLEDGE  # of its two RecBole bases the sequential one is the first
    Options = RUMOptions
    options: RUMOptions
    INNER_PRODUCT = False

    def __init__(self, config: ConfigValues, dataset: GraphData) -> None:
        self.ask_graph(config, dataset)
        super().__init__(config, dataset)
        self.user_embedding = nn.Embedding(
            self.n_users, self.options.feature_size(self.options.kb_score)
        )
        nn.init.xavier_normal_(self.user_embedding.weight)

    def read_state(self, users: Tensor, state: SequenceState) -> Read:
        """User embeddings ``[B, d]`` and memories in a state; see the base class."""
        return Read(self.user_embedding(users), state.values)


class RUMItem(RUM):
    """Item level: the memory holds the user's latest ``memory_slots`` items (RUM, Sec. 3.3).

    Reads of slot :math:`k` for item :math:`i` weigh :math:`z_k \\propto \\exp(\\beta\\,
    x_i^\\top x_k)`, so that the whole score needs only inner products of items.
    """

    Options = RUMItemOptions
    options: RUMItemOptions

    def initial_state(self, n_users: int) -> SequenceState:
        """Empty slots for ``n_users`` users, ``int64 [n_users, K]``."""
        empty = torch.zeros(
            n_users,
            self.options.memory_slots,
            dtype=torch.long,
            device=self.item_embedding.weight.device,
        )
        return SequenceState(self.item_embedding.weight.new_zeros(0, n_users, 0), empty)

    def read(
        self, users: Tensor, items: Tensor, packing: Packing, state: SequenceState
    ) -> tuple[Read, SequenceState]:
        """First in, first out: the items up to each step, ``[P, K]``; see the base class."""
        stream = self._stream(items, packing, state)
        slots = torch.arange(self.options.memory_slots, device=items.device)
        window = stream[packing.rows[:, None], packing.steps[:, None] + 1 + slots]
        return Read(self.user_embedding(users), window), self._latest(stream, packing, state)

    def write(self, items: Tensor, packing: Packing, state: SequenceState) -> SequenceState:
        """The slots after packed ``items [P]``; see the base class."""
        return self._latest(self._stream(items, packing, state), packing, state)

    def _stream(self, items: Tensor, packing: Packing, state: SequenceState) -> Tensor:
        """The slots before and then the items, by row, ``[B, K + T]``."""
        before = packing.to_rows(state.values)
        padded = packing.unpack(items, len(before), len(packing.widths))
        return torch.cat([before, padded], dim=1)

    def _latest(self, stream: Tensor, packing: Packing, state: SequenceState) -> SequenceState:
        lengths = torch.bincount(packing.rows, minlength=len(stream))
        slots = torch.arange(self.options.memory_slots, device=stream.device)
        after = stream.gather(1, lengths[:, None] + slots)
        return SequenceState(state.hidden, packing.to_lanes(after))

    def read_last(self, users: Tensor, item_seq: Tensor, lengths: Tensor) -> Read:
        """The latest items of each row, ``[B, K]``; see the base class."""
        columns = lengths[:, None] - self.options.memory_slots
        columns = columns + torch.arange(self.options.memory_slots, device=lengths.device)
        # Padding in front is what a slot before the first item holds.
        latest = F.pad(item_seq, (1, 0)).gather(1, (columns + 1).clamp(min=0))
        return Read(self.user_embedding(users), latest)

    def scores(self, read: Read, items: Tensor) -> Tensor:
        """Scores of ``items [P, C]``, ``[P, C]``."""
        n_rows, n_items = items.shape
        needed, index = torch.unique(torch.cat([items, read.memory], dim=1), return_inverse=True)
        vectors = self.item_vectors(needed)
        items, slots = index.split([n_items, self.options.memory_slots], dim=1)
        queries = F.embedding(items.flatten(), vectors)
        agreement = sampled_scores(queries, vectors, slots.repeat_interleave(n_items, dim=0))
        agreement = agreement.view(n_rows, n_items, self.options.memory_slots)
        own = sampled_scores(read.users, vectors, items)
        return own + self._from_memory(agreement, read.memory)

    def all_scores(self, read: Read, vectors: Tensor | None = None) -> Tensor:
        """Scores of every item, padding included, ``[P, n_items]``."""
        vectors = self.item_vectors() if vectors is None else vectors
        agreement = torch.einsum("id,pkd->pik", vectors, vectors[read.memory])
        return read.users @ vectors.T + self._from_memory(agreement, read.memory)

    def _from_memory(self, agreement: Tensor, memory: Tensor) -> Tensor:
        """:math:`\\alpha\\, p^{m\\top}_{u,i} x_i` from :math:`x_i^\\top x_k` ``[P, C, K]``."""
        empty = (memory == 0)[:, None, :]
        # An empty memory (all slots masked) must give 0, not NaN.
        lowest = torch.finfo(agreement.dtype).min
        scaled = (self.options.attention_scale * agreement).masked_fill(empty, lowest)
        weights = torch.softmax(scaled, dim=-1) * ~empty  # RUM, Sec. 3.3
        return self.options.memory_weight * (weights * agreement).sum(-1)


class RUMFeature(RUM):
    """Feature level: a value for every attribute, erased and added to (RUM, Sec. 3.4).

    Keys are the attributes' relation embeddings.  A learned map takes an item vector to the
    keys' space; the KB embedding of the item just read decides what is erased and added.
    """

    def __init__(self, config: ConfigValues, dataset: GraphData) -> None:
        super().__init__(config, dataset)
        n_kb = self.options.kg_embedding_size
        self.register_buffer("attributes", torch.from_numpy(dataset.attributes))
        self.query = nn.Linear(self.options.feature_size(self.options.kb_score), n_kb, bias=False)
        self.erase, self.add = nn.Linear(n_kb, n_kb), nn.Linear(n_kb, n_kb)

    def initial_state(self, n_users: int) -> SequenceState:
        """Zero value matrices, ``[n_users, A, E]``."""
        zeros = self.item_embedding.weight.new_zeros
        values = zeros(n_users, len(self.attributes), self.options.kg_embedding_size)
        return SequenceState(zeros(0, n_users, 0), values)

    def attention(self, vectors: Tensor) -> Tensor:
        """Attention of item vectors ``[..., d]`` over the attributes, ``[..., A]``."""
        keys = self.relation_embedding(self.attributes)
        return torch.softmax(self.options.attention_scale * (self.query(vectors) @ keys.T), dim=-1)

    def read(
        self, users: Tensor, items: Tensor, packing: Packing, state: SequenceState
    ) -> tuple[Read, SequenceState]:
        """Value matrices after each step, ``[P, A, E]``; see the base class."""
        values, states = state.values, [state.values[:0]]  # no sequence may have a step
        for running in self._steps(items, packing, values):
            states.append(running)
            values = replace_first(values, running)
        return Read(self.user_embedding(users), torch.cat(states)), state._replace(values=values)

    def write(self, items: Tensor, packing: Packing, state: SequenceState) -> SequenceState:
        """Value matrices after packed ``items [P]``; see the base class."""
        values = state.values
        for running in self._steps(items, packing, values):
            values = replace_first(values, running)
        return state._replace(values=values)

    def _steps(self, items: Tensor, packing: Packing, values: Tensor) -> Iterator[Tensor]:
        """Value matrices of the lanes still running after each step (RUM, Sec. 3.4, write)."""
        distinct, index = torch.unique(items, return_inverse=True)
        attention = self.attention(self.item_vectors(distinct))
        entities = self.entity_embedding(self.item_entities[distinct])
        erase, add = torch.sigmoid(self.erase(entities)), torch.tanh(self.add(entities))
        for rows in index.split(packing.widths):
            z = attention[rows, :, None]
            kept = 1 - z * erase[rows, None]
            values = values[: len(rows)] * kept + z * add[rows, None]
            yield values

    def scores(self, read: Read, items: Tensor) -> Tensor:
        """Scores of ``items [P, C]``, ``[P, C]``."""
        distinct, index = torch.unique(items, return_inverse=True)
        vectors = self.item_vectors(distinct)
        weights = F.embedding(index, self.attention(vectors))
        found = weights @ read.memory  # p_m of each candidate, [P, C, E]
        entities = F.embedding(index, vectors[:, self.options.embedding_size :])
        own = sampled_scores(read.users, vectors, index)
        return own + self.options.memory_weight * (found * entities).sum(-1)

    def all_scores(self, read: Read, vectors: Tensor | None = None) -> Tensor:
        """Scores of every item, padding included, ``[P, n_items]``."""
        vectors = self.item_vectors() if vectors is None else vectors
        agreement = read.memory @ vectors[:, self.options.embedding_size :].T  # [P, A, n_items]
        found = (agreement * self.attention(vectors).T).sum(1)
        return read.users @ vectors.T + self.options.memory_weight * found
