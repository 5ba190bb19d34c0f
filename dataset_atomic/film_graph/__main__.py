"""Make the files of this folder again: ``python -m dataset_atomic.film_graph FOLDER``.

FOLDER holds ``ml-1m.kg``, ``ml-1m.link`` and ``ml-1m.entity``, RecBole's atomic files of ml-1m with
a graph put together from DBpedia, OMDb and MovieLens; with ``ml-1m.item`` there it is said how many
links lead to a film of another time.  Only what is DBpedia's is taken: OMDb's
facts may not be passed on, and genres and years are read from each user's own MovieLens files.
The same files give the same bytes.
"""

from __future__ import annotations

import gzip
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from dataset_atomic.atomic import atomic_path, scan_atomic
from dataset_atomic.film_graph import KG, LINK, NAMES
from ksr_recbole.arguments import Parser, path_of
from ksr_recbole.commands import run_command
from ksr_recbole.errors import UserError
from ksr_recbole.files import replacing

_ABOUT = "Makes the files of the film graph again, from RecBole's atomic files of ml-1m."

_DBPEDIA = ("dbo:", "dct:subject")
"""What the ids of DBpedia's relations begin with."""

_RELATIONS = {
    "dbo:cinematography": "cinematographer",
    "dbo:country": "country",
    "dbo:director": "director",
    "dbo:distributor": "distributor",
    "dbo:editing": "editor",
    "dbo:musicComposer": "composer",
    "dbo:producer": "producer",
    "dbo:productionCompany": "production company",
    "dbo:starring": "actor",
    "dbo:writer": "writer",
    "dct:subject": "category",
}


def make(folder: Path) -> list[str]:
    """Write the three files from those of a folder, and say what they hold.

    Raises:
        UserError: a file is missing or malformed, or has a relation without a name.
    """
    kg, link, entity = (
        scan_atomic(atomic_path(folder, "ml-1m", suffix), columns).collect()
        for suffix, columns in (
            ("kg", ["head_id", "relation_id", "tail_id"]),
            ("link", ["item_id", "entity_id"]),
            ("entity", ["entity_id", "name"]),
        )
    )
    relation = pl.col("relation_id")
    kg = kg.filter(pl.any_horizontal(relation.str.starts_with(p) for p in _DBPEDIA)).unique()
    if unnamed := set(kg["relation_id"]) - _RELATIONS.keys():
        raise UserError(f"{folder}/ml-1m.kg has relation {min(unnamed)}; name it in {__file__}.")
    link = link.filter(pl.col("entity_id").is_in(kg["head_id"].unique().implode()))
    kg = kg.filter(pl.col("head_id").is_in(link["entity_id"].implode()))
    ends = pl.concat([kg["head_id"], kg["tail_id"].rename("head_id")]).unique()
    entity = entity.filter(pl.col("entity_id").is_in(ends.implode())).unique("entity_id")
    # Names were taken from the ids, which are parts of addresses: %22 is a quotation mark.
    plain = [unquote(name).removeprefix("//").replace('"', "'") for name in entity["name"]]
    entity = entity.with_columns(pl.Series("name", plain))
    names = pl.concat(
        [
            pl.DataFrame(list(_RELATIONS.items()), schema=entity.schema, orient="row"),
            entity.sort("entity_id"),
        ]
    )
    told = []
    if (items := atomic_path(folder, "ml-1m", "item")).is_file():
        told = [links_by_year(kg, link, scan_atomic(items, ["item_id", "release_year"]).collect())]
    link = link.sort(pl.col("item_id").cast(pl.Int64))
    tables = {
        KG: kg.sort("relation_id", "head_id", "tail_id"),
        LINK: link.select("item_id", "entity_id"),
        NAMES: names.select("entity_id", "name"),
    }
    named = f"{len(ends):,} entities, {entity.height:,} of them with a name"
    return [*_write(tables), named, *told]


def _write(tables: Mapping[Path, pl.DataFrame]) -> list[str]:
    """Write every table to its path, all or none of them, and say how large each is."""
    with replacing(*tables) as temporaries:
        for path, table in zip(temporaries, tables.values(), strict=True):
            text = table.write_csv(separator="\t", include_header=False, quote_style="never")
            path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    return [
        f"{path.name}: {table.height:,} lines, {path.stat().st_size:,} bytes"
        for path, table in tables.items()
    ]


def links_by_year(kg: pl.DataFrame, link: pl.DataFrame, items: pl.DataFrame) -> str:
    """How many links lead to a film of another time, by the year in its name and its categories.

    Args:
        kg: ``head_id``, ``relation_id``, ``tail_id``.
        link: ``item_id``, ``entity_id``.
        items: ``item_id``, ``release_year``.
    """
    years = items.select("item_id", year=pl.col("release_year").cast(pl.Int64, strict=False))
    films = link.join(years.drop_nulls(), on="item_id")
    named = pl.col("entity_id").str.extract(r"_\((\d{4})_").cast(pl.Int64)
    category = pl.col("tail_id").str.extract(r"Category:(\d{4})_films$").cast(pl.Int64)
    categories = kg.select(entity_id="head_id", category=category).drop_nulls()
    off = (pl.col("category") - pl.col("year")).abs().min() > 1
    by_category = films.join(categories, on="entity_id").group_by("item_id").agg(category_off=off)
    found = films.with_columns(name_off=(named - pl.col("year")).abs() > 1).join(
        by_category, on="item_id", how="left"
    )
    kinds = found.group_by("name_off", "category_off").len()
    n = dict.fromkeys(product((True, False, None), repeat=2), 0)
    n |= {(name, category): count for name, category, count in kinds.iter_rows()}
    wrong, right = (sum(n[kind, other] for other in (True, False, None)) for kind in (True, False))
    return (
        f"links to a name with a year: {wrong + right:,}, {wrong:,} of another time; by their "
        f"categories {n[True, True]:,} of these {wrong:,}, {n[False, True]:,} of the other "
        f"{right:,}, and {n[None, True]:,} of {n[None, True] + n[None, False]:,} links to a name "
        "without a year"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = Parser("-m dataset_atomic.film_graph", description=_ABOUT)
    parser.add_argument("folder", metavar="FOLDER", take=path_of,
                        help="holds ml-1m.kg, ml-1m.link and ml-1m.entity")  # fmt: skip

    def run(given: Namespace) -> int:
        print("\n".join(make(given.folder)))
        return 0

    return run_command(run, parser, arguments, needs_recbole=False)


if __name__ == "__main__":
    sys.exit(main())
