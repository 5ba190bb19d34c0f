"""Vectors in RecBole's atomic files, to bring them from elsewhere and to hand them on.

Such a file has one column ``...:token`` and one ``...:float_seq`` of numbers, written as the
other atomic files of the configuration are.  RecBole's KSR and GRU4RecKG copy the first rows of
the vectors to their items, so the entities of :func:`write_vectors` are keyed by item and read with
this configuration (without ``rel`` for GRU4RecKG)::

    load_col:
      inter: [user_id, item_id, timestamp]
      kg: [head_id, relation_id, tail_id]
      link: [item_id, entity_id]
      ent: [ent_id, ent_emb]
      rel: [rel_id, rel_emb]
    additional_feat_suffix: [ent, rel]
    alias_of_item_id: [ent_id]
    alias_of_relation_id: [rel_id]
    preload_weight: {ent_id: ent_emb, rel_id: rel_emb}
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset_atomic.atomic import RECBOLES
from dataset_atomic.layout import Layout
from ksr_recbole.digests import of_file
from ksr_recbole.errors import DamagedFileError, UserError, reason_of, shown
from ksr_recbole.files import open_regular, replacing
from ksr_recbole.records import Each, check_shape, read_record, record_text


def read_vectors(
    path: str | os.PathLike[str],
    tokens: Sequence[str] | np.ndarray,
    dim: int | None = None,
    key: str = "kg_embedding_size",
    layout: Layout = RECBOLES,
    needed: Sequence[str] | np.ndarray | None = None,
) -> np.ndarray:
    """Vectors of ``tokens`` from an atomic file, in their order; other lines are checked too.

    Args:
        path: the file.
        tokens: whose vectors are needed.
        dim: numbers a vector must have, or ``None`` for as many as the first line has.
        key: config key that says ``dim``, for the error message.
        layout: how the file is written.
        needed: the tokens that must have a vector, by default all; others get zeros.

    Returns:
        ``float32 [len(tokens), dim]``.

    Raises:
        UserError: the file cannot be read, a line is malformed, a token occurs twice or is
            missing, or the vectors have another size than ``dim``.
    """
    rows = _read_rows(path, layout)
    found = next(iter(rows.values())).size if rows else dim
    if dim is not None and found != dim:
        raise UserError(
            f"The vectors in {path} have {found} numbers but {key} is {dim}; "
            f"set --{key}={found} or give vectors of size {dim}."
        )
    needed = tokens if needed is None else needed
    missing = [str(token) for token in needed if str(token) not in rows]
    if missing:
        examples = ", ".join(map(shown, missing[:3]))
        raise UserError(
            f"{path} has no vector for {len(missing)} of {len(needed)} needed tokens, "
            f"for example {examples}; add them to the file."
        )
    vectors = np.zeros((len(tokens), found or 0), np.float32)
    for row, token in enumerate(tokens):
        if str(token) in rows:
            vectors[row] = rows[str(token)]
    return vectors


def tokens_in(path: str | os.PathLike[str], layout: Layout = RECBOLES) -> frozenset[str]:
    """All tokens that an atomic file of vectors has a vector of.

    Raises:
        UserError: the file cannot be read, a line has not its columns or a token occurs twice.
            The numbers are not looked at.
    """
    return frozenset(token for _, token, _ in _cells(path, layout))


def _read_rows(path: str | os.PathLike[str], layout: Layout) -> dict[str, np.ndarray]:
    """Vector of every token in the file, ``float32 [dim]`` each."""
    rows: dict[str, np.ndarray] = {}
    size = None
    for number, token, cell in _cells(path, layout):
        rows[token] = _vector(path, number, cell, size, layout)
        size = rows[token].size
    return rows


def _cells(path: str | os.PathLike[str], layout: Layout) -> Iterator[tuple[int, str, str]]:
    """Number of each line, its token, and the text of its vector."""
    try:
        check_digest(path)
        encoding = layout.encoding or "utf-8"
        with TextIOWrapper(open_regular(path), encoding=encoding, newline="\n") as file:
            token_column, vector_column, n_columns = _columns(path, file.readline(), layout)
            tokens = set[str]()
            for number, line in enumerate(file, start=2):
                cells = line.rstrip("\r\n").split(layout.separator)
                if len(cells) != n_columns:
                    raise UserError(
                        f"{path} line {number} has {len(cells)} columns instead of {n_columns}; "
                        f"separate columns by one {_name_of(layout)}."
                    )
                token = cells[token_column]
                if token in tokens:
                    raise UserError(
                        f"{path} line {number} gives a second vector for {shown(token)}; keep one."
                    )
                tokens.add(token)
                yield number, token, cells[vector_column]
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}; give a readable file.") from error
    except UnicodeError as error:
        name = "UTF-8" if layout.encoding is None else layout.encoding
        raise UserError(f"{path} is not {name} text; save it as {name}.") from error


def _columns(path: str | os.PathLike[str], header: str, layout: Layout) -> tuple[int, int, int]:
    """Position of the token and of the vector column, and the number of columns."""
    types = [name.rpartition(":")[2] for name in header.rstrip("\r\n").split(layout.separator)]
    if types.count("token") != 1 or types.count("float_seq") != 1:
        raise UserError(
            f"{path} line 1 must name one column of type token and one of type float_seq, "
            f"such as ent_id:token and ent_emb:float_seq separated by a {_name_of(layout)}."
        )
    return types.index("token"), types.index("float_seq"), len(types)


def _name_of(layout: Layout) -> str:
    return "tab" if layout.separator == "\t" else repr(layout.separator)


def _vector(
    path: str | os.PathLike[str], number: int, cell: str, size: int | None, layout: Layout
) -> np.ndarray:
    """The numbers in a cell, of which there must be ``size`` (if it is known) and at least one."""
    spaces = layout.within == " "
    words = cell.split() if spaces else filter(None, cell.split(layout.within))
    try:
        with np.errstate(over="ignore"):  # told below
            vector = np.array([float(word) for word in words], np.float32)
    except ValueError as error:
        word = str(error).partition(": ")[2]
        raise UserError(
            f"{path} line {number} has {shown(word)} where a number should be; write numbers "
            f"separated by {'spaces' if spaces else repr(layout.within) + ' (seq_separator)'}."
        ) from error
    if not np.isfinite(vector).all():
        raise UserError(
            f"{path} line {number} has a number that is not finite in float32; correct it."
        )
    if vector.size == 0 or (size is not None and vector.size != size):
        wanted = "at least 1" if size is None else str(size)
        raise UserError(f"{path} line {number} has {vector.size} numbers instead of {wanted}.")
    return vector


class VectorTable(NamedTuple):
    """What an atomic file of vectors holds.

    Attributes:
        id_field: name of the token column (``"ent_id"``).
        vector_field: name of the vector column (``"ent_emb"``).
        tokens: one per row.
        vectors: ``float32 [len(tokens), dim]``; reading gives back the same numbers.
    """

    id_field: str
    vector_field: str
    tokens: Sequence[str] | np.ndarray
    vectors: np.ndarray


def write_vectors(
    folder: Path, name: str, tables: Mapping[str, VectorTable], layout: Layout = RECBOLES
) -> None:
    """Write atomic files of vectors and their digests in one step.

    Args:
        folder: where.
        name: of the dataset.
        tables: by suffix: ``<folder>/<name>.<suffix>``.
        layout: how to write them.

    Raises:
        UserError: a file cannot be written.
    """
    paths = [folder / f"{name}.{suffix}" for suffix in tables]
    targets = [*paths, _digests_of(paths[0])]
    with replacing(*targets, owned=lambda n: n.startswith(f"{name}.")) as (*files, record_file):
        for file, table in zip(files, tables.values(), strict=True):
            _write(file, table, layout)
        digests = {path.name: of_file(file) for path, file in zip(paths, files, strict=True)}
        record_file.write_text(record_text({"files": digests}), encoding="utf-8")


def _write(path: Path, table: VectorTable, layout: Layout) -> None:
    # repr of a float32 is its shortest decimal that reads back to the same float32
    words = np.asarray(table.vectors, np.float32).astype(str)
    between, within = layout.separator, layout.within
    with path.open("w", encoding=layout.encoding or "utf-8", newline="\n") as file:
        file.write(f"{table.id_field}:token{between}{table.vector_field}:float_seq\n")
        for token, row in zip(table.tokens, words, strict=True):
            file.write(f"{token}{between}{within.join(row)}\n")


def _digests_of(path: str | os.PathLike[str]) -> Path:
    """The file that holds the digest of a file of vectors, if it was exported."""
    return Path(path).with_suffix(".vectors.json")


def check_digest(path: str | os.PathLike[str]) -> None:
    """Make sure that a file of vectors is the one that was exported.

    RecBole reads such files too, so the digest is in a file of its own.  Vectors from elsewhere
    have none; they are checked line by line like all others.

    Raises:
        UserError: it is another.
        OSError: it cannot be read.
    """
    record_file = _digests_of(path)
    try:
        record = read_record(record_file)
        check_shape(record, {"files": Each(str)})
    except FileNotFoundError:
        return
    except (OSError, DamagedFileError) as error:
        raise UserError(
            f"{record_file}, which holds the digests of the vectors, cannot be used "
            f"({reason_of(error)}); export them again, or delete it if you trust the vectors."
        ) from error
    wanted = record["files"].get(Path(path).name)
    if wanted is not None and wanted != of_file(path):
        raise UserError(
            f"{path} is not the file that was exported (its SHA-256 is not that in {record_file}); "
            f"export it again, or delete {record_file.name} if you changed it on purpose."
        )
