"""Sequences of unequal length as one matrix without padding, step by step.

The layout is that of ``torch.nn.utils.rnn.PackedSequence``: the sequences, longest first, are
the *lanes*; the first ``widths[0]`` rows of a packed matrix are the first step of every lane,
the next ``widths[1]`` rows the second step of those still running, and so on.  A step of a
recurrence therefore reads and writes adjacent rows, and nothing is computed on padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def steps_of_lanes(widths: Sequence[int], n_lanes: int) -> tuple[Tensor, Tensor]:
    """First packed row of each step, ``int64 [T]``, and steps of each lane, ``int64 [n_lanes]``."""
    counts = torch.tensor(widths, dtype=torch.long)
    lengths = torch.searchsorted(-counts, -torch.arange(n_lanes))
    return counts.cumsum(0) - counts, lengths


@dataclass(frozen=True)
class Packing:
    """Where the steps of ``B`` padded sequences ``[B, T]`` stand in the packed rows.

    Attributes:
        widths: lanes still running at each step, never rising; their sum is ``P``.
        order: row of the padded sequences that each lane is, ``int64 [B]``; ``None`` if the
            rows stand in order of falling length already.
        rows: row of each packed row, ``int64 [P]``.
        steps: column of each packed row, ``int64 [P]``.
        last: packed row of each lane's last step, ``int64 [L]``, for the ``L`` lanes that have
            a step at all.
    """

    widths: list[int]
    order: Tensor | None
    rows: Tensor
    steps: Tensor
    last: Tensor

    @classmethod
    def of(cls, lengths: Tensor) -> Packing:
        """The packing of sequences with ``lengths`` ``int64 [B]`` steps, from 0 upwards."""
        device, lengths = lengths.device, lengths.cpu()
        order = None
        if bool((lengths[1:] > lengths[:-1]).any()):
            order = torch.argsort(lengths, descending=True, stable=True)
            lengths = lengths[order]
        longest = int(lengths[0]) if len(lengths) else 0
        running = lengths[None, :] > torch.arange(longest)[:, None]  # [T, B]
        steps, lanes = running.nonzero(as_tuple=True)
        widths = running.sum(1)
        begins = torch.cumsum(widths, 0) - widths
        ends = lengths[lengths > 0] - 1
        rows = lanes if order is None else order[lanes]
        return cls(
            widths=widths.tolist(),
            order=None if order is None else order.to(device),
            rows=rows.to(device),
            steps=steps.to(device),
            last=(begins[ends] + torch.arange(len(ends))).to(device),
        )

    def pack(self, padded: Tensor) -> Tensor:
        """``[B, T, ...]`` as packed rows ``[P, ...]``."""
        return padded[self.rows, self.steps]

    def unpack(self, packed: Tensor, n_rows: int, n_steps: int) -> Tensor:
        """Packed rows ``[P, ...]`` as ``[n_rows, n_steps, ...]``, zero on padding."""
        padded = packed.new_zeros(n_rows, n_steps, *packed.shape[1:])
        return padded.index_put((self.rows, self.steps), packed)

    def to_lanes(self, by_row: Tensor, dim: int = 0) -> Tensor:
        """Reorder dimension ``dim`` from rows to lanes; the shape stays."""
        return by_row if self.order is None else by_row.index_select(dim, self.order)

    def to_rows(self, by_lane: Tensor, dim: int = 0) -> Tensor:
        """Reorder dimension ``dim`` from lanes to rows; the shape stays."""
        if self.order is None:
            return by_lane
        return by_lane.index_select(dim, torch.argsort(self.order))
