"""Names for people: titles of items, names of entities, labels of relations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dataset_atomic.atomic import atomic_path, scan_atomic
from dataset_atomic.layout import Layout
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset

_YEAR = "release_year"
_ENTITY_NAME = "name"
_RECBOLE_REVERSE = "_r"
"""What RecBole adds to a relation's id for its reverse (``kg_reverse_r``)."""


@dataclass(frozen=True)
class Names:
    """Names by id, as far as the files have them.

    Attributes:
        items: titles by item id, or names of their entities.
        entities: names by entity id.
        notes: a sentence on what is shown by its id, and how to add names; or nothing.
    """

    items: dict[str, str]
    entities: dict[str, str]
    notes: tuple[str, ...]

    @classmethod
    def read(
        cls, dataset: KGSequenceDataset, items: Collection[str], entities: Collection[str]
    ) -> Names:
        """The names of some items and entities, from ``<dataset>.item`` and ``.entity``.

        An entity without a name takes the title of an item that is linked to it, and an item
        without a title the name of its entity.

        Args:
            dataset: a dataset; its folder has the files.
            items: item ids.
            entities: entity ids.

        Raises:
            UserError: a malformed file.
        """
        wanted = set(entities)
        entity_of = dataset.item2entity
        linked = {item: e for item, e in entity_of.items() if e in wanted}
        item_file, entity_file = (
            atomic_path(dataset.dataset_path, dataset.dataset_name, s) for s in ("item", "entity")
        )
        layout = Layout.of(dataset.config)
        titles = _titles(item_file, layout, {*items, *linked}) or {}
        untitled = [item for item in items if item not in titles]
        ends = {entity_of[item] for item in untitled if item in entity_of}
        named = _entity_names(entity_file, layout, wanted | ends)
        names = {linked[item]: titles[item] for item in linked if item in titles}
        names.update(named or {})
        missing = []
        if not titles and not ends & names.keys():
            missing.append(_advice("items", item_file, dataset.iid_field))
        if named is None:
            missing.append(_advice("entities", entity_file, dataset.entity_field))
        elif wanted - names.keys():
            missing.append(
                f"{len(wanted - names.keys()):,} of the {len(wanted):,} entities here have no "
                f"name in {entity_file} and are shown by their ids"
            )
        called = {i: names[entity_of[i]] for i in untitled if entity_of.get(i) in names}
        notes = (f"{'; '.join(missing)}.",) if missing else ()
        return cls({**called, **{i: titles[i] for i in items if i in titles}}, names, notes)

    def item(self, token: str) -> str:
        """An item's title, or its id."""
        return self.items.get(token, token)

    def entity(self, token: str) -> str:
        """An entity's name, or its id."""
        return self.entities.get(token, token)


def item_titles(dataset: Any, items: Sequence[str]) -> list[str]:
    """Titles of items, from ``<dataset>.item``; else their entities' names; else the ids.

    Args:
        dataset: any dataset of RecBole's; its folder has the files.
        items: item ids.

    Raises:
        UserError: a malformed file.
    """
    folder, name, layout = dataset.dataset_path, dataset.dataset_name, Layout.of(dataset.config)
    titles = _titles(atomic_path(folder, name, "item"), layout, set(items)) or {}
    link = atomic_path(folder, name, "link")
    if link.is_file() and (untitled := set(items) - titles.keys()):
        pairs = scan_atomic(link, {layout.item: "token", layout.entity: "token"}, layout)
        rows = _rows(pairs, layout.item, untitled, [layout.entity])
        entity_of = {row[layout.item]: row[layout.entity] for row in rows}
        path = atomic_path(folder, name, "entity")
        named = _entity_names(path, layout, set(entity_of.values())) or {}
        titles |= {item: named[e] for item, e in entity_of.items() if e in named}
    return [titles.get(item, item) for item in items]


def attribute_labels(dataset: KGSequenceDataset) -> tuple[str, ...]:
    """Labels of the dataset's attributes.

    ``<dataset>.relation`` tells which are reverse sides, and has names where a graph gives some.
    """
    known = [str(token) for token in dataset.field2id_token[dataset.relation_field]]
    path = atomic_path(dataset.dataset_path, dataset.dataset_name, "relation")
    doubled = {f"{token}{_RECBOLE_REVERSE}": token for token in known}
    layout = Layout.of(dataset.config)
    reverses = {r: front for r, front in doubled.items() if r in known} | _reverses(path, layout)
    relations = [known[a] for a in dataset.attributes]
    labels = relation_labels(relations, reverses)
    names = _relation_names(path, layout)
    if len({names.get(r, label) for r, label in zip(relations, labels, strict=True)}) < len(labels):
        return labels  # two of one name could not be told apart
    return tuple(names.get(r, label) for r, label in zip(relations, labels, strict=True))


def _relation_names(path: Path, layout: Layout) -> dict[str, str]:
    """Names of relations, of which ``.relation`` need not have any."""
    if not path.is_file():
        return {}
    rows = scan_atomic(path, {layout.relation: "token"}, layout).collect()
    if _ENTITY_NAME not in rows.columns or layout.relation == _ENTITY_NAME:
        return {}
    return dict(rows.select(layout.relation, _ENTITY_NAME).drop_nulls().iter_rows())


def _titles(path: Path, layout: Layout, wanted: Collection[str]) -> dict[str, str] | None:
    """Titles by item id, with the year where there is one; ``None`` if there are none."""
    if not path.is_file():
        return None
    key = layout.item
    rows = scan_atomic(path, {key: "token"}, layout)
    columns = rows.collect_schema().names()
    title = _title_column(column for column in columns if column != key)
    if title is None:
        return None
    year = _YEAR if _YEAR in columns else None
    found = _rows(rows, key, wanted, [title, *([year] if year else [])])
    return {row[key]: _with_year(row[title], row.get(_YEAR)) for row in found if row[title]}


def _title_column(columns: Iterable[str]) -> str | None:
    """The first column that is called a title, or else a name."""
    columns = list(columns)
    for word in ("title", "name"):
        for column in columns:
            if word in column.lower().split("_"):
                return column
    return None


def _with_year(title: str, year: str | None) -> str:
    """``Alien (1979)``, unless the year stands there already."""
    return title if not year or title.endswith(f"({year})") else f"{title} ({year})"


def _entity_names(path: Path, layout: Layout, wanted: Collection[str]) -> dict[str, str] | None:
    if not path.is_file():
        return None
    key = layout.entity
    rows = scan_atomic(path, {key: "token", _ENTITY_NAME: "token_seq"}, layout)
    return {row[key]: row[_ENTITY_NAME] for row in _rows(rows, key, wanted, [_ENTITY_NAME])}


def _rows(
    rows: pl.LazyFrame, key: str, wanted: Collection[str], columns: list[str]
) -> list[dict[str, Any]]:
    chosen = pl.col(key).is_in(sorted(wanted))
    return rows.select(list(dict.fromkeys([key, *columns]))).filter(chosen).collect().to_dicts()


def _reverses(path: Path, layout: Layout) -> dict[str, str]:
    """Relations that are the reverse side of an attribute, and that attribute."""
    if not path.is_file():
        return {}
    relation = layout.relation
    rows = scan_atomic(path, {relation: "token"}, layout).collect()
    if not {"reverse_id", "attribute"} <= set(rows.columns) - {relation}:
        return {}
    front = set(rows.filter(pl.col("attribute").cast(pl.Float64, strict=False) == 1)[relation])
    pairs = rows.select(relation, "reverse_id").iter_rows()
    return {r: reverse for r, reverse in pairs if r not in front and reverse in front}


def _advice(what: str, path: Path, key: str) -> str:
    """How to add the names that are missing."""
    column = "title" if what == "items" else _ENTITY_NAME
    return (
        f"{what} are shown by their ids: for names put {path} there, "
        f"with the separator of the dataset and the columns {key}:token and {column}:token_seq"
    )


_WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[_\-\s]+")


def relation_label(relation: str) -> str:
    """The last part of a relation's id, in words.

    It understands Freebase ids (``film.film.genre``), prefixes (``dbo:musicComposer``), IRIs
    (``http://dbpedia.org/ontology/starring``, with ``<>`` or without), camel case and
    underscores.  Ids with digits (Wikidata's ``wdt:P57``) stay as they are.
    """
    last = _parts(relation)[-1]
    words = [word for word in _WORD_BOUNDARY.split(last) if word]
    return " ".join(w if _is_code(w) else w.lower() for w in words) or relation


def relation_labels(relations: Sequence[str], reverses: Mapping[str, str]) -> tuple[str, ...]:
    """Labels of relations, no two of them the same.

    Labels that several relations share get what their ids differ in: "director (dbo)" and
    "director (omdb)".

    Args:
        relations: their ids.
        reverses: of relations that are the reverse side of another, the other one's id.
    """
    labels = [_label(relation, reverses) for relation in relations]
    for distinguish in (_qualifier, str):
        counts = Counter(labels)
        labels = [
            f"{_label(relation, reverses)} ({distinguish(relation)})"
            if counts[label] > 1
            else label
            for relation, label in zip(relations, labels, strict=True)
        ]
    return tuple(labels)


def _label(relation: str, reverses: Mapping[str, str]) -> str:
    if relation in reverses:
        return f"{relation_label(reverses[relation])}, reversed"
    return relation_label(relation)


def _qualifier(relation: str) -> str:
    """What stands before the last part of an id: its prefix, host or Freebase type."""
    parts = _parts(relation)
    return relation if len(parts) == 1 else parts[-2].replace("_", " ")


def _parts(relation: str) -> list[str]:
    whole = relation[1:-1] if relation.startswith("<") and relation.endswith(">") else relation
    bare = whole.rstrip("/#")
    if "://" in bare:
        host, *path = re.split(r"[/#]+", bare.partition("://")[2])
        return [host, *path[-1:]]
    return [part for part in re.split(r"[.:/#]+", bare) if part] or [relation]


def _is_code(word: str) -> bool:
    return word.isupper() and any(letter.isdigit() for letter in word)
