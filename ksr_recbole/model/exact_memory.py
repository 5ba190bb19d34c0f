"""The exact memory as a part of a model: its data, what it learns, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ksr_recbole.dataset.item_values import ItemValues
from ksr_recbole.errors import UserError
from ksr_recbole.model.kernels import exact

MOST_CELLS = 1 << 21
"""Numbers that one user's slots may have; a batch holds those of some hundred users."""


class ExactRead(NamedTuple):
    """What items are scored with: a user vector, and what each value counts for the user.

    Attributes:
        users: user vectors of Eq. 10, ``[P, d]``.
        values: see :func:`ksr_recbole.model.kernels.exact.read`, ``[P, V]``; after the steps of a
            sequence the reads that are still to be made.
    """

    users: Tensor
    values: Tensor | exact.Reads


class ExactMemory(nn.Module):
    """Slots of exact values, read with weights that a user's hidden state decides.

    The weight of an attribute on a time scale is a learned number, times a gate of the attribute
    from 0 to 2 that :math:`h_t` decides.  The numbers begin at 0, where a model is one without a
    memory, and the gates at 1.  A number may be negative: what a user chose over years may count
    for a candidate, and what she has had enough of lately against it.

    A memory that is ``fitted_later`` learns nothing while its model trains: it sleeps, so that
    nothing is written or read, until weights are loaded, or found on validation once the model is
    trained (:mod:`ksr_recbole.trainer.memory_fit`).  Its gates stay at 1.

    Args:
        values: the values of items.
        n_attributes: size of A.
        hidden_size: size of :math:`h_t`.
        time_scales: items after which a value's weight has fallen to 1/e; 0: it never falls.
        fitted_later: whether the weights are found after training.

    Raises:
        UserError: a user's slots would be too large.
    """

    starts: Tensor
    columns: Tensor
    attributes: Tensor
    entities: Tensor
    value_weights: Tensor
    decays: Tensor

    def __init__(
        self,
        values: ItemValues,
        n_attributes: int,
        hidden_size: int,
        time_scales: Sequence[float],
        fitted_later: bool = False,
    ) -> None:
        super().__init__()
        size = len(time_scales) * len(values.weights)
        if size > MOST_CELLS:
            raise UserError(
                f"Config key value_matrix is exact, which needs {size * 4 / 2**20:,.0f} MiB for "
                f"each user; the limit is {MOST_CELLS * 4 >> 20} MiB. Name fewer relations with "
                "the config key attributes, or give fewer time_scales."
            )
        for name in ("starts", "columns", "attributes", "entities"):
            self.register_buffer(name, torch.from_numpy(getattr(values, name)))
        self.register_buffer("value_weights", torch.from_numpy(values.weights))
        rates = [1 / scale if scale else 0.0 for scale in time_scales]
        self.register_buffer("decays", torch.exp(-torch.tensor(rates)), persistent=False)
        self.n_attributes = n_attributes
        self.weights = nn.Parameter(torch.zeros(len(time_scales), n_attributes))
        self.gates = nn.Linear(hidden_size, n_attributes)
        nn.init.zeros_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)
        self.fitted_later = self._asleep = fitted_later
        self.requires_grad_(not fitted_later)
        self.register_load_state_dict_post_hook(_wake_up)

    def sleep(self) -> None:
        """Forget the weights of the read, and write and read nothing until :meth:`wake`."""
        self._asleep = True
        nn.init.zeros_(self.weights)

    @torch.no_grad()
    def wake(self, weights: Tensor) -> None:
        """Write and read again, with weights of time scales and attributes ``[S, A]``."""
        self._asleep = False
        self.weights.copy_(weights)

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Inside the block nothing is written or read; the weights stay."""
        before, self._asleep = self._asleep, True
        try:
            yield
        finally:
            self._asleep = before

    @property
    def slot_shape(self) -> tuple[int, int]:
        """Time scales and columns of one user's slots, which hold nothing in its sleep."""
        return len(self.decays), 0 if self._asleep else len(self.attributes)

    def reading(self, hidden_states: Tensor) -> Tensor:
        """Weights of the read after GRU states ``[..., H]``, ``[..., S, A]``."""
        gates = 2 * torch.sigmoid(self.gates(hidden_states))
        return self.weights * gates[..., None, :]

    def attention(self, hidden_states: Tensor) -> Tensor:
        """Each attribute's share of the sizes of :meth:`reading`'s weights, ``[..., A]``."""
        sizes = self.reading(hidden_states).abs().sum(-2)
        even = sizes.new_tensor(1e-12)  # before training all weights are 0
        return (sizes + even) / (sizes + even).sum(-1, keepdim=True)

    def preferences(
        self, hidden_states: Tensor, items: Tensor, slots: Tensor, widths: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """:math:`h_t`, for the memory enters a score as a match; and the slots by lane."""
        return hidden_states, self.write_all(items, slots, widths)

    def preference(self, hidden: Tensor, slots: Tensor) -> Tensor:
        """:math:`h_t` in a state, ``[B, H]``."""
        return hidden

    def reads(
        self, hidden_states: Tensor, items: Tensor, slots: Tensor, widths: Sequence[int]
    ) -> exact.Reads | None:
        """The reads after each of packed ``items [P]``, from ``slots`` by lane."""
        if self._asleep:
            return None
        return exact.Reads(
            self.reading(hidden_states),
            self._updates(items),
            slots,
            widths,
            self.attributes,
            self.value_weights,
        )

    def write_all(self, items: Tensor, slots: Tensor, widths: Sequence[int]) -> Tensor:
        """The slots ``[B, S, V]`` after packed ``items [P]``, by lane."""
        if self._asleep:
            return slots
        return exact.write_all(self._updates(items), slots, widths)

    def read(self, hidden: Tensor, slots: Tensor) -> Tensor | None:
        """:meth:`counts`, ``[B, V]``, or nothing in its sleep."""
        return None if self._asleep else self.counts(hidden, slots)

    def counts(self, hidden: Tensor, slots: Tensor) -> Tensor:
        """What each value counts in a state, ``[B, V]``."""
        return exact.read(slots, self.reading(hidden), self.attributes, self.value_weights)

    def terms(
        self, read: ExactRead, shared: Tensor | None, own: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Parts of the scores of ``shared [m]`` and of each user's ``own [P, C]`` items."""
        values, nothing = read.values, self.starts.new_empty(0)
        shared = nothing if shared is None else shared
        own = nothing.view(1, 0).expand(len(read.users), 0) if own is None else own
        if isinstance(values, exact.Reads):
            return exact.terms(values, shared, own)
        sparse = (self.starts, self.columns)
        return exact.match(values, shared, *sparse), exact.match_own(values, own, *sparse)

    def parts(self, slots: Tensor, items: Tensor) -> Tensor:
        """Matches of each user's own items by time scale and attribute, before any weight.

        Args:
            slots: ``[B, S, V]``.
            items: item ids, ``int64 [B, C]``.

        Returns:
            ``[B, C, S, A]``.
        """
        pairs, users, found = exact.values_of_own(items, self.starts, self.columns)
        held = slots[users, :, found] / slots[users, :, 0].clamp(min=exact.SMALLEST)
        matched = held * self.value_weights[found, None]
        at = pairs * self.n_attributes + self.attributes[found]
        n_cells, n_scales = items.numel() * self.n_attributes, slots.shape[1]
        total = exact.summed(slots.new_zeros(n_cells, n_scales), at, matched)
        return total.view(*items.shape, self.n_attributes, n_scales).transpose(-1, -2)

    def matrices(self, slots: Tensor, vectors_of: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean vector of the values in each slot over the longest time scale, ``[B, A, E]``.

        Args:
            slots: ``[B, S, V]``.
            vectors_of: vectors ``[V, E]`` of entity ids ``[V]``.
        """
        vectors = vectors_of(self.entities)
        held = slots[:, int(self.decays.argmax())]
        found = held.new_zeros(len(held), self.n_attributes, vectors.shape[1])
        counts = held.new_zeros(len(held), self.n_attributes)
        attributes = self.attributes[1:]
        found = exact.summed(found, attributes, held[:, 1:, None] * vectors[1:], dim=1)
        counts = exact.summed(counts, attributes, held[:, 1:], dim=1)
        return found / counts.clamp(min=exact.SMALLEST)[:, :, None]

    def _updates(self, items: Tensor) -> exact.ExactUpdates:
        return exact.ExactUpdates(items, self.starts, self.columns, self.decays)


def _wake_up(memory: nn.Module, _: object) -> None:
    # A hook of the module's own would belong to the original in each of its copies.
    assert isinstance(memory, ExactMemory)
    memory._asleep = False
