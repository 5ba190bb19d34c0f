"""MovieLens-100k, from the files inside the RecBole wheel, with one of two knowledge graphs.

``ml-100k`` has the film graph that ships with this package, ``ml-100k-freebase`` the wheel's
Freebase subgraph.  The wheel's ``ml-100k.link`` maps MovieLens's own ids (those of ml-1m and
ml-20m) to Freebase entities but calls them ml-100k ids, which links nearly every film to another
one: item 50, *Star Wars*, to *The Usual Suspects*.  ``ml_100k_crosswalk.tsv`` gives the MovieLens
id of the ml-100k items, with which both links are looked up.  18 films are listed twice in
ml-100k: both items have the same MovieLens id, are linked to the same entity, and stay two items.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import polars as pl

from dataset_atomic import film_graph
from dataset_atomic.atomic import RECBOLES, AtomicTable, atomic_path, read_atomic
from dataset_atomic.convert import (
    ConversionReport,
    Graph,
    Material,
    Options,
    convert,
    ensure_free,
)
from dataset_atomic.filtering import Funnel
from dataset_atomic.raw.interactions import Period, read_interactions
from dataset_atomic.raw.links import read_links
from dataset_atomic.raw.stream import TextFormat, read_table
from dataset_atomic.sources import INTER, SOURCES, find_in, movie_facts, movie_table
from ksr_recbole.errors import UserError

NAME = "ml-100k"
FREEBASE = "ml-100k-freebase"

CROSSWALK = Path(__file__).with_name("ml_100k_crosswalk.tsv")

REQUIRED_COLUMNS = {
    "inter": {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"},
    "item": {"item_id": "token"},
    "user": {"user_id": "token"},
    "link": {"item_id": "token", "entity_id": "token"},
    "kg": {"head_id": "token", "relation_id": "token", "tail_id": "token"},
}
"""Source files by suffix, and the columns that the conversion needs of them."""

_GENRES = tuple(
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy "  # noqa: SIM905
    "Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western".split(" ")
)
_U_ITEM = TextFormat(
    ("item_id", "title", "release_date", "video_date", "url", *_GENRES),
    separator="|",
    encoding="latin-1",
    optional=frozenset(["release_date", "video_date", "url"]),
)
_U_USER = TextFormat(("user_id", "age", "gender", "occupation", "zip_code"), separator="|")


def convert_ml_100k(
    out_dir: str | os.PathLike[str],
    name: str = NAME,
    *,
    options: Options | None = None,
    raw: Path | None = None,
    link: Path | None = None,
    kg: list[Path] | None = None,
) -> ConversionReport:
    """Write ml-100k as the paper prepares its datasets (Sec. 5.1).

    Written are ``<name>.inter`` (in the order of time), ``.kg``, ``.link``, ``.item``, ``.user``,
    ``.relation`` (see :func:`dataset_atomic.filtering.relation_table`) and ``.origin``, and
    ``.entity`` where there are names, all or none of them.

    Args:
        out_dir: folder to write to; RecBole wants it to be called like the dataset.
        name: of the dataset, which says its graph: ``ml-100k`` or ``ml-100k-freebase``.
        options: see :class:`dataset_atomic.convert.Options`.
        raw: a folder with ``u.data`` and ``u.item``; by default the wheel's atomic files.
        link: a link file by MovieLens ids, such as ``ml2fb.txt``; by default the graph's.
        kg: the knowledge graph; by default the one that goes with the name.

    Raises:
        UserError: a source file is missing or malformed, nothing is left, or the folder is not
            empty or cannot be written.
    """
    options = options or Options()
    ensure_free(out_dir, options)
    folder = bundled_folder()
    graph, pairs = _graph_and_link(name, folder, link, kg, options.names)
    if raw is None:
        ratings, layout = atomic_path(folder, NAME, "inter"), INTER
        side = {s: _bundled(folder, s) for s in ("inter", "item", "user")}
        del side["inter"]  # looked at only to say what is wrong with it
    else:
        ratings, layout = SOURCES[NAME].ratings_file(raw)
        side = _raw_side(ratings.parent)
    items = side["item"].frame
    linking = Funnel(".link", items.height)
    linked = correct_link(items, pairs, read_crosswalk(), linking)
    inter = read_interactions(ratings, layout, linked["item_id"], options.period or Period())
    facts = {"facts": movie_facts(items)} if film_graph.KG in graph.triples else {}
    material = Material(name, inter, linked, linking, side, inter.notes, **facts)
    return convert(material, graph.linked_by(link), out_dir, options)


def _graph_and_link(
    name: str, folder: Path, link: Path | None, kg: list[Path] | None, names: Path | None
) -> tuple[Graph, pl.DataFrame]:
    """The knowledge graph, and the entities of MovieLens's film ids."""
    wheel = name == FREEBASE
    if kg:
        graph = Graph.given(kg, names)
    elif wheel:
        _bundled(folder, "kg")
        graph = Graph.given([atomic_path(folder, NAME, "kg")], names)
        graph = replace(graph, origin="the Freebase subgraph of RecBole's ml-100k, link corrected")
    else:
        graph = Graph.films(names)
    if link is not None:
        return graph, read_links(link).frame
    return graph, _bundled(folder, "link").frame if wheel else read_links(film_graph.LINK).frame


def _bundled(folder: Path, suffix: str) -> AtomicTable:
    return read_atomic(atomic_path(folder, NAME, suffix), REQUIRED_COLUMNS[suffix])


def bundled_folder() -> Path:
    """The folder of ml-100k in the installed RecBole, which need not be imported for it.

    Raises:
        UserError: RecBole is not installed.
    """
    spec = importlib.util.find_spec("recbole")
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        raise UserError(
            "The source files of ml-100k come with RecBole, which is not installed; "
            "run `pip install recbole` or name the folder that holds them."
        )
    return Path(spec.submodule_search_locations[0]) / "dataset_example" / NAME


def read_crosswalk() -> pl.DataFrame:
    """``item_id`` of ml-100k and ``movielens_id`` of the same film, one row per item."""
    crosswalk = pl.read_csv(CROSSWALK, separator=RECBOLES.separator, infer_schema=False)
    return crosswalk.rename({"ml100k_item_id": "item_id"})


def correct_link(
    items: pl.DataFrame, bundled: pl.DataFrame, crosswalk: pl.DataFrame, funnel: Funnel
) -> pl.DataFrame:
    """The entity of every ml-100k item that has one, in the order of the items.

    Args:
        items: the ``.item`` file.
        bundled: links whose ``item_id`` is a MovieLens id.
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


def _raw_side(folder: Path) -> dict[str, AtomicTable]:
    """The tables of ``u.item`` and, if it is there, ``u.user``."""
    films = read_table(folder / "u.item", _U_ITEM)
    flags = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in _GENRES]
    genre = pl.concat_str(flags, separator="|", ignore_nulls=True)
    side = {"item": movie_table(films.with_columns(genre=genre))}
    users = find_in(folder, ("u.user",))
    if users is not None:
        types = dict.fromkeys(_U_USER.columns, "token")
        side["user"] = AtomicTable(read_table(users, _U_USER).select(*types), types)
    return side
