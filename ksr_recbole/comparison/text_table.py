"""Tables as text: for a terminal, no wider than it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from ksr_recbole.comparison.table import Table, Value, number
from ksr_recbole.text import cleaned, columns_of, wrapped

_NARROWEST = 20
"""Characters that a column of sentences has in any case."""


def as_printed(tables: Sequence[Table]) -> str:
    """Tables as text, no wider than standard output where that is a terminal."""
    width = columns_of(sys.stdout)
    return "\n\n".join(to_text(table, width) for table in tables)


def to_text(table: Table, width: int | None = None) -> str:
    """The table in columns of plain text.

    Args:
        table: the table.
        width: characters of a line; columns that do not fit stand below, and sentences are
            broken.  ``None`` leaves them as they are.
    """
    table = cleaned(table)
    lines = [line for block in _Text(table, width).blocks() for line in ("", *block)]
    notes = [wrapped(note, width) for note in table.notes]
    return "\n".join([wrapped(table.caption, width), *lines, "", *notes]) + "\n"


class _Text:
    """A table whose cells are written.

    Args:
        table: the table.
        width: characters of a line.
    """

    def __init__(self, table: Table, width: int | None) -> None:
        self._table, self._width = table, width
        self._head = ["", *table.columns]
        self._rows = [[line.label, *map(_written, line.cells)] for line in table.lines]
        every = range(len(self._head))
        self._needed = [self._longest(k) for k in every]
        room = None if width is None else max(_NARROWEST, width - self._needed[0] - 2)
        self._widths = [
            w if k == 0 or room is None else min(w, room) for k, w in enumerate(self._needed)
        ]
        self._gap = "  "
        if not self._fit(every):
            self._gap = " "  # better than columns apart
        if not self._fit(every):
            self._gap = "  "

    def blocks(self) -> Iterator[list[str]]:
        """The lines of columns side by side, then those of the columns that stand below."""
        block: list[int] = []
        above = False
        for k in range(1, len(self._head)):
            if block and not self._fit([0, *block, k]):
                yield self._block(block, above)
                block, above = [], True
            block.append(k)
        yield self._block(block, above)

    def _longest(self, k: int) -> int:
        return max(len(row[k]) for row in (self._head, *self._rows) if k < len(row))

    def _fit(self, columns: Sequence[int]) -> bool:
        return self._width is None or self._total(columns) <= self._width

    def _total(self, columns: Sequence[int]) -> int:
        return sum(self._widths[k] for k in columns) + len(self._gap) * (len(columns) - 1)

    def _block(self, columns: Sequence[int], above: bool) -> list[str]:
        """Some columns after the first; ``above``: failed lines stand in a block above."""
        rule = "-" * self._total([0, *columns])
        lines = [*self._aligned(self._head, columns), rule]
        for line, row in zip(self._table.lines, self._rows, strict=True):
            if line.rule_above:
                lines.append(rule)
            if line.error is None:
                lines += self._aligned(row, columns)
            elif not above:
                label = row[0].ljust(self._widths[0]) + self._gap
                lines.append(wrapped(f"{label}failed: {line.error}", self._width, " " * len(label)))
        return lines

    def _aligned(self, row: Sequence[str], columns: Sequence[int]) -> list[str]:
        """A row's cells, figures to the right; a column that is too narrow has several lines."""
        texts, further = [row[0].ljust(self._widths[0])], list[str]()
        before = " " * (self._widths[0] + len(self._gap))
        for k in columns:
            width = self._widths[k]
            if self._needed[k] > width:  # then it is the only one
                text, *more = wrapped(row[k], width).splitlines()
                texts.append(text)
                further = [before + line for line in more]
            else:
                texts.append(row[k].rjust(width))
        return [self._gap.join(texts).rstrip(), *further]


def _written(value: Value | str) -> str:
    if isinstance(value, str):
        return value
    return number(value) + ("†" if value.dagger else " ")
