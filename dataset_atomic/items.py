"""Your own table of items as a knowledge graph: columns are relations, their values entities.

A row ``id 7, brand Acme, tags "red|blue"`` becomes ``(item/7, brand, brand/Acme)``,
``(item/7, tags, tags/red)`` and ``(item/7, tags, tags/blue)``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dataset_atomic.atomic import AtomicTable, too_long
from dataset_atomic.atomic_files import LONGEST_ID
from dataset_atomic.lines import check_text, check_whole, first_true
from dataset_atomic.raw.columns import cleaned, values_of
from dataset_atomic.raw.interactions import NO_ID
from dataset_atomic.raw.stream import TextFormat, first_line, header_fields, read_table
from dataset_atomic.raw.typed import is_typed, read_typed, texts_of, with_whole_ids
from dataset_atomic.sources import FACT
from ksr_recbole.errors import UserError, shown
from ksr_recbole.text import counted

_TITLES = frozenset({"title", "name"})
_ITEMS = frozenset({"item", "product", "article", "movie", "film", "track", "song", "book", "game"})
"""What a column of titles may be of: ``product_name`` is one, ``brand_name`` is not."""


_PREFIX = "item/"
"""What stands before an item's id in the name of its entity."""


@dataclass(frozen=True)
class ItemColumns:
    """Which columns of a table of items are what.

    Attributes:
        item: the column of ids.
        attributes: columns that become relations; by default all others.
        title: the column of titles; by default one called so, or ``name``, or ``product_name``.
        whole: attributes whose values are taken as they are: not split, not cut into ranges.
        ranges: how many ranges numbers are cut into, each with as many items.
    """

    item: str = "item_id"
    attributes: tuple[str, ...] = ()
    title: str | None = None
    whole: tuple[str, ...] = ()
    ranges: int = 5

    def __post_init__(self) -> None:
        check_whole("ranges", self.ranges, 2, 100)


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
    """Read a table of items: text with a header, JSON or Parquet.

    Raises:
        UserError: the file is missing or malformed; a column is missing; an id is there twice; no
            attribute is left.
    """
    typed = read_typed(path) if is_typed(path) else None
    names = _header(path, separator) if typed is None else typed.columns
    title = columns.title or next(
        (name for name in names if _is_title(name, columns.item) and name != columns.item), None
    )
    others = [name for name in names if name not in (columns.item, title)]
    wanted = tuple(dict.fromkeys(columns.attributes)) or tuple(others)
    needed = list(dict.fromkeys([columns.item, *([title] if title else []), *wanted]))
    _check_columns(path, names, needed)
    if unknown := [name for name in columns.whole if name not in wanted]:
        raise UserError(
            f"--whole names '{shown(unknown[0])}', but {shown(unknown[0])} is not an attribute. "
            "Name columns that --attributes also names."
        )
    if typed is None:
        optional = frozenset(needed) - {columns.item}
        layout = TextFormat({n: n for n in needed}, separator, True, True, optional=optional)
        frame = read_table(path, layout)
    else:
        frame = with_whole_ids(typed, columns.item)
    ids = texts_of(path, frame, columns.item).str.strip_chars().replace("", None).rename("item_id")
    _check_ids(path, ids)
    # Where commas are decimal, programs separate columns by semicolons.
    decimal_comma = typed is None and separator == ";"
    facts: list[pl.DataFrame] = []
    notes = [] if title is None else [f"{title}: the titles of the items (--title names another)"]
    for name in wanted:
        found, note = _read_attribute(name, ids, frame[name], columns, decimal_comma)
        notes.append(f"{name or 'a column without a name'}: {note}")
        if found is not None:
            facts.append(found)
    if not facts:
        raise UserError(
            f"No column of {path} is an attribute of the items: {'; '.join(notes)}. Name columns "
            "whose values several items share with --attributes=A,B."
        )
    hint = "; name another column of titles with --title"
    titles = None if title is None else texts_of(path, frame, title, hint)
    return _items_of(ids, titles, facts, notes)


def _items_of(
    ids: pl.Series, titles: pl.Series | None, facts: Sequence[pl.DataFrame], notes: Sequence[str]
) -> Items:
    table, types = ids.to_frame(), {"item_id": "token"}
    entities = (_PREFIX + table["item_id"]).rename("entity_id")
    relations = [frame["relation_id"][0] for frame in facts]
    names = pl.DataFrame({"entity_id": relations, "name": relations})
    if titles is not None:
        table = table.with_columns(cleaned(titles).rename("title"))
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


def _header(path: Path, separator: str) -> list[str]:
    if not (line := first_line(path)):
        raise UserError(f"{path} is empty; expected a header and an item a line.")
    check_text(path, line)
    return header_fields(line.decode(errors="replace"), separator, quoted=True)


def _is_title(column: str, item: str) -> bool:
    words = set(re.split(r"[^a-z]+", column.lower())) - {""}
    others = words - _TITLES - _ITEMS - set(re.split(r"[^a-z]+", item.lower()))
    return bool(words & _TITLES) and not others


def _check_columns(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in names:
            known = ", ".join(shown(each, 30) for each in names[:20])
            raise UserError(
                f"{path} has no column '{shown(name)}'; its columns are: {known}. Correct the "
                "header, or give the separator with --separator (one for both tables), the column "
                "of ids with --items-id and others with --attributes."
            )


def _check_ids(path: Path, ids: pl.Series) -> None:
    if ids.is_empty():
        raise UserError(f"{path} has no rows; expected an item in each.")
    if (row := first_true(ids.is_null())) is not None:
        raise UserError(f"{path}: item {row + 1} of the table has no id; fill it in.")
    if (row := first_true(ids.str.contains(NO_ID))) is not None:
        raise UserError(
            f"{path}: the id {shown(repr(ids[row]))} of item {row + 1} of the table holds a tab, a "
            "double quote or a line end, which RecBole's atomic files cannot; rename it."
        )
    if (row := first_true(too_long(_PREFIX + ids))) is not None:
        most = LONGEST_ID - len(_PREFIX)
        raise UserError(
            f"{path}: the id {shown(repr(ids[row]))} of item {row + 1} of the table has "
            f"{len(ids[row].encode()):,} bytes, and one has at most {most:,}; shorten it."
        )
    again = ids.is_duplicated() & ~ids.is_first_distinct()
    if again.any():
        example, n = ids.filter(again)[0], int(again.sum())
        raise UserError(
            f"{path}: an earlier row has the id of {counted(n, 'row')}, such as "
            f"'{shown(example)}'; keep one row for each item (several values of a column can "
            "stand in it as a list, a|b)."
        )


def _read_attribute(
    name: str, ids: pl.Series, values: pl.Series, columns: ItemColumns, decimal_comma: bool
) -> tuple[pl.DataFrame | None, str]:
    """The facts of a column, and how it was read; ``None`` if it says nothing of the items."""
    lists, how = values_of(name, values, name in columns.whole, columns.ranges, decimal_comma)
    if lists is None:
        return None, f"left out, as {how}"
    pairs = pl.DataFrame({"item_id": ids, "name": lists})
    pairs = pairs.explode("name") if pairs["name"].dtype.is_nested() else pairs
    pairs = pairs.with_columns(cleaned(pairs["name"]).rename("name")).drop_nulls().unique(
        maintain_order=True
    )  # fmt: skip
    n_values = pairs["name"].n_unique()
    if pairs.is_empty():
        return None, "left out, as no item has a value"
    if n_values == pairs.height and pairs["item_id"].n_unique() > 1:
        return None, "left out, as every value is different and so tells nothing of other items"
    relation = cleaned(pl.Series([name]))[0] or "unnamed"
    facts = pairs.with_columns(
        relation_id=pl.lit(relation), tail_id=pl.lit(f"{relation}/") + pl.col("name")
    )
    if (long := too_long(facts["tail_id"])).any():
        size = len(facts["tail_id"].filter(long)[0].encode())
        return None, (
            f"left out, as a value with the column's name has {size:,} bytes, and an entity has "
            f"at most {LONGEST_ID:,}"
        )
    without = len(ids) - pairs["item_id"].n_unique()
    have = "item has" if without == 1 else "items have"
    missing = f", {without:,} {have} none" if without else ""
    values_there = f"{n_values:,} value{'s' * (n_values != 1)}"
    return facts.select(*FACT), f"{how}, {values_there}{missing}"
