"""From raw interactions, links and a knowledge graph to RecBole's atomic files (Sec. 5.1)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from dataset_atomic import film_graph
from dataset_atomic.atomic import RECBOLES, AtomicTable, write_atomic_files
from dataset_atomic.atomic_files import SUFFIXES, is_atomic_name
from dataset_atomic.filtering import (
    Funnel,
    LinkedData,
    LinkedFunnels,
    core_of,
    default_min_triples,
    filter_to_fixed_point,
    largest_core,
    relation_table,
)
from dataset_atomic.held import holding
from dataset_atomic.layout import Layout
from dataset_atomic.lines import check_whole
from dataset_atomic.raw.interactions import (
    WITHOUT_ENTITY,
    Interactions,
    Period,
    read_interactions,
)
from dataset_atomic.raw.iris import check_ids, shorten
from dataset_atomic.raw.links import Links, read_links
from dataset_atomic.raw.stream import TextFormat, first_line, is_atomic, read_table
from dataset_atomic.raw.triples import TRIPLE, NameSpool, Scan, scan_triples
from dataset_atomic.sources import FACT, SOURCES, Source, find_in, movie_facts
from dataset_atomic.table1 import Table1, describe_table1
from ksr_recbole.errors import UserError, cannot_write
from ksr_recbole.one_step import finish_steps, no_name, only_leftovers, temporary_folder
from ksr_recbole.text import counted

LINK_TYPES = {"item_id": "token", "entity_id": "token"}
NAME = dict.fromkeys(("entity_id", "name"), pl.String)
ORIGIN_TYPES = {"graph": "token_seq", "links": "token_seq"}


MOST = {"k_core": 10**9, "min_triples": 10**12, "hops": 100}
"""No data need more, and counts of rows are no larger.  Each hop reads the graph once."""


@dataclass(frozen=True)
class Options:
    """How to convert; the defaults are the paper's (Sec. 5.1).

    Attributes:
        k_core: users and items with fewer interactions are dropped; the source's by default.
        min_triples: relations with fewer triples are dropped; by default
            :func:`dataset_atomic.filtering.default_min_triples` of the triples within reach.
        hops: steps from the linked entities.
        drop_repeats: keep the first interaction of a user with an item only.
        period: which times count; the source's by default.
        names: a file of names, see :func:`read_names`, in addition to those in the graph.
        overwrite: replace what is in the output folder.
        layout: what the columns are called in the files, and how they are written.

    Raises:
        UserError: a number below 1 or beyond :data:`MOST`.
    """

    k_core: int | None = None
    min_triples: int | None = None
    hops: int = 1
    drop_repeats: bool = False
    period: Period | None = None
    names: Path | None = None
    overwrite: bool = False
    layout: Layout = RECBOLES

    def __post_init__(self) -> None:
        for key, most in MOST.items():
            check_whole(key, getattr(self, key), 1, most)


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
        notes: what else was decided, in sentences.
        origin: which graph it is and where it comes from.
    """

    folder: Path
    k_core: int
    min_triples: int
    rounds: int
    funnels: tuple[Funnel, ...]
    shared_entities: int
    attributes: tuple[str, ...]
    table1: Table1
    notes: tuple[str, ...] = ()
    origin: str = ""

    def lines(self) -> list[str]:
        """The report for people, without the Table-1 line."""
        return [
            *(funnel.line() for funnel in self.funnels),
            *self.notes,
            f"kept: users and items with at least {counted(self.k_core, 'interaction')} each "
            f"({self.k_core}-core), relations with at least {counted(self.min_triples, 'triple')}; "
            f"nothing more was left out after {counted(self.rounds, 'round')} of these rules",
            f"{counted(self.shared_entities, 'entity', 'entities')} shared by several items",
            f"{counted(len(self.attributes), 'attribute')}: {', '.join(self.attributes)}",
            f"graph: {self.origin}",
            f"written to {self.folder}",
        ]


@dataclass(frozen=True)
class Material:
    """What a conversion works on; the graph is not read yet.

    Attributes:
        name: of the dataset.
        inter: the linked interactions and their funnel.
        link: ``item_id``, ``entity_id``.
        linking: the links' funnel so far.
        side: further tables by suffix, restricted to the items or users that are left.
        notes: what was decided so far.
        facts: what the dataset's own tables say of its items
            (:data:`dataset_atomic.sources.FACT`); its triples are added to the graph's.
        names: further ``entity_id`` and ``name``.
    """

    name: str
    inter: Interactions
    link: pl.DataFrame
    linking: Funnel
    side: dict[str, AtomicTable] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    facts: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=FACT))
    names: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=NAME))


@dataclass(frozen=True)
class Graph:
    """Where the triples, the links and the names of a conversion come from.

    Attributes:
        triples: files and folders, see :func:`dataset_atomic.raw.triples.scan_triples`.
        names: files of names, see :func:`read_names`; the first that names an entity counts.
        origin: which graph it is and where it comes from, in a few words.
    """

    triples: tuple[Path, ...]
    names: tuple[Path, ...]
    origin: str

    @classmethod
    def given(cls, triples: Sequence[Path], names: Path | None = None) -> Graph:
        """The graph of some files that the user named."""
        origin = ", ".join(path.name for path in triples)
        return cls(tuple(triples), () if names is None else (names,), origin)

    def with_part(self, what: str) -> Graph:
        """The graph with triples from somewhere else too."""
        return replace(self, origin=" and ".join(filter(None, [self.origin, what])))

    def linked_by(self, link: Path | None) -> Graph:
        """The graph with the links of a file that the user named, if any."""
        return self if link is None else replace(self, origin=f"{self.origin}, links: {link.name}")

    @classmethod
    def films(cls, names: Path | None = None) -> Graph:
        """The graph that ships with the package."""
        given = () if names is None else (names,)
        return cls((film_graph.KG,), (*given, film_graph.NAMES), film_graph.ORIGIN)


def convert_source(
    source: Source,
    raw: Path,
    out_dir: str | os.PathLike[str],
    *,
    link: Path | None = None,
    kg: list[Path] | None = None,
    options: Options | None = None,
) -> ConversionReport:
    """Convert a public dataset from its raw folder.

    Args:
        source: see :data:`dataset_atomic.sources.SOURCES`.
        raw: the folder of the raw files.
        out_dir: folder to write to; RecBole wants it to be called like the dataset.
        link: the link file; by default KB4Rec's in the raw folder, or that of the graph's folder.
        kg: the knowledge graph; by default a known one in the raw folder, or for MovieLens the
            film graph that ships with the package, with its own links.
        options: see :class:`Options`.

    Raises:
        UserError: a file is missing or malformed, nothing is left, the output folder is not empty
            or cannot be written.
    """
    options = options or Options()
    ensure_free(out_dir, options)
    ratings, layout = source.ratings_file(raw)
    paths = kg or [path for path in [find_in(raw, source.kg)] if path]
    of_films = not paths and source.films
    if of_films:
        graph, links = Graph.films(options.names), read_links(link or film_graph.LINK)
    else:
        links = find_links(source.name, link or find_in(raw, (source.link,)), paths)
        graph = Graph.given(paths, options.names)
    graph = graph.linked_by(link)
    inter = read_interactions(
        ratings, layout, links.frame["item_id"], options.period or source.period
    )
    items = source.item_table(raw)
    material = material_of(source.name, inter, links, {"item": items} if items else {})
    if of_films and items is not None:
        material = replace(material, facts=movie_facts(items.frame))
    return convert(material, graph, out_dir, options, default_k_core=source.k_core)


def find_links(name: str, link: Path | None, graphs: list[Path]) -> Links:
    """The links of a file, or of a graph's folder.

    Raises:
        UserError: there is no graph or no link, or the file is malformed.
    """
    if not graphs:
        raise UserError(
            f"There is no knowledge graph for {name}; give one with --kg=PATH (a folder with "
            "hop1.kg, triples separated by tabs, N-Triples or a Freebase dump, .gz or not)"
            f"{', or a table of items with --items=FILE' if name not in SOURCES else ''}."
        )
    if link is None:
        link = next((path / "link.kg" for path in graphs if (path / "link.kg").is_file()), None)
    if link is None:
        raise UserError(
            f"There is no link file for {name}; give one with --link=FILE (lines of an item, a "
            "tab, and its entity, such as KB4Rec's)."
        )
    return read_links(link)


def material_of(
    name: str, inter: Interactions, links: Links, side: dict[str, AtomicTable]
) -> Material:
    """Put together what was read, and say what the links are like.

    Raises:
        UserError: no interaction is with a linked item.
    """
    if inter.frame.is_empty():
        seen = ", ".join(repr(item) for item in inter.example_items)
        linked = ", ".join(repr(item) for item in links.frame["item_id"].head(3))
        raise UserError(
            f"No interaction of {name} is left: {inter.funnel.line()}. Items seen in the "
            f"interactions: {seen}; in the links: {linked}. Check that both use the same ids, and "
            "the period."
        )
    funnel = Funnel(".link", links.rows_in)
    funnel.drop("repeated link", links.repeated)
    funnel.drop("item already linked by an earlier line", links.contradicting)
    notes = list(inter.notes)
    if links.contradicting:
        notes.append(
            f"{counted(links.contradicting, 'link')} to another entity than an earlier line has "
            "for the item; the first line counts"
        )
    return Material(name, inter, links.frame, funnel, side, tuple(notes))


def convert(
    material: Material,
    graph: Graph,
    out_dir: str | os.PathLike[str],
    options: Options,
    *,
    default_k_core: int = 10,
) -> ConversionReport:
    """Scan the graph around the linked items, filter to the fixed point, and write."""
    k_core = options.k_core or default_k_core
    # Whatever the graph holds, nothing outside this core can be left: fewer seeds to look for.
    inter, inter_funnel = _in_core(material, options, k_core)
    all_links = material.link.with_columns(pl.col("item_id").cast(pl.Categorical))
    in_core = pl.col("item_id").is_in(inter["item_id"].unique().implode())
    link = material.linking.step("item not in .inter", all_links, all_links.filter(in_core))
    with _spool_folder(Path(out_dir)) as spool_folder:
        spool = NameSpool(spool_folder)
        scan = scan_triples(graph.triples, link["entity_id"], hops=options.hops, names=spool)
        scan = _with_facts(scan, material, link)
        left = _filtered(material, LinkedData(inter, link, scan.kg), options, k_core)
        entities = _entities_of(left.data)
        given = _given_names(graph, material)
        names = _names(entities, spool, given)
    funnels = (inter_funnel, material.linking, scan.funnel)
    left.add_dropped_to(funnels)
    tables = _tables_of(material, left.data, names, _names_of_relations(left.data.kg, given))
    about = {"graph": [graph.origin], "links": [_linked(inter_funnel)]}
    tables["origin"] = AtomicTable(pl.DataFrame(about), ORIGIN_TYPES)
    restrictions = [_restriction(s, material.side[s], tables[s]) for s in material.side]
    table1 = _write(out_dir, material.name, tables, options)
    named = f".entity: names for {names.height:,} of {counted(len(entities), 'entity', 'entities')}"
    return ConversionReport(
        folder=Path(out_dir),
        k_core=k_core,
        min_triples=left.min_triples,
        rounds=left.rounds,
        funnels=(*funnels, *restrictions),
        shared_entities=int((left.data.link["entity_id"].value_counts()["count"] > 1).sum()),
        attributes=attribute_names(tables["relation"]),
        table1=table1,
        notes=(*material.notes, *([named] if names.height else [])),
        origin=graph.origin,
    )


@dataclass(frozen=True)
class _Left:
    """What the rules have left.

    Attributes:
        data: interactions, links and triples.
        funnels: what they dropped.
        rounds: how often they were applied.
        min_triples: relations with fewer triples were dropped.
    """

    data: LinkedData
    funnels: LinkedFunnels
    rounds: int
    min_triples: int

    def add_dropped_to(self, funnels: Sequence[Funnel]) -> None:
        """Add what was dropped to the funnels of interactions, links and triples so far."""
        later = (self.funnels.inter, self.funnels.link, self.funnels.kg)
        for funnel, more in zip(funnels, later, strict=True):
            for reason, count in more.dropped.items():
                funnel.drop(reason, count)


def _filtered(material: Material, found: LinkedData, options: Options, k_core: int) -> _Left:
    """Apply the rules until nothing changes.

    Raises:
        UserError: nothing is left.
    """
    min_triples = options.min_triples or default_min_triples(found.kg.n_unique())
    data, funnels, rounds = filter_to_fixed_point(
        found, k_core=k_core, min_triples=min_triples, hops=options.hops
    )
    if data.link.is_empty():
        raise UserError(_nothing_left(material, found.kg, k_core, min_triples))
    return _Left(data, funnels, rounds, min_triples)


def _entities_of(data: LinkedData) -> pl.Series:
    """All entities of links and triples, each once."""
    ends = (data.kg[end].rename("entity_id") for end in TRIPLE[::2])
    return pl.concat([data.link["entity_id"], *ends]).unique(maintain_order=True)


def _write(
    out_dir: str | os.PathLike[str], name: str, tables: dict[str, AtomicTable], options: Options
) -> Table1:
    """Write the files; what they hold, even if another command replaces them at once."""
    found: list[Table1] = []

    def look(folder: Path) -> None:
        with holding():  # nothing for a reader of the files once they are in their places
            found.append(describe_table1(folder, name, layout=options.layout))

    def check() -> None:
        ensure_free(out_dir, options)

    # Files of an earlier conversion that this one does not replace do not belong to it.
    stale = sorted(set(SUFFIXES) - set(tables))
    write_atomic_files(out_dir, name, tables, stale, check, options.layout, look)
    return found[0]


def _linked(inter: Funnel) -> str:
    """How many raw interactions were dropped because their item has no link."""
    lost = inter.dropped.get(WITHOUT_ENTITY, 0)
    return f"{lost:,} of {inter.rows_in:,} raw interactions were with items without a link"


def _with_facts(scan: Scan, material: Material, link: pl.DataFrame) -> Scan:
    """A scan whose graph has the facts on the linked items too."""
    facts = material.facts.join(link.cast(pl.String), on="item_id", maintain_order="left")
    triples = facts.select(pl.col("entity_id").alias("head_id"), "relation_id", "tail_id")
    scan.funnel.rows_in += triples.height
    return replace(scan, kg=pl.concat([scan.kg, triples]))


def _in_core(material: Material, options: Options, k_core: int) -> tuple[pl.DataFrame, Funnel]:
    """The interactions between users and linked items with ``k_core`` of them each."""
    inter, funnel = _without_repeats(material, options)
    core = funnel.step(f"outside the {k_core}-core", inter, core_of(inter, k_core))
    if core.is_empty():
        most = largest_core(inter)
        raise UserError(
            f"No linked item of {material.name} is left in the {k_core}-core of its "
            f"{inter.height:,} interactions with linked items (k_core={k_core}: so many for every "
            f"user and item); lower it: --k-core={most} leaves {core_of(inter, most).height:,}."
        )
    return core, funnel


@contextmanager
def _spool_folder(out_dir: Path) -> Iterator[Path]:
    """A temporary folder where the dataset will be, as large as the names of a graph.

    One that a killed process left is removed by the next conversion, which the system's folder
    of temporary files would keep.
    """
    parent = next(path for path in (out_dir, *out_dir.absolute().parents) if path.is_dir())
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder(parent, no_name))
        except OSError as error:
            raise cannot_write(out_dir, error) from error
        yield folder


def ensure_free(out_dir: str | os.PathLike[str], options: Options) -> None:
    """Refuse a folder with something in it, unless it may be replaced.

    Raises:
        UserError: it is not empty.
    """
    folder = Path(out_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a folder with --out=FOLDER.")
    finish_steps(folder, is_atomic_name)
    if folder.is_dir() and not options.overwrite and not only_leftovers(folder):
        raise UserError(
            f"The folder {folder} is not empty; add --overwrite to replace the dataset in it, or "
            "choose another with --out=FOLDER."
        )


def read_names(path: Path) -> pl.DataFrame:
    """``entity_id`` and ``name`` from lines of an entity, a tab, its name, or ``.entity``."""
    columns = {"entity_id:token": "entity_id", "name:token_seq": "name"}
    with_header = is_atomic(first_line(path), columns)
    layout = TextFormat(columns if with_header else ("entity_id", "name"), header=with_header)
    table = read_table(path, layout, lambda block: check_ids(block, "entity_id"))
    table = table.select(shorten("entity_id"), "name")
    return table.unique("entity_id", keep="first", maintain_order=True)


def attribute_names(relation: AtomicTable) -> tuple[str, ...]:
    """Relations that the ``.relation`` table calls attributes."""
    return tuple(relation.frame.filter(pl.col("attribute") == "1")["relation_id"])


def _without_repeats(material: Material, options: Options) -> tuple[pl.DataFrame, Funnel]:
    """The interactions, and if asked for, only the first of a user with an item."""
    frame, funnel = material.inter.frame, material.inter.funnel
    if options.drop_repeats:
        first = frame.unique(["user_id", "item_id"], keep="first", maintain_order=True)
        frame = funnel.step("repeated (user, item)", frame, first)
    return frame, funnel


def _nothing_left(material: Material, kg: pl.DataFrame, k_core: int, min_triples: int) -> str:
    linked = ", ".join(repr(entity) for entity in material.link["entity_id"].head(3))
    seen = ", ".join(repr(entity) for entity in kg["head_id"].unique(maintain_order=True).head(3))
    return (
        f"No linked item of {material.name} is left after filtering with k_core={k_core} and "
        f"min_triples={min_triples}. Entities of the links: {linked}; of the graph: "
        f"{seen or 'none'}. Check that both use the same ids (--link=FILE gives the entities of a "
        "graph of your own), or lower the two options."
    )


def _given_names(graph: Graph, material: Material) -> pl.DataFrame:
    """``entity_id`` and ``name`` of entities and relations, from files and the items' tables."""
    frames = [read_names(path) for path in graph.names]
    frames += [material.names, material.facts.select(entity_id="tail_id", name="name")]
    return pl.concat(frames).unique("entity_id", keep="first", maintain_order=True)


def _names_of_relations(kg: pl.DataFrame, given: pl.DataFrame) -> dict[str, str]:
    is_relation = pl.col("entity_id").is_in(kg["relation_id"].unique().implode())
    return dict(given.filter(is_relation).iter_rows())


def _names(entities: pl.Series, spool: NameSpool, given: pl.DataFrame) -> pl.DataFrame:
    """``entity_id`` and ``name``; given ones go before the graph's names."""
    known = pl.concat([given, spool.of(entities)]).unique(
        "entity_id", keep="first", maintain_order=True
    )
    names = entities.to_frame("entity_id").join(known, on="entity_id", maintain_order="left")
    # RecBole reads atomic files with quotes, so that a name must not begin with one.
    text = pl.col("name").str.replace_all(r"\s+", " ").str.replace_all('"', "'", literal=True)
    return names.with_columns(text.str.strip_chars()).filter(pl.col("name") != "")


def _tables_of(
    material: Material, data: LinkedData, names: pl.DataFrame, of_relations: Mapping[str, str]
) -> dict[str, AtomicTable]:
    """The tables to write, by suffix."""
    relation = relation_table(data.kg, data.link, of_relations)
    if not attribute_names(relation):
        raise UserError(
            "None of the relations left in the graph has items as heads, so the memory would have "
            "no attribute; check that the graph holds the linked entities as heads."
        )
    types = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}
    inter_types = {name: types[name] for name in types if name in data.inter.columns}
    items = data.link["item_id"].cast(pl.String)
    users = data.inter["user_id"].unique().cast(pl.String)
    side = {}
    for suffix, table in material.side.items():
        left = pl.col(f"{suffix}_id").is_in((items if suffix == "item" else users).implode())
        rows = table.frame.filter(left).pipe(_quotes_replaced)
        side[suffix] = replace(table, frame=rows)
    tables = {
        "inter": AtomicTable(data.inter.select(*inter_types), inter_types),
        "kg": AtomicTable(data.kg, dict.fromkeys(TRIPLE, "token")),
        "link": AtomicTable(data.link.select(*LINK_TYPES), LINK_TYPES),
        **side,
        "relation": relation,
    }
    if names.height:
        tables["entity"] = AtomicTable(names, {"entity_id": "token", "name": "token_seq"})
    return tables


def _quotes_replaced(frame: pl.DataFrame) -> pl.DataFrame:
    """RecBole reads with quotes: a title that begins with a double quote would swallow lines."""
    return frame.with_columns(pl.col(pl.String).str.replace_all('"', "'", literal=True))


def _restriction(suffix: str, source: AtomicTable, table: AtomicTable) -> Funnel:
    """What was dropped of a side table."""
    funnel = Funnel(f".{suffix}", source.frame.height)
    funnel.step("not in .inter", source.frame, table.frame)
    return funnel
