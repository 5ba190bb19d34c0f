"""MovieLens-100k with a Freebase subgraph, from the files inside the RecBole wheel.

The wheel's ``ml-100k.link`` maps MovieLens's own ids (those of ml-1m and ml-20m) to Freebase
entities but calls them ml-100k ids, which links nearly every film to another one: item 50,
*Star Wars*, to *The Usual Suspects*.  ``ml_100k_crosswalk.tsv`` gives the MovieLens id of the
ml-100k items, with which the link is corrected.  18 films are listed twice in ml-100k: both
items have the same MovieLens id, are linked to the same entity, and stay two items.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dataset_atomic.atomic import (
    SEPARATOR,
    AtomicTable,
    atomic_path,
    read_atomic,
    write_atomic_files,
)
from dataset_atomic.filtering import (
    Funnel,
    LinkedData,
    default_min_triples,
    filter_to_fixed_point,
    relation_table,
)
from dataset_atomic.table1 import Table1, describe_table1
from ksr_recbole.errors import UserError

NAME = "ml-100k"

CROSSWALK = Path(__file__).with_name("ml_100k_crosswalk.tsv")

REQUIRED_COLUMNS = {
    "inter": {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"},
    "item": {"item_id": "token"},
    "user": {"user_id": "token"},
    "link": {"item_id": "token", "entity_id": "token"},
    "kg": {"head_id": "token", "relation_id": "token", "tail_id": "token"},
}
"""Source files by suffix, and the columns that the conversion needs of them."""


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        folder: where the atomic files are.
        k_core: users and items with fewer interactions were dropped.
        min_triples: relations with fewer triples were dropped.
        rounds: how often the rules were applied, the last time without effect.
        funnels: rows in, dropped and out per table.
        shared_entities: entities that more than one item is linked to.
        attributes: relations that are attributes of the items.
        table1: the statistics of the written files.
    """

    folder: Path
    k_core: int
    min_triples: int
    rounds: int
    funnels: tuple[Funnel, ...]
    shared_entities: int
    attributes: tuple[str, ...]
    table1: Table1

    def lines(self) -> list[str]:
        """The report for people, ending in the Table-1 line."""
        return [
            *(funnel.line() for funnel in self.funnels),
            f"{self.k_core}-core, relations of at least {self.min_triples:,} triples, "
            f"fixed point after {self.rounds} rounds, "
            f"{self.shared_entities} entities shared by several items",
            f"{len(self.attributes)} attributes: {', '.join(self.attributes)}",
            f"written to {self.folder}",
            self.table1.line(),
        ]


def convert_ml_100k(
    out_dir: str | os.PathLike[str],
    *,
    k_core: int = 10,
    min_triples: int | None = None,
    source_dir: str | os.PathLike[str] | None = None,
) -> ConversionReport:
    """Write ml-100k as the paper prepares its datasets (Sec. 5.1).

    Written are ``ml-100k.inter``, ``.kg``, ``.link``, ``.item``, ``.user`` and ``.relation``
    (see :func:`dataset_atomic.filtering.relation_table`), all or none of them.  Rows and
    columns keep the source's order.

    Args:
        out_dir: folder to write to; RecBole wants it to be called ``ml-100k``.
        k_core: users and items with fewer interactions are dropped.
        min_triples: relations with fewer triples are dropped; by default
            :func:`dataset_atomic.filtering.default_min_triples` of the source's triples.
        source_dir: folder with the five source files; by default that in the RecBole wheel.

    Raises:
        UserError: a source file is missing or malformed, nothing is left, or the folder cannot
            be written.
    """
    for key, value in (("k_core", k_core), ("min_triples", min_triples)):
        if value is not None and value < 1:
            raise UserError(f"`{key}` is {value}; expected a whole number of at least 1.")
    folder = Path(source_dir) if source_dir is not None else bundled_folder()
    source = {
        suffix: read_atomic(atomic_path(folder, NAME, suffix), required)
        for suffix, required in REQUIRED_COLUMNS.items()
    }
    if min_triples is None:
        min_triples = default_min_triples(source["kg"].frame.n_unique())

    linking = Funnel(".link", source["item"].frame.height)
    link = correct_link(source["item"].frame, source["link"].frame, read_crosswalk(), linking)
    data, funnels, rounds = filter_to_fixed_point(
        LinkedData(source["inter"].frame, link, source["kg"].frame),
        k_core=k_core,
        min_triples=min_triples,
    )
    if data.link.is_empty():
        raise UserError(
            f"No linked item of {atomic_path(folder, NAME, 'link')} is left after filtering with "
            f"k_core={k_core} and min_triples={min_triples}; lower them or check the source files."
        )
    linking.dropped |= funnels.link.dropped
    tables = _tables_of(source, data)
    write_atomic_files(out_dir, NAME, tables)
    return ConversionReport(
        folder=Path(out_dir),
        k_core=k_core,
        min_triples=min_triples,
        rounds=rounds,
        funnels=(
            funnels.inter,
            linking,
            funnels.kg,
            *(_restriction(suffix, source, tables) for suffix in ("item", "user")),
        ),
        shared_entities=int((data.link["entity_id"].value_counts()["count"] > 1).sum()),
        attributes=_attributes(tables["relation"]),
        table1=describe_table1(out_dir, NAME),
    )


def bundled_folder() -> Path:
    """The folder of ml-100k in the installed RecBole, which need not be imported for it."""
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "The source files of ml-100k come with RecBole, which is not installed; "
            "run `pip install recbole` or name the folder that holds them."
        )
    return Path(spec.submodule_search_locations[0]) / "dataset_example" / NAME


def read_crosswalk() -> pl.DataFrame:
    """``item_id`` of ml-100k and ``movielens_id`` of the same film, one row per item."""
    crosswalk = pl.read_csv(CROSSWALK, separator=SEPARATOR, infer_schema=False)
    return crosswalk.rename({"ml100k_item_id": "item_id"})


def correct_link(
    items: pl.DataFrame, bundled: pl.DataFrame, crosswalk: pl.DataFrame, funnel: Funnel
) -> pl.DataFrame:
    """The entity of every ml-100k item that has one, in the order of the items.

    Args:
        items: the ``.item`` file.
        bundled: the wheel's ``.link`` file, whose ``item_id`` is a MovieLens id.
        crosswalk: see :func:`read_crosswalk`.
        funnel: notes why items have no entity.

    Returns:
        ``item_id`` and ``entity_id``.
    """
    entity_of = bundled.select("entity_id", movielens_id="item_id").unique(
        "movielens_id", keep="first", maintain_order=True
    )
    known = items.join(crosswalk, on="item_id", maintain_order="left")
    linked = known.join(entity_of, on="movielens_id", maintain_order="left")
    funnel.step("item without a MovieLens id", items, known)
    funnel.step("MovieLens id without an entity", known, linked)
    return linked.select("item_id", "entity_id")


def _tables_of(source: dict[str, AtomicTable], data: LinkedData) -> dict[str, AtomicTable]:
    """The tables to write, by suffix."""
    items, users = source["item"], source["user"]
    relation = relation_table(data.kg, data.link)
    if not _attributes(relation):
        raise UserError(
            "None of the relations left in the graph has items as heads, so the memory would have "
            "no attribute; check that .kg holds the entities of .link as head_id."
        )
    keep_item = pl.col("item_id").is_in(data.link["item_id"].implode())
    keep_user = pl.col("user_id").is_in(data.inter["user_id"].unique().implode())
    return {
        "inter": source["inter"].with_frame(data.inter),
        "kg": source["kg"].with_frame(data.kg),
        "link": AtomicTable(data.link, REQUIRED_COLUMNS["link"]),
        "item": items.with_frame(items.frame.filter(keep_item)),
        "user": users.with_frame(users.frame.filter(keep_user)),
        "relation": relation,
    }


def _attributes(relation: AtomicTable) -> tuple[str, ...]:
    return tuple(relation.frame.filter(pl.col("attribute") == "1")["relation_id"])


def _restriction(
    suffix: str, source: dict[str, AtomicTable], tables: dict[str, AtomicTable]
) -> Funnel:
    """What was dropped of a side table."""
    funnel = Funnel(f".{suffix}", source[suffix].frame.height)
    funnel.step("not in .inter", source[suffix].frame, tables[suffix].frame)
    return funnel
