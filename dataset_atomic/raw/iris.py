"""Short ids for the IRIs of the knowledge bases that items are linked to.

Freebase's ids are those of KB4Rec (``m.0dyb1``), others get the usual prefix (``dbr:Alien_(film)``,
``wd:Q103569``); any other IRI loses its angle brackets only, as KB4Rec's YAGO ids do.
"""

from __future__ import annotations

import re

import polars as pl

from dataset_atomic.lines import first_true
from dataset_atomic.raw.stream import Block
from ksr_recbole.errors import UserError, shown

FREEBASE = "http://rdf.freebase.com/ns/"

PREFIXES = {
    FREEBASE: "",
    "http://dbpedia.org/resource/": "dbr:",
    "http://dbpedia.org/ontology/": "dbo:",
    "http://dbpedia.org/property/": "dbp:",
    "http://www.wikidata.org/entity/": "wd:",
    "http://www.wikidata.org/prop/direct/": "wdt:",
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#": "rdf:",
    "http://www.w3.org/2000/01/rdf-schema#": "rdfs:",
    "http://www.w3.org/2002/07/owl#": "owl:",
    "http://purl.org/dc/terms/": "dct:",
}
"""What the beginning of an IRI is shortened to."""

ENTITY_SPACES = {
    "Freebase (m.* or g.*)": (r"^[mg]\.", (f"<{FREEBASE}m.", f"<{FREEBASE}g.")),
    "DBpedia (dbr:*)": (r"^dbr:", ("<http://dbpedia.org/resource/",)),
    "Wikidata (wd:Q*)": (r"^wd:Q\d", ("<http://www.wikidata.org/entity/Q",)),
}
"""Knowledge bases: the form of their entities' short ids, and how their IRIs begin."""

NAME_PREDICATES = (
    f"<{FREEBASE}type.object.name>",
    "<http://www.w3.org/2000/01/rdf-schema#label>",
    "<http://www.w3.org/2004/02/skos/core#prefLabel>",
)
"""Relations whose literals are names."""


def check_ids(block: Block, *columns: str) -> None:
    """Refuse what would be left without an id, or with another one, if its brackets were taken off.

    Args:
        block: some lines.
        columns: those of their columns that hold ids, IRIs or literals.

    Raises:
        UserError: an id is blank or an empty IRI, or has a bracket on one side only; with its line.
    """
    for column in columns:
        bad = block.frame.select(_is_no_id(column)).to_series()
        if (row := first_true(bad)) is not None:
            found = shown(repr(block.frame[column][row]))
            raise UserError(
                f"{block.line_of(row)}: column {column!r} is {found}, which is no id; write an IRI "
                "between < and >, any other id without them."
            )


def _is_no_id(column: str) -> pl.Expr:
    text = pl.col(column).str.strip_chars()
    half = text.str.starts_with("<") != text.str.ends_with(">")
    return (half & ~text.str.starts_with('"')) | text.str.contains(r"^<?\s*>?$")


def shorten(column: str) -> pl.Expr:
    """The short id of ``<IRI>`` or of an id without brackets."""
    short = pl.col(column).str.strip_prefix("<").str.strip_suffix(">")
    for start, prefix in PREFIXES.items():
        short = short.str.replace(f"^{re.escape(start)}", prefix)
    return short.alias(column)


def expand(ids: pl.Series) -> pl.Series:
    """``<IRI>`` of every short id; the inverse of :func:`shorten` on linked entities."""
    name = ids.name
    iri = pl.lit("<") + pl.col(name) + ">"
    for start, prefix in PREFIXES.items():
        matches = (
            pl.col(name).str.starts_with(prefix)
            if prefix
            else pl.col(name).str.contains(r"^[mg]\.")
        )
        full = f"<{start}" + pl.col(name).str.slice(len(prefix)) + ">"
        iri = pl.when(matches).then(full).otherwise(iri)
    return ids.to_frame().select(iri.alias(name)).to_series()


def entity_space(ids: pl.Series) -> str | None:
    """The knowledge base that all of the linked entities are from, if they are from one."""
    for space, (pattern, _) in ENTITY_SPACES.items():
        if len(ids) and ids.str.contains(pattern).all():
            return space
    return None


def is_entity(column: str, space: str | None) -> pl.Expr:
    """Whether an object of an RDF triple is an entity: an IRI of that knowledge base, if any."""
    if space is None:
        return pl.col(column).str.starts_with("<")
    starts = ENTITY_SPACES[space][1]
    return pl.any_horizontal([pl.col(column).str.starts_with(start) for start in starts])
