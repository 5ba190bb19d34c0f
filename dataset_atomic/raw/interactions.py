"""Who used what when, from the raw ratings or listening events."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl

from dataset_atomic.atomic import too_long
from dataset_atomic.atomic_files import LONGEST_ID
from dataset_atomic.filtering import Funnel
from dataset_atomic.lines import check_whole, first_true
from dataset_atomic.raw.stream import Block, TextFormat, read_blocks
from dataset_atomic.raw.timestamps import TimestampReader
from ksr_recbole.errors import UserError, shown
from ksr_recbole.text import counted

DAY = 86_400
"""Seconds of a day."""

NO_ID = r'[\t"\r\n]'
"""What an id of RecBole's atomic files cannot hold."""

_DECIMAL_COMMA = r"^([+-]?\d+),(\d{1,2})$"
"""A rating such as 3,5; 1,000 may be a thousand, and is refused."""

WITHOUT_ENTITY = "item without an entity"
"""Why interactions with items that have no link are dropped."""


@dataclass(frozen=True)
class Period:
    """Which interactions count by their time.

    Attributes:
        first_year: the first year (UTC), if any.
        last_year: the last year (UTC), if any.
        last_days: only so many days before the file's last timestamp, if any.

    Raises:
        UserError: a year that no calendar here has, or a number of days that is none.
    """

    first_year: int | None = None
    last_year: int | None = None
    last_days: int | None = None

    def __post_init__(self) -> None:
        for key, most in (("first_year", 9998), ("last_year", 9998), ("last_days", 10**6)):
            check_whole(key, getattr(self, key), 1, most)

    def __str__(self) -> str:
        years = f"{self.first_year or ''}-{self.last_year or ''}"
        days = f"the last {self.last_days} days" if self.last_days else ""
        return " and ".join(part for part in (years.strip("-") and years, days) if part)

    @property
    def reason(self) -> str:
        """Why what lies outside is dropped."""
        return f"not in {self}"

    def mask(self, seconds: pl.Series) -> pl.Series:
        """Whether each timestamp lies within the years."""
        inside = pl.repeat(True, len(seconds), dtype=pl.Boolean, eager=True)
        if self.first_year:
            inside &= seconds >= _start_of(self.first_year)
        if self.last_year:
            inside &= seconds < _start_of(self.last_year + 1)
        return inside


def _start_of(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp())


@dataclass(frozen=True)
class Interactions:
    """Interactions of linked items in the order of time; of equal times, in the file's.

    Attributes:
        frame: ``user_id`` and ``item_id`` (categorical), ``rating`` (float) if the file has it,
            ``timestamp`` (seconds: int64, or float64 if the file has fractions of one).
        funnel: why the others were dropped.
        notes: what was converted, in sentences.
        example_items: some of the file's item ids.
    """

    frame: pl.DataFrame
    funnel: Funnel
    notes: tuple[str, ...]
    example_items: tuple[str, ...]


def read_interactions(
    path: Path,
    layout: TextFormat,
    linked: pl.Series,
    period: Period,
    clock: TimestampReader | None = None,
) -> Interactions:
    """Read interactions, keeping those of linked items within the period.

    Args:
        path: the file.
        layout: with the columns ``user_id``, ``item_id``, ``timestamp`` and perhaps ``rating``.
        linked: ids of the linked items.
        period: which times count.
        clock: reads the times; without one their form is that of the first lines.

    Raises:
        UserError: a malformed line; an id with a tab or a double quote; nothing in the file.
    """
    reading = _Reading(clock or TimestampReader(), period, linked.implode())
    for block in read_blocks(path, layout):
        reading.take(block)
    return reading.result(path, layout)


@dataclass
class _Reading:
    """What was read of a file so far.

    Attributes:
        clock: reads the times.
        period: which times count.
        known: ids of the linked items, as one list.
        funnel: why rows were dropped.
        kept: the others, a frame for each block.
        latest: the last time, in the clock's parts of a second.
        stripped: how many ids had blanks around them.
        examples: some of the item ids.
    """

    clock: TimestampReader
    period: Period
    known: pl.Series
    funnel: Funnel = field(default_factory=lambda: Funnel(".inter", 0))
    kept: list[pl.DataFrame] = field(default_factory=list)
    latest: int | None = None
    stripped: int = 0
    examples: list[str] = field(default_factory=list)

    def take(self, block: Block) -> None:
        """Add the rows of a block.

        Raises:
            UserError: a row cannot be read.
        """
        frame, changed = _read_block(block, self.clock)
        self.stripped += changed
        self.funnel.rows_in += block.frame.height + block.blank_lines
        self.funnel.drop("blank line", block.blank_lines)
        if not self.examples:
            items = frame["item_id"].head(1000).unique(maintain_order=True)
            self.examples = items.head(3).to_list()
        times = frame["timestamp"]
        last = cast("int | None", times.max())
        self.latest = last if self.latest is None else max(self.latest, last or self.latest)
        inside = self.period.mask(times // self.clock.per_second)
        frame = self.funnel.step(self.period.reason, frame, frame.filter(inside))
        # Known before the k-core: what no entity belongs to need not be held in memory.
        linked = frame.filter(pl.col("item_id").is_in(self.known))
        frame = self._recent(self.funnel.step(WITHOUT_ENTITY, frame, linked))
        self.kept.append(frame.with_columns(pl.col("user_id", "item_id").cast(pl.Categorical)))

    def result(self, path: Path, layout: TextFormat) -> Interactions:
        """What the blocks had together; the frames of the blocks are given up.

        Raises:
            UserError: there was no row.
        """
        if not self.funnel.rows_in:
            raise UserError(f"{path} is empty; expected {', '.join(layout.columns)} in every line.")
        frame = pl.concat(self.kept)
        self.kept.clear()  # one copy less while the rows are sorted
        frame = self._recent(frame)
        frame = frame.sort("timestamp", maintain_order=True)
        frame = _in_seconds(frame, self.clock.per_second)
        notes = [note for note in (self.clock.note(),) if note]
        if note := _on_one_day(frame["timestamp"]):
            notes.append(note)
        if self.stripped:
            notes.append(f"blanks around {counted(self.stripped, 'id')} were removed")
        return Interactions(frame, self.funnel, tuple(notes), tuple(self.examples))

    def _recent(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows within the period's days before the last time so far."""
        if self.period.last_days is None or self.latest is None:
            return frame
        first = self.latest - self.period.last_days * DAY * self.clock.per_second
        recent = frame.filter(pl.col("timestamp") > first)
        return self.funnel.step(self.period.reason, frame, recent)


def _on_one_day(times: pl.Series) -> str | None:
    """Say that all times are of one day: years or days may have been taken for seconds."""
    ends = cast("tuple[float, float] | tuple[None, None]", (times.min(), times.max()))
    if ends[0] is None or ends[0] == ends[1] or ends[0] // DAY != ends[1] // DAY:
        return None
    day = np.datetime64(int(ends[0] // DAY), "D")
    return f"all times are of one day, {day}, so every user has one session (a day is a session)"


def _read_block(block: Block, clock: TimestampReader) -> tuple[pl.DataFrame, int]:
    """The interactions of a block with their times, and how many ids had blanks around them.

    Raises:
        UserError: a value that cannot be read; an id that is blank or too long.
    """
    _check_ids(block)
    frame = block.frame.with_columns(clock.exact(block))
    if "rating" in frame.columns:
        frame = frame.with_columns(_ratings(block))
    bare = frame.with_columns(pl.col("user_id", "item_id").str.strip_chars())
    changed = 0
    for column in ("user_id", "item_id"):
        if (row := first_true(bare[column] == "")) is not None:
            raise UserError(
                f"{block.line_of(row)}: column '{column}' is blank; fill it in or remove the line."
            )
        _check_lengths(block, bare[column])
        changed += int((bare[column] != frame[column]).sum())
    return bare, changed


def _in_seconds(frame: pl.DataFrame, per_second: int) -> pl.DataFrame:
    """Times as whole seconds, or with fractions if there are any."""
    whole = not (frame["timestamp"] % per_second != 0).any()
    time = pl.col("timestamp")
    # Polars multiplies by the reciprocal, which ends in digits that the file does not have.
    parts = time // per_second + (time % per_second) / per_second
    return frame.with_columns(time // per_second if whole else parts)


def _check_ids(block: Block) -> None:
    for name in ("user_id", "item_id"):
        if (row := first_true(block.frame[name].str.contains(NO_ID))) is not None:
            raise UserError(
                f"{block.line_of(row)}: the {name} {shown(repr(block.frame[name][row]))} "
                "holds a tab, a double quote or a line end, which RecBole's atomic files cannot; "
                "rename it."
            )


def _check_lengths(block: Block, ids: pl.Series) -> None:
    if (row := first_true(too_long(ids))) is not None:
        raise UserError(
            f"{block.line_of(row)}: the {ids.name} {shown(repr(ids[row]))} has "
            f"{len(ids[row].encode()):,} bytes, and an id has at most {LONGEST_ID:,}; shorten it."
        )


def _ratings(block: Block) -> pl.Series:
    texts = block.frame["rating"].str.strip_chars().str.replace(_DECIMAL_COMMA, "$1.$2")
    values = texts.cast(pl.Float32, strict=False)
    if (row := first_true(~values.is_finite().fill_null(False))) is not None:
        raise UserError(
            f"{block.line_of(row)}: {shown(repr(block.frame['rating'][row]))} is not a rating; "
            "expected a number, so correct the value or the order of the columns."
        )
    return values
