"""The statistics of a dataset as in Table 1 of the paper."""

from __future__ import annotations

import os
from dataclasses import dataclass

import polars as pl

from dataset_atomic.atomic import atomic_path, scan_atomic


@dataclass(frozen=True)
class Table1:
    """A row of Table 1, and the number of triples.

    Attributes:
        name: the dataset's name.
        interactions: rows of ``.inter``.
        linked_items: items of ``.inter`` that ``.link`` links.
        users: users of ``.inter``.
        entities: entities of ``.kg``, as head or tail.
        relations: relations of ``.kg``.
        triples: rows of ``.kg``.
    """

    name: str
    interactions: int
    linked_items: int
    users: int
    entities: int
    relations: int
    triples: int

    def line(self) -> str:
        """The row in one line."""
        return (
            f"{self.name}: {self.interactions:,} interactions, "
            f"{self.linked_items:,} linked items, {self.users:,} users, "
            f"{self.entities:,} entities, {self.relations:,} relations, "
            f"{self.triples:,} triples"
        )


def describe_table1(folder: str | os.PathLike[str], name: str) -> Table1:
    """Count what ``<folder>/<name>.inter``, ``.link`` and ``.kg`` hold.

    Raises:
        UserError: one of the files is missing or malformed.
    """
    inter = scan_atomic(atomic_path(folder, name, "inter"), ["user_id", "item_id"])
    link = scan_atomic(atomic_path(folder, name, "link"), ["item_id", "entity_id"])
    kg = scan_atomic(atomic_path(folder, name, "kg"), ["head_id", "relation_id", "tail_id"])

    linked = inter.select("item_id").unique().join(link, on="item_id", how="semi")
    entities = pl.concat([kg.select(entity=end) for end in ("head_id", "tail_id")])
    counts = pl.collect_all(
        [
            inter.select(interactions=pl.len(), users=pl.col("user_id").n_unique()),
            linked.select(linked_items=pl.len()),
            kg.select(triples=pl.len(), relations=pl.col("relation_id").n_unique()),
            entities.select(entities=pl.col("entity").n_unique()),
        ],
        engine="streaming",
    )
    return Table1(
        name, **{key: n for frame in counts for key, n in frame.row(0, named=True).items()}
    )


def table1_line(folder: str | os.PathLike[str], name: str) -> str:
    """:func:`describe_table1` in one line."""
    return describe_table1(folder, name).line()
