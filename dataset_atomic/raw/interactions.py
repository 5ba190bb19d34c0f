"""Who used what when, from the raw ratings or listening events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import polars as pl

from dataset_atomic.atomic import too_long
from dataset_atomic.atomic_files import LONGEST_ID
from dataset_atomic.filtering import Funnel
from dataset_atomic.raw.stream import Block, TextFormat, read_blocks
from dataset_atomic.raw.timestamps import TimestampReader
from ksr_recbole.errors import UserError, shown
from ksr_recbole.text import counted

DAY = 86_400
"""Seconds of a day."""

NO_ID = r'[\t"\r\n]'
"""What an id of RecBole's atomic files cannot hold."""

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
            value = getattr(self, key)
            if value is not None and not 1 <= value <= most:
                raise UserError(f"`{key}` is {value}; expected a whole number from 1 to {most:,}.")

    def __str__(self) -> str:
        years = f"{self.first_year or ''}-{self.last_year or ''}"
        days = f"the last {self.last_days} days" if self.last_days else ""
        return " and ".join(part for part in (years.strip("-") and years, days) if part)

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
    clock, funnel = clock or TimestampReader(), Funnel(".inter", 0)
    known = linked.implode()
    kept: list[pl.DataFrame] = []
    latest: int | None = None
    stripped = 0
    examples: list[str] = []
    for block in read_blocks(path, layout):
        frame, changed = _read_block(block, clock)
        second = clock.per_second
        stripped += changed
        funnel.rows_in += block.frame.height + block.blank_lines
        funnel.drop("blank line", block.blank_lines)
        if not examples:
            examples = frame["item_id"].head(1000).unique(maintain_order=True).head(3).to_list()
        last = cast("int | None", frame["timestamp"].max())
        latest = last if latest is None else max(latest, last or latest)
        frame = funnel.step(
            f"not in {period}", frame, frame.filter(period.mask(frame["timestamp"] // second))
        )
        # Known before the k-core: what no entity belongs to need not be held in memory.
        frame = funnel.step(WITHOUT_ENTITY, frame, frame.filter(pl.col("item_id").is_in(known)))
        frame = funnel.step(f"not in {period}", frame, _recent(frame, period, latest, second))
        kept.append(frame.with_columns(pl.col("user_id", "item_id").cast(pl.Categorical)))
    if not funnel.rows_in:
        raise UserError(f"{path} is empty; expected {', '.join(layout.columns)} in every line.")
    frame = pl.concat(kept)
    kept.clear()  # one copy less while the rows are sorted
    frame = funnel.step(f"not in {period}", frame, _recent(frame, period, latest, second))
    frame = frame.sort("timestamp", maintain_order=True).pipe(_in_seconds, second)
    notes = [note for note in (clock.note(),) if note]
    if stripped:
        notes.append(f"blanks around {counted(stripped, 'id')} were removed")
    return Interactions(frame, funnel, tuple(notes), tuple(examples))


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
        if (empty := bare[column] == "").any():
            raise UserError(
                f"{block.line_of(int(empty.arg_max() or 0))}: column '{column}' is blank; fill it "
                "in or remove the line."
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


def _recent(
    frame: pl.DataFrame, period: Period, latest: int | None, per_second: int
) -> pl.DataFrame:
    if period.last_days is None or latest is None:
        return frame
    return frame.filter(pl.col("timestamp") > latest - period.last_days * DAY * per_second)


def _check_ids(block: Block) -> None:
    for name in ("user_id", "item_id"):
        bad = block.frame[name].str.contains(NO_ID)
        if bad.any():
            row = int(bad.arg_max() or 0)
            raise UserError(
                f"{block.line_of(row)}: the {name} {shown(repr(block.frame[name][row]))} "
                "holds a tab, a double quote or a line end, which RecBole's atomic files cannot; "
                "rename it."
            )


def _check_lengths(block: Block, ids: pl.Series) -> None:
    if (long := too_long(ids)).any():
        row = int(long.arg_max() or 0)
        raise UserError(
            f"{block.line_of(row)}: the {ids.name} {shown(repr(ids[row]))} has "
            f"{len(ids[row].encode()):,} bytes, and an id has at most {LONGEST_ID:,}; shorten it."
        )


def _ratings(block: Block) -> pl.Series:
    values = block.frame["rating"].str.strip_chars().cast(pl.Float32, strict=False)
    if values.null_count() or not values.is_finite().all():
        row = int((values.is_null() | ~values.is_finite().fill_null(True)).arg_max() or 0)
        raise UserError(
            f"{block.line_of(row)}: {shown(repr(block.frame['rating'][row]))} is not a rating; "
            "expected a number, so correct the value or the order of the columns."
        )
    return values
