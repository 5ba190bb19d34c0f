"""Your own table of items as a knowledge graph: columns are relations, their values entities.

A row ``id 7, brand Acme, tags "red|blue"`` becomes ``(item/7, brand, brand/Acme)``,
``(item/7, tags, tags/red)`` and ``(item/7, tags, tags/blue)``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from dataset_atomic.atomic import AtomicTable
from dataset_atomic.raw.stream import TextFormat, first_line, is_frame_file, read_frame, read_table
from dataset_atomic.raw.timestamps import DATE_FORMATS
from dataset_atomic.sources import FACT
from ksr_recbole.errors import UserError, shown

SEPARATORS = ("|", ";", ",")
"""What separates the elements of a list, the first that occurs in a column."""

FEW_NUMBERS = 10
"""Numbers of which a column has no more are values as they are, such as a number of rooms."""

_YEARS = (1800, 2100)
_IS_YEAR = re.compile(r"year|date|released", re.IGNORECASE)
_CURRENCY = r"^\p{Sc}\s*"


@dataclass(frozen=True)
class ItemColumns:
    """Which columns of a table of items are what.

    Attributes:
        item: the column of ids.
        attributes: columns that become relations; by default all others.
        title: the column of titles; by default the first whose name has "title" or "name" in it.
        whole: attributes whose values are taken as they are: not split, not cut into ranges.
        ranges: how many ranges numbers are cut into, each with as many items.
    """

    item: str = "item_id"
    attributes: tuple[str, ...] = ()
    title: str | None = None
    whole: tuple[str, ...] = ()
    ranges: int = 5

    def __post_init__(self) -> None:
        if not 2 <= self.ranges <= 100:
            raise UserError(f"`ranges` is {self.ranges}; expected a whole number from 2 to 100.")


@dataclass(frozen=True)
class Items:
    """What a table of items says.

    Attributes:
        table: ``item_id`` and, where there is one, ``title``.
        facts: see :data:`dataset_atomic.sources.FACT`.
        link: ``item_id`` and ``entity_id``, an entity for every item.
        names: ``entity_id`` and ``name`` of the items' entities and of the relations.
        notes: how every attribute was read, a line each.
    """

    table: AtomicTable
    facts: pl.DataFrame
    link: pl.DataFrame
    names: pl.DataFrame
    notes: tuple[str, ...]

    @property
    def side(self) -> dict[str, AtomicTable]:
        """The ``.item`` table, if it has more than ids."""
        return {"item": self.table} if len(self.table.types) > 1 else {}


def read_items(path: Path, columns: ItemColumns, separator: str = ",") -> Items:
    """Read a table of items: text with a header, JSON lines or Parquet.

    Raises:
        UserError: the file is missing or malformed; a column is missing; an id is there twice; no
            attribute is left.
    """
    names = _column_names(path, separator)
    title = columns.title or next((n for n in names if _is_title(n) and n != columns.item), None)
    others = [name for name in names if name not in (columns.item, title)]
    wanted = columns.attributes or tuple(others)
    _check_columns(path, names, [columns.item, *([title] if title else []), *wanted])
    if unknown := [name for name in columns.whole if name not in wanted]:
        raise UserError(f"--whole names '{shown(unknown[0])}', which is no attribute here.")
    needed = list(dict.fromkeys([columns.item, *([title] if title else []), *wanted]))
    frame = _read(path, needed, columns.item, separator)
    ids = _cleaned(frame[columns.item].cast(pl.String)).rename("item_id")
    _check_ids(path, ids)
    facts, notes = [], []
    for name in wanted:
        found, note = _read_attribute(name, ids, frame[name], columns)
        notes.append(f"{name}: {note}")
        if found is not None:
            facts.append(found)
    if not facts:
        raise UserError(
            f"No column of {path} is an attribute of the items: {'; '.join(notes)}. Name columns "
            "whose values several items share with --attributes=A,B."
        )
    return _items_of(ids, None if title is None else frame[title], facts, notes)


def _items_of(
    ids: pl.Series, titles: pl.Series | None, facts: Sequence[pl.DataFrame], notes: Sequence[str]
) -> Items:
    table, types = ids.to_frame(), {"item_id": "token"}
    entities = ("item/" + table["item_id"]).rename("entity_id")
    relations = [frame["relation_id"][0] for frame in facts]
    names = pl.DataFrame({"entity_id": relations, "name": relations})
    if titles is not None:
        table = table.with_columns(_cleaned(titles.cast(pl.String)).rename("title"))
        types["title"] = "token_seq"
        of_items = pl.DataFrame({"entity_id": entities, "name": table["title"]})
        names = pl.concat([names, of_items.drop_nulls()])
    return Items(
        AtomicTable(table, types),
        pl.concat(facts).unique(maintain_order=True),
        pl.DataFrame({"item_id": ids, "entity_id": entities}),
        names,
        tuple(notes),
    )


def _column_names(path: Path, separator: str) -> list[str]:
    if is_frame_file(path):
        return read_frame(path).columns
    header = first_line(path).decode(errors="replace")
    return [name.strip().strip('"') for name in header.split(separator)]


def _is_title(column: str) -> bool:
    return bool({"title", "name"} & set(re.split(r"[^a-z]+", column.lower())))


def _check_columns(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in names:
            known = ", ".join(shown(each, 30) for each in names[:20])
            raise UserError(
                f"{path} has no column '{shown(name)}'; its columns are: {known}. Correct the "
                "header, or name the column of ids with --items-id and others with --attributes."
            )


def _read(path: Path, needed: list[str], key: str, separator: str) -> pl.DataFrame:
    if is_frame_file(path):
        frame = read_frame(path).select(needed)
        if frame[key].null_count():
            row = int(frame[key].is_null().arg_max() or 0)
            raise UserError(f"{path}, row {row + 1}: column '{key}' is empty; fill it in.")
        return frame
    optional = frozenset(needed) - {key}
    layout = TextFormat({n: n for n in needed}, separator, True, True, optional=optional)
    return read_table(path, layout)


def _check_ids(path: Path, ids: pl.Series) -> None:
    again = ids.is_duplicated() & ~ids.is_first_distinct()
    if again.any():
        example, n = ids.filter(again)[0], int(again.sum())
        raise UserError(
            f"{path}: {n:,} rows have the id of an earlier row, such as '{shown(example)}'; keep "
            "one row for each item (several values of a column can stand in it as a list, a|b)."
        )


def _cleaned(texts: pl.Series) -> pl.Series:
    """Text as an atomic file can hold it; empty text is null."""
    plain = texts.str.replace_all(r"[\s\p{Cc}]+", " ").str.replace_all('"', "'", literal=True)
    frame = plain.str.strip_chars().to_frame("text")
    return frame.select(pl.when(pl.col("text") != "").then(pl.col("text")))["text"]


# Columns --------------------------------------------------------------------------------------


def _read_attribute(
    name: str, ids: pl.Series, values: pl.Series, columns: ItemColumns
) -> tuple[pl.DataFrame | None, str]:
    """The facts of a column, and how it was read; ``None`` if it says nothing of the items."""
    lists, how = _values_of(name, values, name in columns.whole, columns.ranges)
    pairs = pl.DataFrame({"item_id": ids, "name": lists})
    pairs = pairs.explode("name") if pairs["name"].dtype.is_nested() else pairs
    pairs = pairs.with_columns(_cleaned(pairs["name"]).rename("name")).drop_nulls().unique(
        maintain_order=True
    )  # fmt: skip
    n_values = pairs["name"].n_unique()
    if pairs.is_empty():
        return None, "left out, as no item has a value"
    if n_values == pairs.height and pairs["item_id"].n_unique() > 1:
        return None, "left out, as every value is different and so tells nothing of other items"
    relation = _cleaned(pl.Series([name]))[0]
    facts = pairs.with_columns(
        relation_id=pl.lit(relation), tail_id=pl.lit(f"{relation}/") + pl.col("name")
    )
    without = len(ids) - pairs["item_id"].n_unique()
    missing = f", {without:,} items have none" if without else ""
    return facts.select(*FACT), f"{how}, {n_values:,} values{missing}"


def _values_of(name: str, values: pl.Series, whole: bool, ranges: int) -> tuple[pl.Series, str]:
    """The values of every item, as text or lists of text, and how they were read."""
    if isinstance(values.dtype, pl.List | pl.Array):
        return values.cast(pl.List(pl.String)), "lists"
    if isinstance(values.dtype, pl.Struct) or values.dtype in (pl.Object, pl.Binary):
        raise UserError(f"The column '{shown(name)}' holds {values.dtype}; leave it out.")
    texts = _cleaned(values.cast(pl.String))
    if whole:
        return texts, "as they are"
    if values.dtype in (pl.Date, pl.Datetime):
        return values.dt.year().cast(pl.String), "years of dates"
    known = texts.drop_nulls()
    numbers = _numbers(texts)
    if len(known) and numbers.count() == len(known):
        return _of_numbers(name, texts, numbers, ranges)
    if len(known) and (years := _years(texts, known)) is not None:
        return years, "years of dates"
    return _split(values.cast(pl.String), texts, known)


def _numbers(texts: pl.Series) -> pl.Series:
    numbers = texts.str.replace(_CURRENCY, "").cast(pl.Float64, strict=False)
    return numbers.to_frame("n").select(pl.when(pl.col("n").is_finite()).then("n"))["n"]


def _of_numbers(
    name: str, texts: pl.Series, numbers: pl.Series, ranges: int
) -> tuple[pl.Series, str]:
    values = numbers.drop_nulls().to_numpy()
    whole_numbers = bool((values == np.round(values)).all())
    is_year = whole_numbers and values.min() >= _YEARS[0] and values.max() <= _YEARS[1]
    if is_year and _IS_YEAR.search(name):
        return numbers.cast(pl.Int64).cast(pl.String), "years"
    if len(np.unique(values)) <= FEW_NUMBERS:
        return texts, "numbers, few of them, as they are"
    edges = _edges(values, ranges)
    labels = [f"{name} {_plain(a)} to {_plain(b)}" for a, b in pairwise(edges)]
    places = np.searchsorted(edges[1:-1], numbers.fill_null(0.0).to_numpy(), side="right")
    cut = pl.Series([labels[place] for place in places]).to_frame("label")
    known = cut.select(pl.when(numbers.is_not_null()).then("label"))["label"]
    return known, f"numbers cut into {len(labels)} ranges with about as many items each"


def _edges(values: np.ndarray, ranges: int) -> np.ndarray:
    """Limits of the ranges, of three digits where that tells them apart; at least two."""
    exact = np.quantile(values, np.linspace(0, 1, ranges + 1))
    rounded = np.array([float(f"{value:.3g}") for value in exact])
    edges = np.unique(rounded)
    if len(edges) <= 2:
        edges = np.unique(exact)
    if len(edges) == 1:
        edges = np.array([values.min(), values.max()])
    # What rounding left outside is inside again.
    edges[0], edges[-1] = min(edges[0], values.min()), max(edges[-1], values.max())
    return edges


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:g}"


def _years(texts: pl.Series, known: pl.Series) -> pl.Series | None:
    for form in DATE_FORMATS:
        times = texts.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC")
        if times.count() == len(known):
            return times.dt.year().cast(pl.String)
    return None


def _split(raw: pl.Series, texts: pl.Series, known: pl.Series) -> tuple[pl.Series, str]:
    lists = _json_lists(raw) if len(known) and known.str.starts_with("[").all() else None
    if lists is not None:
        return lists, "lists in JSON"
    for separator in SEPARATORS:
        if not known.str.contains(separator, literal=True).any():
            continue
        pieces = texts.str.split(separator)
        distinct = pieces.explode().str.strip_chars().n_unique()
        # "Smith, John" is no list: what stands between the commas is not shared by others.
        if separator != "," or distinct < texts.n_unique():
            return pieces, f"lists split at '{separator}'"
    return texts, "text"


def _json_lists(texts: pl.Series) -> pl.Series | None:
    lists: list[list[str] | None] = []
    for text in texts:
        try:
            values = json.loads(text) if text and text.strip() else None
        except (ValueError, RecursionError):
            return None
        if values is not None and not isinstance(values, list):
            return None
        lists.append(None if values is None else [str(value) for value in values])
    return pl.Series(lists, dtype=pl.List(pl.String))
