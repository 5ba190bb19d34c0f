"""KSR, the Knowledge-enhanced Sequential Recommender.

Reference:
    Jin Huang, Wayne Xin Zhao, Hongjian Dou, Ji-Rong Wen, Edward Y. Chang: "Improving Sequential
    Recommendation with Knowledge-Enhanced Memory Networks", SIGIR 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch import Tensor, nn
from torch.nn import functional as F

from ksr_recbole.config import checks
from ksr_recbole.config.options import Value, choice, declared, flag, optional, real, whole
from ksr_recbole.config.shared import fits_memory_later, meant_by
from ksr_recbole.config_types import ConfigValues
from ksr_recbole.dataset.pretrained import GraphData
from ksr_recbole.errors import UserError
from ksr_recbole.model.exact_memory import ExactMemory, ExactRead
from ksr_recbole.model.gru_recommender import GRU, GRUOptions, tanh_mlp
from ksr_recbole.model.kernels.memory import (
    BACKENDS,
    Backend,
    Updates,
    attention_weights,
    kernels,
    shared_values,
    translations,
    write_all,
    write_then_read,
)
from ksr_recbole.model.kernels.packing import Packing
from ksr_recbole.model.sequence_recommender import SequenceOptions, SequenceState, WithGraph


@dataclass(frozen=True, kw_only=True)
class KSROptions(GRUOptions):
    """The options of KSR; ``configs/model/KSR-paper.yaml`` has the paper's values."""

    item_init: str = choice("bpr", "bpr", "random")
    kb_score: bool = flag(True)
    score_mlp_layers: int = whole(1, 0, below=65)
    gamma: float = real(10.0, 0)
    """Scale of the attention, Eq. 6."""
    gate_bias: float = real(-3.0)
    """Added to the gates' argument, Eq. 8; below 0 the memory forgets more slowly."""
    memory_scale: float = real(10.0, 0)
    """Factor of m_t next to h_t in p_t (Sec. 4.3)."""
    value_matrix: str = choice("private", "private", "shared", "exact")
    """private: a value matrix for each user; shared: one for all (Sec. 5.3, Table 4); exact: the
    value entities themselves, matched with the candidate's (footnote 2)."""
    time_scales: list[float] | None = declared(
        None, optional(checks.list_of(Value(float, 0))), "at least one, each from 0"
    )
    """Items after which a value's weight in an exact slot has fallen to 1/e, for each time scale;
    0: it never falls. ~: 3, 20, 100 and 0."""
    memory_fit: str | None = choice(None, "training", "validation")
    """How the read weights of an exact memory are found. training: with the model; validation:
    fitted on validation, after the model has trained without memory. ~: training."""
    project_entities: bool = flag(False)
    """Learned projection of e_i before the write, as in the authors' released code."""
    memory_backend: Backend = choice("auto", *BACKENDS)
    """auto, numba (CPU), triton (GPU) or torch (plain); all compute the same."""
    query_mlp_layers: int = whole(1, 1, below=65)
    """Layers of the MLP from h_t to the query (Sec. 4.2.1)."""

    def check(self) -> None:
        """Refuse a memory without vectors, and a shared one whose vectors change.

        Raises:
            UserError: ``kb_input`` and ``kb_score`` are both False, ``time_scales`` has no number
                or too many, or ``value_matrix`` is shared and KB embeddings or a projection train.
        """
        if not self.reads_kb:
            raise UserError(
                "Config keys kb_input and kb_score are both False, but KSR's items have KB "
                "embeddings (Sec. 4.3); set kb_score: True."
            )
        super().check()
        if not 0 < len(self.scales) <= _MOST_SCALES:
            raise UserError(
                f"Config key time_scales has {len(self.scales)} numbers; it must have from 1 "
                f"to {_MOST_SCALES}."
            )
        if self.value_matrix == "shared" and self.updates_change:
            raise UserError(
                "Config key value_matrix is shared, which needs freeze_kg: True and "
                "project_entities: False, because the shared matrix is written once."
            )

    @property
    def user_size(self) -> int:
        """Columns of the user vector before its MLP, :math:`L_H + L_E` (Sec. 4.3)."""
        return super().user_size + (0 if self.exact else self.kg_embedding_size)

    @property
    def scales(self) -> list[float]:
        """Time scales of an exact memory, in items."""
        return list(meant_by("time_scales", self.time_scales))

    @property
    def fitted_later(self) -> bool:
        """Whether the memory's weights are found on validation, once the model is trained."""
        read = {"value_matrix": self.value_matrix, "memory_fit": self.memory_fit}
        return fits_memory_later(read)

    @property
    def exact(self) -> bool:
        """Whether slots hold value entities instead of vectors."""
        return self.value_matrix == "exact"

    @classmethod
    def of_effect(cls, config: ConfigValues) -> list[str]:
        """All, those of one kind of memory only with it."""
        without = _OF_VECTORS if config["value_matrix"] == "exact" else _OF_EXACT
        return [key for key in super().of_effect(config) if key not in without]

    @property
    def updates_change(self) -> bool:
        """Whether what items write into the memory is trained."""
        return self.project_entities or not self.freeze_kg


_OF_VECTORS = (
    "gate_bias",
    "memory_scale",
    "project_entities",
    "memory_backend",
    "gamma",
    "query_mlp_layers",
)
"""Options of memories that hold vectors."""

_OF_EXACT = ("time_scales", "memory_fit")
"""Options of the exact memory."""

_MOST_SCALES = 16
"""Time scales that an exact memory may have."""


class KSR(GRU, WithGraph):
    """A GRU over items whose state queries a key-value memory of attribute preferences.

    Sizes: ``D`` item embedding (``embedding_size``), ``H`` hidden (``hidden_size``), ``E`` KB
    embedding, key and value (``kg_embedding_size``), ``A`` attributes, ``B`` users, ``T`` steps.
    ``configs/model/KSR-paper.yaml`` holds the paper's setting and ``KSR.yaml`` the default;
    ``KSR.yaml`` documents all options, ``KSR-paper.yaml`` has what differs.

    The user vector is the concatenation of :math:`h_t` (not of the shorter transformed query,
    which the text of Sec. 4.3 writes): only then it has the size :math:`L_H + L_E` stated there.

    Args:
        config: the run's configuration.
        dataset: a built dataset with a knowledge graph and the vectors to start from.

    Raises:
        UserError: an option has a value it cannot have.
    """

    type = ModelType.KNOWLEDGE  # of its two RecBole bases the sequential one is the first

    Options = KSROptions
    options: KSROptions

    def __init__(self, config: ConfigValues, dataset: GraphData) -> None:
        self.ask_graph(config, dataset)
        super().__init__(config, dataset)
        options = self.options
        self.register_buffer("attributes", torch.from_numpy(dataset.attributes))
        n_kb = options.kg_embedding_size
        layers = 0 if options.exact else options.query_mlp_layers  # exact slots need no query
        self.query_mlp = tanh_mlp(options.hidden_size, n_kb, layers)
        self.projection = nn.Linear(n_kb, n_kb, bias=False) if options.project_entities else None
        self.INNER_PRODUCT = not options.exact
        self.exact: ExactMemory | None = None
        if options.exact:
            self.exact = ExactMemory(
                dataset.item_values,
                len(dataset.attributes),
                options.hidden_size,
                options.scales,
                fitted_later=options.fitted_later,
            )
        if options.value_matrix == "shared":
            stream = torch.from_numpy(dataset.training_items())
            # The model is not on its device yet, so the vectors' device chooses the backend.
            values = shared_values(self.updates(stream))
            self.register_buffer("shared_value_matrix", values)

    @classmethod
    def read_options(cls, config: ConfigValues) -> SequenceOptions:
        """See the base class; the backend must be one that can run on the device."""
        options = super().read_options(config)
        assert isinstance(options, KSROptions)
        kernels(options.memory_backend, config["device"], options.updates_change)
        return options

    @property
    def memory(self) -> VectorMemory | ExactMemory:
        """The memory that ``value_matrix`` names; both kinds answer to the same methods."""
        return VectorMemory(self) if self.exact is None else self.exact

    @property
    def splits_score(self) -> bool:
        """Whether a score is a sum with a part for each of the item's values: an exact memory's."""
        return self.options.exact

    # The sequence: Eq. 1 and 3-9 ------------------------------------------------------------

    def forward(
        self, item_seq: Tensor, state: SequenceState | None = None
    ) -> tuple[Tensor, SequenceState]:
        """Read items one after the other.

        Args:
            item_seq: item ids, ``int64 [B, T]``; padding (0) only after a sequence's end.
            state: what was remembered before, or ``None`` at the beginning.

        Returns:
            User preference :math:`p_t = h_t \\oplus m_t` after each step, ``[B, T, H + E]``
            (with an exact memory :math:`h_t` alone, ``[B, T, H]``), zero on padding, and the state
            after each row's last item.
        """
        packing = Packing.of((item_seq > 0).sum(1))
        state = (state or self.initial_state(len(item_seq))).to_lanes(packing)
        preference, state = self.preferences(packing.pack(item_seq), packing, state)
        return packing.unpack(preference, *item_seq.shape), state.to_rows(packing)

    def preferences(
        self, items: Tensor, packing: Packing, state: SequenceState
    ) -> tuple[Tensor, SequenceState]:
        """:meth:`forward` on packed ``items [P]``, by lane: preferences ``[P, H + E]``, with an
        exact memory ``[P, H]``."""
        hidden_states, hidden = self._run_gru(items, packing, state)  # Eq. 1
        preference, values = self.memory.preferences(
            hidden_states, items, state.values, packing.widths
        )
        return preference, SequenceState(hidden, values)

    def read(
        self, users: Tensor, items: Tensor, packing: Packing, state: SequenceState
    ) -> tuple[Any, SequenceState]:
        """User vectors after each step, ``[P, d]``, with an exact memory a :class:`ExactRead`."""
        preference, after = self.preferences(items, packing, state)
        reads = self.memory.reads(preference, items, state.values, packing.widths)
        vectors = self.user_mlp(preference)
        return (vectors if reads is None else ExactRead(vectors, reads)), after

    def read_state(self, users: Tensor, state: SequenceState) -> Any:
        """What :meth:`read` gives, in a state: user vectors ``[B, d]``; see the base class."""
        vectors = super().read_state(users, state)
        values = self.memory.read(state.hidden[-1], state.values)
        return vectors if values is None else ExactRead(vectors, values)

    def write(self, items: Tensor, packing: Packing, state: SequenceState) -> SequenceState:
        """States by lane after packed ``items [P]``."""
        state = super().write(items, packing, state)  # Eq. 1
        return state._replace(values=self.memory.write_all(items, state.values, packing.widths))

    def last_preference(self, state: SequenceState) -> Tensor:
        """:math:`p_t` in a state, ``[B, H + E]``: one read a row.  With an exact memory
        :math:`h_t` alone, ``[B, H]``."""
        return self.memory.preference(state.hidden[-1], state.values)

    def initial_state(self, n_users: int) -> SequenceState:
        """Zero GRU states and zero value matrices for ``n_users`` users."""
        zeros = self.item_embedding.weight.new_zeros(n_users, *self.memory.slot_shape)
        return super().initial_state(n_users)._replace(values=zeros)

    def attention(self, hidden_states: Tensor) -> Tensor:
        """Attention over the attributes (Eq. 6) for GRU states ``[..., H]``: ``[..., A]``.

        Of an exact memory it is each attribute's share of the reading weights' sizes.
        """
        return self.memory.attention(hidden_states)

    def value_matrices(self, state: SequenceState) -> Tensor:
        """Value matrices that are read in a state, ``[B, A, E]``; exact slots as mean vectors."""
        return self.memory.matrices(state.values, self.entity_vectors)

    def entity_vectors(self, entities: Tensor) -> Tensor:
        """KB embeddings of entity ids ``[...]`` as the memory has them, ``[..., E]``."""
        vectors = self.entity_embedding(entities)
        return vectors if self.projection is None else self.projection(vectors)

    def updates(self, items: Tensor) -> Updates:
        """What packed ``items [P]`` write, each different item's update vectors once."""
        distinct, index = torch.unique(items, return_inverse=True)
        entities = self.entity_vectors(self.item_entities[distinct])
        table = translations(entities, self.relation_embedding(self.attributes))  # Eq. 7
        return Updates(table, index, self.options.gate_bias)

    # The match with a candidate's values -----------------------------------------------------

    def user_vectors(self, read: Any) -> Tensor:
        """See the base class."""
        return read.users if isinstance(read, ExactRead) else read

    def terms(
        self, read: Any, shared: Tensor | None = None, own: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Matches with an exact memory; see the base class."""
        if self.exact is None or not isinstance(read, ExactRead):
            return None, None
        return self.exact.terms(read, shared, own)

    # Training -------------------------------------------------------------------------------

    def calculate_kg_loss(self, interaction: Interaction) -> Tensor:
        """TransE loss of one batch of triples, a scalar, to train the KB embeddings jointly.

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


class VectorMemory:
    """The paper's memory: slots of vectors, read with weights that a user's hidden state
    decides (Eq. 5-9).

    It answers to the same methods as :class:`~ksr_recbole.model.exact_memory.ExactMemory`.  What
    it reads and learns are layers of the model.

    Args:
        model: the model.
    """

    def __init__(self, model: KSR) -> None:
        self._model, self._options = model, model.options
        self._shared = model.options.value_matrix == "shared"

    @property
    def slot_shape(self) -> tuple[int, int]:
        """Attributes and columns of one user's value matrix, which is empty if it is shared."""
        n_attributes = 0 if self._shared else len(self._model.attributes)
        return n_attributes, self._options.kg_embedding_size

    def attention(self, hidden_states: Tensor) -> Tensor:
        """Attention over the attributes (Eq. 6) for GRU states ``[..., H]``: ``[..., A]``."""
        query = self._model.query_mlp(hidden_states)  # Sec. 4.2.1, the transformed h
        keys = self._model.relation_embedding(self._model.attributes)
        return attention_weights(query, keys, self._options.gamma)

    def preferences(
        self, hidden_states: Tensor, items: Tensor, slots: Tensor, widths: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """:math:`p_t` after each of packed ``items [P]``, ``[P, H + E]``, and the slots by lane."""
        weights = self._model.attention(hidden_states)
        if self._shared:
            memory = weights @ self._model.shared_value_matrix  # Eq. 5
        else:
            updates, backend = self._model.updates(items), self._options.memory_backend
            memory, slots = write_then_read(weights, updates, slots, widths, backend)  # Eq. 5, 8-9
        return self._join(hidden_states, memory), slots

    def write_all(self, items: Tensor, slots: Tensor, widths: Sequence[int]) -> Tensor:
        """The slots after packed ``items [P]``, by lane."""
        if self._shared:
            return slots
        updates, backend = self._model.updates(items), self._options.memory_backend
        return write_all(updates, slots, widths, backend)  # Eq. 8-9

    def preference(self, hidden: Tensor, slots: Tensor) -> Tensor:
        """:math:`p_t` in a state, ``[B, H + E]``."""
        values = self.matrices(slots, self._model.entity_vectors)
        weights = self._model.attention(hidden)
        return self._join(hidden, torch.einsum("ba,bae->be", weights, values))  # Eq. 5

    def _join(self, hidden: Tensor, memory: Tensor) -> Tensor:
        """:math:`p_t = h_t \\oplus m_t` (Sec. 4.3), the memory scaled by ``memory_scale``."""
        return torch.cat([hidden, self._options.memory_scale * memory], dim=-1)

    def matrices(self, slots: Tensor, vectors_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Value matrices that are read, ``[B, A, E]``."""
        if self._shared:
            return self._model.shared_value_matrix.expand(len(slots), -1, -1)
        return slots

    # A score is the inner product of Eq. 10 alone: there is no match with a candidate's values.

    def reads(self, *_: Any) -> None:
        """No read but the one in :meth:`preferences`."""

    def read(self, *_: Any) -> None:
        """No read but the one in :meth:`preference`."""
