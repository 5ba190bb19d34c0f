"""Relations in words: ``film.film.directed_by`` is "directed by"."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

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
    bare = relation.strip("<>").rstrip("/#")
    if "://" in bare:
        host, *path = re.split(r"[/#]+", bare.partition("://")[2])
        return [host, *path[-1:]]
    return [part for part in re.split(r"[.:/#]+", bare) if part] or [relation]


def _is_code(word: str) -> bool:
    return word.isupper() and any(letter.isdigit() for letter in word)
