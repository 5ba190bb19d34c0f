"""Which entity each item is: KB4Rec's files and others of two columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dataset_atomic.lines import first_true
from dataset_atomic.raw.iris import check_ids, shorten
from dataset_atomic.raw.stream import Block, TextFormat, first_line, is_atomic, read_table
from ksr_recbole.errors import UserError

ATOMIC_HEADER = {"item_id:token": "item_id", "entity_id:token": "entity_id"}


@dataclass(frozen=True)
class Links:
    """A link file.

    Attributes:
        frame: ``item_id`` and ``entity_id`` (shortened), one row per item.
        rows_in: pairs in the file.
        repeated: pairs that occur again.
        contradicting: pairs dropped because an earlier line links the item to another entity.
    """

    frame: pl.DataFrame
    rows_in: int
    repeated: int
    contradicting: int


def read_links(path: Path) -> Links:
    """Pairs ``item <tab> entity``: ``m.xxx``, ``<YAGO>``, an IRI, or RecBole's ``.link``.

    If a file links an item to several entities, the first line counts.  Several items may be
    linked to one entity.

    Raises:
        UserError: the file is missing or malformed.
    """
    with_header = is_atomic(first_line(path), ATOMIC_HEADER)
    columns = ATOMIC_HEADER if with_header else ("item_id", "entity_id")
    pairs = read_table(path, TextFormat(columns, header=with_header), _check)
    pairs = pairs.select(pl.col("item_id").str.strip_chars(), "entity_id")
    pairs = pairs.with_columns(pl.col("entity_id").str.strip_chars()).with_columns(
        shorten("entity_id")
    )
    distinct = pairs.unique(maintain_order=True)
    first = distinct.unique("item_id", keep="first", maintain_order=True)
    return Links(
        frame=first.select("item_id", "entity_id"),
        rows_in=pairs.height,
        repeated=pairs.height - distinct.height,
        contradicting=distinct.height - first.height,
    )


def _check(block: Block) -> None:
    check_ids(block, "entity_id")
    blank = block.frame["item_id"].str.strip_chars() == ""
    if (row := first_true(blank)) is not None:
        raise UserError(
            f"{block.line_of(row)}: column 'item_id' is blank; fill it in or remove the line."
        )
