"""The statistics of a dataset as in Table 1 of the paper."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dataset_atomic.atomic import RECBOLES, atomic_path, read_ids, scan_atomic
from dataset_atomic.atomic_files import check_atomic_file, steady_dataset
from dataset_atomic.ids import Ids
from dataset_atomic.layout import Layout
from ksr_recbole.errors import shown
from ksr_recbole.text import counted


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
                f"{self.name}: {counted(self.interactions, 'interaction')}, "
                f"{counted(self.items, 'item')}, {counted(self.users, 'user')}, "
                f"no knowledge graph (no {self.name}.kg and .link)"
            )
        return (
            f"{self.name}: {counted(self.interactions, 'interaction')}, "
            f"{counted(self.linked_items or 0, 'linked item')}, {counted(self.users, 'user')}, "
            f"{counted(self.entities or 0, 'entity', 'entities')}, "
            f"{counted(self.relations or 0, 'relation')}, {counted(self.triples, 'triple')}"
        )


def describe_table1(
    folder: str | os.PathLike[str], name: str, timed: bool = False, layout: Layout = RECBOLES
) -> Table1:
    """Count what ``<folder>/<name>.inter`` holds, and ``.link`` and ``.kg`` where there are any.

    Args:
        folder: the dataset's folder.
        name: the dataset's name.
        timed: whether ``.inter`` must have timestamps.
        layout: the columns' names, and how the files are written.

    Raises:
        UserError: one of the files is malformed, or missing while its counterpart is there.
    """
    needed = {layout.user: "token", layout.item: "token"}
    needed |= {layout.time: "float"} if timed else {}
    with steady_dataset(folder, name, layout.files), ThreadPoolExecutor(2) as threads:

        def reading(path: Path, suffix: str, required: dict[str, str]) -> Future[list[Ids]]:
            # Most of the work is done without Python's lock.  What is held is the context's.
            run = copy_context().run
            return threads.submit(lambda: run(_ids, path, suffix, required, layout))

        inter = [reading(path, "inter", needed) for path in layout.inter_paths(Path(folder), name)]
        kg = None
        if has_graph(folder, name):
            triple = dict.fromkeys(layout.triple, "token")
            kg = reading(atomic_path(folder, name, "kg"), "kg", triple)
        parts = [each.result() for each in inter]
        users, items = (
            pl.concat([ids.tokens for ids in kind]).unique() for kind in zip(*parts, strict=True)
        )
        counts = _of_graph(items, kg, folder, name, layout) if kg else {}
    n = sum(len(users.numbers[layout.user]) for users, _ in parts)
    return Table1(name, interactions=n, items=len(items), users=len(users), **counts)


def scan_inter(
    folder: str | os.PathLike[str], name: str, needed: dict[str, str], layout: Layout
) -> pl.LazyFrame:
    """The columns ``needed`` of all interactions of a dataset, as text.

    Raises:
        UserError: a file is missing or malformed.
    """
    paths = layout.inter_paths(Path(folder), name)
    return pl.concat([scan_atomic(path, needed, layout).select(*needed) for path in paths])


def origin_of(folder: str | os.PathLike[str], name: str, layout: Layout) -> str | None:
    """Which graph a dataset has and where it comes from; ``None`` if the files do not say."""
    path = atomic_path(folder, name, "origin")
    if not path.is_file():
        return None
    row = scan_atomic(path, {"graph": "token_seq"}, layout).head(1).collect().row(0, named=True)
    return "; ".join(shown(row[key], 200) for key in ("graph", "links") if row.get(key))


def names_line(folder: str | os.PathLike[str], row: Table1, layout: Layout) -> str:
    """How many entities of a graph have a name.

    Args:
        folder: the dataset's folder.
        row: what :func:`describe_table1` found in it.
        layout: the columns' names, and how the files are written.

    Raises:
        UserError: ``.kg`` or ``.entity`` is malformed.
    """
    path = atomic_path(folder, row.name, "entity")
    if not path.is_file():
        return (
            f"entities without a name: all {row.entities:,}; convert with --names=FILE (lines of "
            "an entity, a tab and its name) to have explanations in words"
        )
    kg = scan_atomic(atomic_path(folder, row.name, "kg"), layout.triple, layout)
    ends = pl.concat([kg.select(entity=end) for end in (layout.head, layout.tail)])
    known = scan_atomic(path, [layout.entity, "name"], layout).select(entity=layout.entity)
    unnamed = ends.join(known, on="entity", how="anti").select(pl.col("entity").n_unique())
    without = unnamed.collect(engine="streaming").item()
    return f"entities without a name: {without:,} of {row.entities:,}"


def has_graph(folder: str | os.PathLike[str], name: str) -> bool:
    """Whether a dataset has a knowledge graph; one of its two files alone is a mistake."""
    return any(atomic_path(folder, name, suffix).is_file() for suffix in ("kg", "link"))


def _of_graph(
    items: pl.Series,
    kg: Future[list[Ids]],
    folder: str | os.PathLike[str],
    name: str,
    layout: Layout,
) -> dict[str, int]:
    """What the knowledge graph of a dataset with these items counts."""
    pair = [layout.item, layout.entity]
    linked = scan_atomic(atomic_path(folder, name, "link"), pair, layout).collect()[layout.item]
    entities, relations = kg.result()
    return {
        "linked_items": int(items.is_in(linked.implode()).sum()),
        "entities": len(entities.tokens),
        "relations": len(relations.tokens),
        "triples": len(relations.numbers[layout.relation]),
    }


def _ids(path: Path, suffix: str, required: dict[str, str], layout: Layout) -> list[Ids]:
    check_atomic_file(path, required, layout.separator, layout.encoding)
    return read_ids(path, required, layout.kinds_of_id[suffix], layout)[0]
