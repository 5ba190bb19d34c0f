"""Another knowledge graph for a dataset that is made here: given to a run, kept in its own folder.

The folder is named after what the files hold, so that two graphs never share data, caches or
pretrained vectors, and a file that has changed is another graph.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_atomic.convert import Options
from dataset_atomic.obtain import usual_places
from ksr_recbole import digests
from ksr_recbole.errors import UserError, reason_of
from ksr_recbole.files import check_regular
from ksr_recbole.paths import DATASETS

KEYS = frozenset({"kg", "link", "names"})
"""Config keys that name the files; options of ``convert`` too."""


@dataclass(frozen=True)
class OwnGraph:
    """The files of a graph; what is ``None`` is the dataset's own.

    Attributes:
        kg: the triples, a file or a folder, see :mod:`dataset_atomic.raw.triples`.
        link: which entity each item is, see :mod:`dataset_atomic.raw.links`.
        names: see :func:`dataset_atomic.convert.read_names`.
        data_path: where the user has the dataset's raw files, if not in the usual places.
    """

    kg: Path | None
    link: Path | None
    names: Path | None
    data_path: Path | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> OwnGraph | None:
        """The graph that the config values of a user ask for, if they do."""
        kg, link, names, data_path = (
            None if (given := values.get(key)) is None else Path(given)
            for key in ("kg", "link", "names", "data_path")
        )
        return cls(kg, link, names, data_path) if kg or link or names else None

    def data_folder(self) -> Path:
        """The folder above the dataset's, named after the content of the files.

        Raises:
            UserError: a file cannot be read.
        """
        paths = {"kg": self.kg, "link": self.link, "names": self.names}
        parts = {key: path and _content(key, path) for key, path in paths.items()}
        raw = self.data_path and str(self.data_path.resolve())
        return DATASETS / f"graph-{digests.of_values({**parts, 'raw': raw})[:16]}"

    def places(self, name: str) -> list[Path]:
        """Where the dataset's raw files may lie."""
        given = [] if self.data_path is None else [self.data_path / name]
        return given + usual_places(name)

    def arguments(self) -> dict[str, Any]:
        """What a converter takes of it."""
        options = Options(names=self.names, overwrite=True)
        return {"kg": self.kg and [self.kg], "link": self.link, "options": options}


def _content(key: str, path: Path) -> list[list[str]]:
    """Name and digest of a file, or of each file of a folder."""
    try:
        files = sorted(path.iterdir()) if key == "kg" and path.is_dir() else [path]
        return [[file.name, _digest(file)] for file in files if file == path or file.is_file()]
    except OSError as error:
        raise UserError(
            f"Config key {key} is {path}, which cannot be read ({reason_of(error)}); give the path "
            f"of {'a file, or of a folder with hop1.kg' if key == 'kg' else 'a file'}."
        ) from error


def _digest(file: Path) -> str:
    """A run asks several times, and a graph may be large."""
    check_regular(file)
    return digests.of_file_once(os.path.realpath(file))
