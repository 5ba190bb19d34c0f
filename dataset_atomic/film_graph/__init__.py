"""A knowledge graph of films that ships with the package: the DBpedia part of a graph of ml-1m.

It is keyed by MovieLens's own film ids, so that it serves every MovieLens dataset (ml-100k through
its crosswalk).  ``LICENSE.md`` next to the files says whose it is;
``python -m dataset_atomic.film_graph FOLDER`` makes them again.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent

LINK = _FOLDER / "link.tsv.gz"
"""Lines of a MovieLens film id, a tab and the film's entity."""

KG = _FOLDER / "kg.tsv.gz"
"""Triples separated by tabs; every head is a film."""

NAMES = _FOLDER / "names.tsv.gz"
"""Lines of an entity or a relation, a tab and its name."""

ORIGIN = "DBpedia's films, as shipped with this package (CC BY-SA 3.0)"
"""Which graph it is and where it comes from, in a few words."""
