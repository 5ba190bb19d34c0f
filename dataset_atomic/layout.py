"""What the columns of a dataset's atomic files are called, and how the files are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ksr_recbole.config_types import ConfigValues

KEYS = {
    "user": "USER_ID_FIELD",
    "item": "ITEM_ID_FIELD",
    "time": "TIME_FIELD",
    "rating": "RATING_FIELD",
    "head": "HEAD_ENTITY_ID_FIELD",
    "relation": "RELATION_ID_FIELD",
    "tail": "TAIL_ENTITY_ID_FIELD",
    "entity": "ENTITY_ID_FIELD",
    "separator": "field_separator",
    "within": "seq_separator",
    "encoding": "encoding",
    "files": "benchmark_filename",
}
"""RecBole's config key of each part of a :class:`Layout`."""


@dataclass(frozen=True)
class Layout:
    """Columns and writing of atomic files; the defaults are RecBole's.

    Attributes:
        user: column of users in ``.inter``.
        item: column of items in ``.inter``, ``.link`` and ``.item``.
        time: column of times in ``.inter``.
        rating: column of ratings in ``.inter``.
        head: column of head entities in ``.kg``.
        relation: column of relations in ``.kg`` and ``.relation``.
        tail: column of tail entities in ``.kg``.
        entity: column of entities in ``.link`` and ``.entity``.
        separator: one ASCII character between columns.
        within: what stands between the parts of a sequence.
        encoding: of all files; UTF-8 if ``None``.
        files: names of the parts that the interactions are split into; none for one ``.inter``.
    """

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    rating: str = "rating"
    head: str = "head_id"
    relation: str = "relation_id"
    tail: str = "tail_id"
    entity: str = "entity_id"
    separator: str = "\t"
    within: str = " "
    encoding: str | None = None
    files: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: ConfigValues) -> Layout:
        """The layout that a configuration asks for; what it leaves out is RecBole's default."""
        given = {part: config[key] for part, key in KEYS.items()}
        given["files"] = tuple(given["files"] or ())
        return cls(**{part: value for part, value in given.items() if value is not None})

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Layout:
        """The layout of config values, of which any may be missing."""
        return cls.of({key: values.get(key) for key in KEYS.values()})

    @property
    def triple(self) -> tuple[str, str, str]:
        """Columns of ``.kg``: head, relation and tail."""
        return self.head, self.relation, self.tail

    @property
    def kinds_of_id(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """The columns of ids in a file of each suffix, those of one kind together."""
        return {
            "inter": ((self.user,), (self.item,)),
            "kg": ((self.head, self.tail), (self.relation,)),
        }

    def inter_paths(self, folder: Path, name: str) -> list[Path]:
        """The files that hold the interactions of a dataset."""
        if not self.files:
            return [folder / f"{name}.inter"]
        return [folder / f"{name}.{part}.inter" for part in self.files]

    def renamed(self) -> dict[str, str]:
        """What each of RecBole's default column names is called here."""
        parts = (part.name for part in fields(self) if part.name in COLUMNS)
        return {getattr(Layout, part): getattr(self, part) for part in parts}


COLUMNS = frozenset(KEYS) - {"separator", "within", "encoding", "files"}
