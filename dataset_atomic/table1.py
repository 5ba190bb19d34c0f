"""The statistics of a dataset as in Table 1 of the paper."""

from __future__ import annotations

import os
from dataclasses import dataclass

import polars as pl

from dataset_atomic.atomic import atomic_path, scan_atomic
from dataset_atomic.atomic_files import steady_dataset


@dataclass(frozen=True)
class Table1:
    """A row of Table 1, and the number of triples; ``None`` for what needs a knowledge graph.

    Attributes:
        name: the dataset's name.
        interactions: rows of ``.inter``.
        items: items of ``.inter``.
        users: users of ``.inter``.
        linked_items: items of ``.inter`` that ``.link`` links.
        entities: entities of ``.kg``, as head or tail.
        relations: relations of ``.kg``.
        triples: rows of ``.kg``.
    """

    name: str
    interactions: int
    items: int
    users: int
    linked_items: int | None = None
    entities: int | None = None
    relations: int | None = None
    triples: int | None = None

    def line(self) -> str:
        """The row in one line."""
        if self.triples is None:
            return (
                f"{self.name}: {self.interactions:,} interactions, {self.items:,} items, "
                f"{self.users:,} users, no knowledge graph (no {self.name}.kg and .link)"
            )
        return (
            f"{self.name}: {self.interactions:,} interactions, "
            f"{self.linked_items:,} linked items, {self.users:,} users, "
            f"{self.entities:,} entities, {self.relations:,} relations, "
            f"{self.triples:,} triples"
        )


def describe_table1(folder: str | os.PathLike[str], name: str, timed: bool = False) -> Table1:
    """Count what ``<folder>/<name>.inter`` holds, and ``.link`` and ``.kg`` where there are any.

    Args:
        folder: the dataset's folder.
        name: the dataset's name.
        timed: whether ``.inter`` must have timestamps.

    Raises:
        UserError: one of the files is malformed, or missing while its counterpart is there.
    """
    needed = {"user_id": "token", "item_id": "token"} | ({"timestamp": "float"} if timed else {})
    with steady_dataset(folder, name):
        inter = scan_atomic(atomic_path(folder, name, "inter"), needed)
        of_inter = inter.select(
            interactions=pl.len(),
            items=pl.col("item_id").n_unique(),
            users=pl.col("user_id").n_unique(),
        )
        if not has_graph(folder, name):
            counts = [of_inter.collect(engine="streaming")]
        else:
            counts = pl.collect_all([of_inter, *_of_graph(inter, folder, name)], engine="streaming")
    return Table1(
        name, **{key: n for frame in counts for key, n in frame.row(0, named=True).items()}
    )


def has_graph(folder: str | os.PathLike[str], name: str) -> bool:
    """Whether a dataset has a knowledge graph; one of its two files alone is a mistake."""
    return any(atomic_path(folder, name, suffix).is_file() for suffix in ("kg", "link"))


def _of_graph(inter: pl.LazyFrame, folder: str | os.PathLike[str], name: str) -> list[pl.LazyFrame]:
    link = scan_atomic(atomic_path(folder, name, "link"), ["item_id", "entity_id"])
    kg = scan_atomic(atomic_path(folder, name, "kg"), ["head_id", "relation_id", "tail_id"])

    linked = inter.select("item_id").unique().join(link, on="item_id", how="semi")
    entities = pl.concat([kg.select(entity=end) for end in ("head_id", "tail_id")])
    return [
        linked.select(linked_items=pl.len()),
        kg.select(triples=pl.len(), relations=pl.col("relation_id").n_unique()),
        entities.select(entities=pl.col("entity").n_unique()),
    ]
