"""GRU, GRU++ and GRU_F: the recommender of Sec. 4.1 alone, the baselines of Sec. 5.1.

References:
    Balázs Hidasi, Alexandros Karatzoglou, Linas Baltrunas, Domonkos Tikk: "Session-based
    Recommendations with Recurrent Neural Networks", ICLR 2016 (GRU).
    Massimo Quadrana, Balázs Hidasi, Alexandros Karatzoglou, Domonkos Tikk: "Parallel Recurrent
    Neural Network Architectures for Feature-rich Session-based Recommendations", RecSys 2016
    (GRU_F).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ksr_recbole.config.options import SIZE, flag, real, whole
from ksr_recbole.config_types import ConfigValues
from ksr_recbole.dataset.pretrained import ModelData
from ksr_recbole.errors import UserError
from ksr_recbole.model.kernels.aligned import AlignedLinear
from ksr_recbole.model.kernels.gru import run_gru
from ksr_recbole.model.kernels.packing import Packing
from ksr_recbole.model.sequence_recommender import (
    SequenceOptions,
    SequenceRecommender,
    SequenceState,
)


@dataclass(frozen=True, kw_only=True)
class GRUOptions(SequenceOptions):
    """The options of the models with a GRU, with the values of the method GRU."""

    hidden_size: int = whole(256, 1, below=SIZE)
    """GRU state h_t, L_H."""
    num_layers: int = whole(1, 1, below=65)
    """GRU layers."""
    kb_input: bool = flag(False)
    """The GRU's input is q_i and e_i, as in GRU_F; the paper's is q_i alone (Eq. 1)."""
    score_mlp_layers: int = whole(0, 0, below=65)
    """Layers of each MLP of Eq. 10; 0: plain inner product, as Eq. 2."""
    dropout_prob: float = real(0.3, 0, below=1)
    """Dropout on the GRU's input; the paper has none."""

    def check(self) -> None:
        """Refuse an inner product of vectors of two sizes.

        Raises:
            UserError: ``score_mlp_layers`` is 0, and user and item vectors differ in size.
        """
        super().check()
        n_user, n_scored = self.user_size, self.feature_size(self.kb_score)
        if self.score_mlp_layers == 0 and n_user != n_scored:
            raise UserError(
                f"Config key score_mlp_layers is 0, but a user vector has {n_user} columns and an "
                f"item vector {n_scored}; make hidden_size and embedding_size fit, or use layers."
            )

    @property
    def reads_kb(self) -> bool:
        """Whether the GRU or the score reads KB embeddings."""
        return self.kb_input or self.kb_score

    @property
    def user_size(self) -> int:
        """Columns of the user vector before its MLP (Eq. 2: :math:`h_t`)."""
        return self.hidden_size


class GRU(SequenceRecommender):
    """A GRU over items (Eq. 1) whose state scores items (Eq. 2, or Eq. 10 without a memory).

    Sizes: ``D`` item embedding (``embedding_size``), ``H`` hidden (``hidden_size``), ``E`` KB
    embedding (``kg_embedding_size``).  ``configs/model/GRU.yaml``, ``GRU++.yaml`` and
    ``GRU_F.yaml`` have the options that tell the three methods of the paper apart:
    ``item_init`` (learned or BPR vectors), ``freeze_item``, ``kb_input`` and ``kb_score`` (KB
    embeddings next to the item embeddings in the GRU's input and in the score), and
    ``score_mlp_layers`` (Eq. 2 or Eq. 10).

    Args:
        config: the run's configuration.
        dataset: a built dataset with the vectors to start from.

    Raises:
        UserError: an option has a value it cannot have.
    """

    Options = GRUOptions
    options: GRUOptions

    def __init__(self, config: ConfigValues, dataset: ModelData) -> None:
        super().__init__(config, dataset)
        options = self.options
        n_input, n_scored = (
            options.feature_size(kb) for kb in (options.kb_input, options.kb_score)
        )
        n_user, n_layers = options.user_size, options.score_mlp_layers
        self.gru = nn.GRU(n_input, options.hidden_size, options.num_layers, batch_first=True)
        self.user_mlp = tanh_mlp(n_user, n_user, n_layers)
        self.item_mlp = tanh_mlp(n_scored, n_user, n_layers)
        self.dropout = nn.Dropout(options.dropout_prob)

    # The sequence: Eq. 1 --------------------------------------------------------------------

    def initial_state(self, n_users: int) -> SequenceState:
        """Zero GRU states for ``n_users`` users, and an empty memory."""
        zeros, options = self.item_embedding.weight.new_zeros, self.options
        hidden = zeros(options.num_layers, n_users, options.hidden_size)
        return SequenceState(hidden, zeros(n_users, 0))

    def read(
        self, users: Tensor, items: Tensor, packing: Packing, state: SequenceState
    ) -> tuple[Tensor, SequenceState]:
        """User vectors after each step, ``[P, d]``; see the base class."""
        preference, state = self.preferences(items, packing, state)
        return self.user_mlp(preference), state

    def preferences(
        self, items: Tensor, packing: Packing, state: SequenceState
    ) -> tuple[Tensor, SequenceState]:
        """Sequential preference :math:`h_t` after each packed item, ``[P, H]``, and the state."""
        hidden_states, hidden = self._run_gru(items, packing, state)
        return hidden_states, SequenceState(hidden, state.values)

    def write(self, items: Tensor, packing: Packing, state: SequenceState) -> SequenceState:
        """The state after packed ``items [P]``, without reading it."""
        return SequenceState(self._run_gru(items, packing, state)[1], state.values)

    def last_preference(self, state: SequenceState) -> Tensor:
        """Preference in a state, ``[B, H]``."""
        return state.hidden[-1]

    def read_state(self, users: Tensor, state: SequenceState) -> Tensor:
        """User vectors in a state, ``[B, d]``; see the base class."""
        return self.user_mlp(self.last_preference(state))

    def _run_gru(
        self, items: Tensor, packing: Packing, state: SequenceState
    ) -> tuple[Tensor, Tensor]:
        return run_gru(self.gru, *self._inputs(items), state.hidden, packing)  # Eq. 1

    def _inputs(self, items: Tensor) -> tuple[Tensor, Tensor | None]:
        """The GRU's input vectors ``[m, D]`` and which of them each of ``items [P]`` reads.

        ``None`` instead of the latter: each item has a vector of its own.
        """
        if self.training and self.options.dropout_prob > 0:  # drawn anew at every step
            return self.dropout(self._gru_input(items)), None
        distinct, index = torch.unique(items, return_inverse=True)
        return self._gru_input(distinct), index

    def _gru_input(self, items: Tensor) -> Tensor:
        return self.item_features(items, self.options.kb_input)

    # The score: Eq. 2 and 10 ----------------------------------------------------------------

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """Item side of Eq. 10, :math:`MLP(q_i \\oplus e_i)`, or of Eq. 2, ``[..., d]``.

        Args:
            items: item ids of any shape; all items including padding when ``None``.
        """
        return self.item_mlp(super().item_vectors(items))


def tanh_mlp(n_in: int, n_out: int, n_layers: int) -> nn.Sequential:
    """Multilayer perceptron whose every layer ends in *tanh* (Sec. 4.3, under Eq. 10).

    Args:
        n_in: size of the input.
        n_out: size of every layer's output.
        n_layers: number of layers; with none the input is the output.
    """
    layers: list[nn.Module] = []
    for k in range(n_layers):
        layers += [AlignedLinear(n_in if k == 0 else n_out, n_out), nn.Tanh()]
    return nn.Sequential(*layers)
