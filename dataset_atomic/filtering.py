"""Sec. 5.1 of the paper: which interactions, links and triples make up a dataset.

Four rules depend on each other: the k-core, the restriction to linked items, the one-step
expansion of the knowledge graph from their entities, and the removal of infrequent relations
(which may leave an entity without any triple, so that its items are no longer linked).  They
are applied together until none of them removes anything.  Each rule keeps more of one table if
more of the others is left, hence the result is the largest dataset that obeys all rules, and
the order of application does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from dataset_atomic.atomic import AtomicTable
from dataset_atomic.attributes import attribute_relations, reverse_relations
from ksr_recbole.text import counted

PAPER_MIN_TRIPLES = 5_000
"""Relations with fewer triples were dropped from the paper's graphs."""


@dataclass
class Funnel:
    """How many rows of a table were dropped and why.

    Attributes:
        table: what is counted, such as ``".inter"``.
        rows_in: number of rows before anything was dropped.
        dropped: number of rows by reason, in the order in which the reasons first applied.
    """

    table: str
    rows_in: int
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def rows_out(self) -> int:
        """Number of rows left."""
        return self.rows_in - sum(self.dropped.values())

    def step(self, reason: str, before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
        """Note that ``after`` is what ``reason`` left of ``before``, and return ``after``."""
        self.drop(reason, before.height - after.height)
        return after

    def drop(self, reason: str, count: int) -> None:
        """Note that ``count`` rows were dropped for a reason."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def line(self) -> str:
        """``.kg: 91,631 rows in, 6 dropped (infrequent relation), 91,625 rows out``."""
        dropped = [f"{count:,} dropped ({reason})" for reason, count in self.dropped.items()]
        rows_in, rows_out = (counted(rows, "row") for rows in (self.rows_in, self.rows_out))
        return ", ".join([f"{self.table}: {rows_in} in", *dropped, f"{rows_out} out"])


@dataclass(frozen=True)
class LinkedData:
    """Interactions, links and triples that belong together; columns as in the atomic files.

    Attributes:
        inter: interactions, with at least ``user_id`` and ``item_id``.
        link: ``item_id`` and ``entity_id``; items may share an entity.
        kg: ``head_id``, ``relation_id`` and ``tail_id``.
    """

    inter: pl.DataFrame
    link: pl.DataFrame
    kg: pl.DataFrame

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Number of rows of the three tables."""
        return self.inter.height, self.link.height, self.kg.height


@dataclass(frozen=True)
class LinkedFunnels:
    """One :class:`Funnel` per table of :class:`LinkedData`."""

    inter: Funnel
    link: Funnel
    kg: Funnel


def default_min_triples(n_triples: int) -> int:
    """The paper's threshold for infrequent relations, scaled to the size of a graph.

    The paper drops relations with fewer than 5,000 triples from what it expanded out of 63
    million.  A bundled subgraph has far fewer, so a thousandth of its triples is asked for, and
    never more than the paper's threshold.
    """
    return max(1, min(PAPER_MIN_TRIPLES, n_triples // 1000))


def filter_to_fixed_point(
    data: LinkedData, *, k_core: int, min_triples: int, hops: int = 1
) -> tuple[LinkedData, LinkedFunnels, int]:
    """Apply the rules of the module's docstring until they remove nothing.

    Rows keep their order.  Triples that occur several times are kept once.

    Args:
        data: what the source offers.
        k_core: users and items with fewer interactions are removed.
        min_triples: relations with fewer triples are removed.
        hops: triples further than this from the items' entities are removed.

    Returns:
        What is left (possibly nothing), why the rest is not, and how many rounds it took.
    """
    funnels = LinkedFunnels(
        Funnel(".inter", data.inter.height),
        Funnel(".link", data.link.height),
        Funnel(".kg", data.kg.height),
    )
    distinct = data.kg.unique(maintain_order=True)
    kg = funnels.kg.step("repeated triple", data.kg, distinct)
    data, rounds = LinkedData(data.inter, data.link, kg), 0
    while True:
        before, rounds = data.sizes, rounds + 1
        data = _filter_once(data, funnels, k_core, min_triples, hops)
        if data.sizes == before:
            return data, funnels, rounds


def _filter_once(
    data: LinkedData, funnels: LinkedFunnels, k_core: int, min_triples: int, hops: int
) -> LinkedData:
    inter, link, kg = data.inter, data.link, data.kg
    entities = pl.concat([kg["head_id"], kg["tail_id"]])
    link = funnels.link.step("entity not in the graph", link, _where(link, "entity_id", entities))

    inter = funnels.inter.step(
        "item without an entity", inter, _where(inter, "item_id", link["item_id"])
    )
    inter = funnels.inter.step(f"outside the {k_core}-core", inter, _dense(inter, k_core))
    link = funnels.link.step("item not in .inter", link, _where(link, "item_id", inter["item_id"]))

    reason = f"beyond {'one step' if hops == 1 else f'{hops} steps'} of the linked items"
    kg = funnels.kg.step(reason, kg, _within(kg, link["entity_id"], hops))
    is_frequent = pl.len().over("relation_id") >= min_triples
    reason = f"relation with fewer than {min_triples:,} triples"
    kg = funnels.kg.step(reason, kg, kg.filter(is_frequent))
    return LinkedData(inter, link, kg)


def core_of(inter: pl.DataFrame, k_core: int) -> pl.DataFrame:
    """The ``k``-core: the most interactions whose users and items all have at least ``k``."""
    while (dense := _dense(inter, k_core)).height < inter.height:
        inter = dense
    return inter


def largest_core(inter: pl.DataFrame) -> int:
    """The largest ``k`` whose :func:`core_of` the interactions, at least one, is not empty."""
    known, empty = 1, inter.height + 1
    while known + 1 < empty:
        middle = (known + empty) // 2
        if core_of(inter, middle).is_empty():
            empty = middle
        else:
            known = middle
    return known


def _dense(inter: pl.DataFrame, k_core: int) -> pl.DataFrame:
    return inter.filter(
        _is_frequent(inter["user_id"], k_core) & _is_frequent(inter["item_id"], k_core)
    )


def _is_frequent(ids: pl.Series, least: int) -> pl.Series:
    """Whether each id occurs often enough; counted by code, which needs little memory."""
    codes = ids.cast(pl.Categorical).to_physical().to_numpy()
    return pl.Series(np.bincount(codes, minlength=1)[codes] >= least)


def _within(kg: pl.DataFrame, entities: pl.Series, hops: int) -> pl.DataFrame:
    """The triples that ``hops`` steps from the entities reach."""
    for hop in range(1, hops + 1):
        near = kg.filter(_is_in("head_id", entities) | _is_in("tail_id", entities))
        if hop < hops:
            entities = pl.concat([near["head_id"], near["tail_id"].rename("head_id")]).unique()
    return near


def relation_table(
    kg: pl.DataFrame, link: pl.DataFrame, names: Mapping[str, str] | None = None
) -> AtomicTable:
    """The ``.relation`` file: every relation's reverse, and whether it is an attribute.

    See :mod:`dataset_atomic.attributes` for both.  ``reverse_id`` is empty where there is
    no reverse, ``attribute`` is 1 or 0.  With names there is a column ``name``.
    """
    relations = kg["relation_id"].unique().sort()
    entities = pl.concat([kg["head_id"], kg["tail_id"], link["entity_id"]]).unique().sort()
    triples = (
        _codes(kg["head_id"], entities),
        _codes(kg["relation_id"], relations),
        _codes(kg["tail_id"], entities),
        len(relations),
    )
    reverse = reverse_relations(*triples)
    attributes = attribute_relations(*triples, _codes(link["entity_id"], entities))
    ids = relations.to_list()
    is_attribute = np.isin(np.arange(len(ids)), attributes)
    frame = pl.DataFrame(
        {
            "relation_id": ids,
            "reverse_id": [None if r == -1 else ids[r] for r in reverse],
            "attribute": ["1" if yes else "0" for yes in is_attribute],
        },
        schema_overrides=dict.fromkeys(("relation_id", "reverse_id", "attribute"), pl.String),
    )
    types = {"relation_id": "token", "reverse_id": "token", "attribute": "float"}
    if names:
        frame = frame.with_columns(pl.Series("name", [names.get(r) for r in ids], pl.String))
        types["name"] = "token_seq"
    return AtomicTable(frame, types)


def _codes(values: pl.Series, vocabulary: pl.Series) -> np.ndarray:
    """Position of every value in a vocabulary of distinct strings, ``int64 [len(values)]``."""
    return values.cast(pl.Enum(vocabulary)).to_physical().to_numpy().astype(np.int64)


def _where(frame: pl.DataFrame, column: str, values: pl.Series) -> pl.DataFrame:
    return frame.filter(_is_in(column, values))


def _is_in(column: str, values: pl.Series) -> pl.Expr:
    return pl.col(column).is_in(values.unique().implode())
