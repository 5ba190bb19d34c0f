"""The memory of exact values: the value entities themselves instead of their embeddings.

Footnote 2 of the paper would integrate the embeddings of the entities that a user chose under an
attribute, and leaves that to later work.  Here a slot holds those entities themselves, each with a
weight that decays over the user's later items; a candidate is matched with it attribute by
attribute.  Nothing in a slot is learned, so no gradient flows through time, and a write changes the
values of one item only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ksr_recbole.model.kernels.autocast import in_full, without_autocast
from ksr_recbole.model.kernels.fused import fused
from ksr_recbole.model.kernels.memory import replace_first

SMALLEST = 1e-4
"""Decayed numbers of items are at least this, so that none is divided by 0."""


@dataclass(frozen=True)
class ExactUpdates:
    """What the steps write: the values of each step's item.

    Attributes:
        items: the item of each step, packed, ``int64 [P]``.
        starts: see :class:`~ksr_recbole.dataset.item_values.ItemValues`.
        columns: see :class:`~ksr_recbole.dataset.item_values.ItemValues`.
        decays: what a step leaves of each time scale's weights, ``[S]``.
    """

    items: Tensor
    starts: Tensor
    columns: Tensor
    decays: Tensor


def write(slots: Tensor, rows: Tensor, columns: Tensor, decays: Tensor) -> Tensor:
    """Slots after one item for each user: all weights decay, the item's values get 1.

    Args:
        slots: before, ``[B, S, V]``.
        rows: the user of each value, ``int64 [m]``.
        columns: the values of the users' items, ``int64 [m]``.
        decays: what the step leaves of each time scale's weights, ``[S]``.
    """
    added = torch.zeros_like(slots[:, 0]).index_put(
        (rows, columns), slots.new_ones(()), accumulate=True
    )
    return slots * decays[:, None] + added[:, None]


def _after_each_step(
    updates: ExactUpdates, slots: Tensor, widths: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """After each step the slots of the lanes that were running, and those of all lanes."""
    rows, columns = values_of(updates.items, updates.starts, updates.columns)
    begins = list(accumulate(widths, initial=0))
    # A processor waits for a GPU here, once for all steps: how many values each of them writes.
    ends = torch.searchsorted(rows, torch.tensor(begins, device=rows.device)).tolist()
    for begin, width, (first, last) in zip(begins, widths, pairwise(ends), strict=False):
        lanes = rows[first:last] - begin
        running = write(slots[:width], lanes, columns[first:last], updates.decays)
        slots = replace_first(slots, running)
        yield running, slots


def values_of(items: Tensor, starts: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The values of items ``[m]``, one after the other: number of the item, and column."""
    first = starts[items]
    counts = starts[items + 1] - first
    rows = torch.repeat_interleave(counts)
    within = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    return rows, columns[first[rows] + within]


def read(slots: Tensor, weights: Tensor, attributes: Tensor, value_weights: Tensor) -> Tensor:
    """What each value counts for a user now, ``[B, V]``: the weighted read of all slots.

    A slot is read as the share of the (decayed) items that had each value.

    Args:
        slots: ``[B, S, V]``.
        weights: of time scales and attributes, ``[B, S, A]``.
        attributes: position of each column's attribute, ``int64 [V]``.
        value_weights: what a match in each column counts, ``[V]``.
    """
    shares = slots / slots[:, :, :1].clamp(min=SMALLEST)
    return (shares * weights[:, :, attributes]).sum(1) * value_weights


@dataclass(frozen=True)
class Reads:
    """The reads after packed steps, each of which is made only when items are matched with it.

    Attributes:
        weights: of time scales and attributes, packed, ``[P, S, A]``.
        updates: what each step writes before it reads.
        slots: before the first step by lane, ``[B, S, V]``.
        widths: lanes still running at each step.
        attributes: position of each column's attribute, ``int64 [V]``.
        value_weights: what a match in each column counts, ``[V]``.
    """

    weights: Tensor
    updates: ExactUpdates
    slots: Tensor
    widths: Sequence[int]
    attributes: Tensor
    value_weights: Tensor

    def of_values(self) -> Tensor:
        """:func:`read` after each step, ``[P, V]``."""
        values: Tensor = _EachRead.apply(self.weights, self.value_weights, self)
        return values

    def of_steps(self, weights: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The slots that each step reads, and its part of ``weights [P, ...]``."""
        steps = _after_each_step(self.updates, self.slots, self.widths)
        for part, (running, _) in zip(weights.split(self.widths), steps, strict=True):
            yield running, part


class _EachRead(torch.autograd.Function):
    """:meth:`Reads.of_values`.  The slots of all steps would be ``[P, S, V]``, so they are written
    once more for the gradients instead of kept."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, value_weights: Tensor, reads: Reads) -> Tensor:
        ctx.save_for_backward(weights, value_weights)
        ctx.reads = reads
        found = [weights.new_zeros(0, len(value_weights))]  # no sequence may have a step
        for slots, of_step in reads.of_steps(weights):
            found.append(read(slots, of_step, reads.attributes, value_weights))
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        weights, value_weights = (saved.detach() for saved in ctx.saved_tensors)
        reads: Reads = ctx.reads
        found, of_values = [weights[:0]], torch.zeros_like(value_weights)
        of_steps = gradients[0].split(reads.widths)
        for (slots, of_step), gradient in zip(reads.of_steps(weights), of_steps, strict=True):
            with torch.enable_grad():
                given = of_step.detach().requires_grad_(), value_weights.requires_grad_()
                values = read(slots, given[0], reads.attributes, given[1])
            of_weights, of_value = torch.autograd.grad(values, given, gradient)
            found.append(of_weights)
            of_values += of_value
        return torch.cat(found), of_values, None


def terms(reads: Reads, shared: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Matches of items with the read after each step.

    Args:
        reads: the reads.
        shared: items that are matched with every read, ``int64 [m]``.
        own: items that are matched with one read each, ``int64 [P, C]``.

    Returns:
        Matches ``[P, m]`` and ``[P, C]``.
    """
    kernels = _kernels(reads.slots)
    if kernels is not None:
        found: tuple[Tensor, Tensor] = kernels.terms(reads, shared, own)
        return found
    taste, sparse = reads.of_values(), (reads.updates.starts, reads.updates.columns)
    return match(taste, shared, *sparse), match_own(taste, own, *sparse)


def write_all(updates: ExactUpdates, slots: Tensor, widths: Sequence[int]) -> Tensor:
    """The slots after each lane's last step, ``[B, S, V]``.

    Args:
        updates: what each step writes.
        slots: before the first step by lane, ``[B, S, V]``.
        widths: lanes still running at each step.
    """
    kernels = _kernels(slots)
    if kernels is not None:
        return kernels.write_all(updates, slots, widths)
    for _, after in _after_each_step(updates, slots, widths):
        slots = after
    return slots


def _kernels(memory: Tensor) -> ModuleType | None:
    if memory.device.type != "cpu" or memory.dtype != torch.float32:
        return None
    return fused("exact")


def match(taste: Tensor, items: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    """The match of each user with each of some items, ``[B, m]``.

    Args:
        taste: what :func:`read` gave, ``[B, V]``.
        items: item ids, the same for all users, ``int64 [m]``.
        starts: see :class:`~ksr_recbole.dataset.item_values.ItemValues`.
        columns: see :class:`~ksr_recbole.dataset.item_values.ItemValues`.
    """
    kernels = _kernels(taste)
    if kernels is not None and not taste.requires_grad:
        return kernels.match(taste, items, starts, columns)
    places = torch.stack(values_of(items, starts, columns))
    with without_autocast(taste.device):  # which would halve it, and there are no sparse halves
        taste = in_full(taste)
        having = torch.sparse_coo_tensor(
            places,
            taste.new_ones(places.shape[1]),
            (len(items), taste.shape[1]),
            check_invariants=False,
            is_coalesced=True,  # items one after the other, and the values of each of them rising
        )
        return torch.sparse.mm(having, taste.T).T


def match_own(taste: Tensor, items: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    """The match of each user with items of his or her own, ``[B, C]``.

    Args:
        taste: what :func:`read` gave, ``[B, V]``.
        items: item ids, ``int64 [B, C]``.
        starts: see :class:`~ksr_recbole.dataset.item_values.ItemValues`.
        columns: see :class:`~ksr_recbole.dataset.item_values.ItemValues`.
    """
    pairs, users, found = values_of_own(items, starts, columns)
    total = taste.new_zeros(items.numel())
    return summed(total, pairs, taste[users, found]).view(items.shape)


def values_of_own(items: Tensor, starts: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The values of users' own items ``[B, C]``, one after the other: number of the pair of a user
    and an item, number of the user, and column."""
    pairs, found = values_of(items.flatten(), starts, columns)
    return pairs, torch.div(pairs, items.shape[1], rounding_mode="floor"), found


def summed(total: Tensor, index: Tensor, values: Tensor, dim: int = 0) -> Tensor:
    """``total`` with each of ``values`` added at its ``index [m]`` of a dimension, in a fixed
    order."""
    if total.is_cuda:  # whose index_add adds in any order
        rows, added = total.transpose(0, dim), values.transpose(0, dim)
        return rows.index_put((index,), added, accumulate=True).transpose(0, dim)
    return total.index_add(dim, index, values)
