"""``run_benchmark.py --pack``: moves finished cells from files of their own into one small file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ksr_recbole.comparison import packed
from ksr_recbole.comparison.cells import Cell
from ksr_recbole.comparison.store import Store, arrays_of, is_of_cells
from ksr_recbole.digests import sealed
from ksr_recbole.errors import DamagedFileError, UserError
from ksr_recbole.files import replacing
from ksr_recbole.locks import locked
from ksr_recbole.one_step import finish_steps, identity
from ksr_recbole.records import check_shape, read_record

_CELL = {"key": str, "model": str, "dataset": str, "task": str, "seed": int, "overrides": dict}

_AT_ONCE = 2000
"""Cells packed in one step, whose journal must name them all."""

Content = tuple[Mapping[str, Any], packed.Arrays]


def pack(store: Store) -> str:
    """Pack the cells of a dataset; what was done, in a sentence.

    Cells that are packed stay so, and give way to those of files of their own.  Whenever this
    process is killed, either all is as before or all is done.

    Raises:
        UserError: there is nothing to pack, a cell or the packed file is damaged, or the folder
            cannot be written.
    """
    folder = store.pack_file.parent
    finish_steps(folder, is_of_cells)
    if not folder.is_dir():
        raise UserError(f"There are no finished cells in {folder}; run the comparison first.")
    with locked(store.folder / ".pack.lock"):
        every = sorted(folder.glob("*.json"))
        files = every[:_AT_ONCE]
        if not files:
            raise UserError(f"All finished cells in {folder} are packed already.")
        gone = [file.with_suffix(end) for file in files for end in (".json", ".safetensors")]
        for file in files:
            if not file.with_suffix(".safetensors").is_file():
                raise _damaged(file, "it has no ranks")
        before = [identity(path) for path in gone]
        new = {file.stem: _single(store, file) for file in files}
        cells = {**_packed_before(store), **{name: content for name, (content, _) in new.items()}}

        def check() -> None:
            if [identity(path) for path in gone] != before:
                raise UserError(f"A cell in {folder} changed while it was packed; pack again.")

        with replacing(store.pack_file, removed=gone, check=check, owned=is_of_cells) as (
            temporary,
        ):
            packed.pack_bytes(temporary, cells)
            _compare(temporary, cells)
    dropped = sum(number for _, number in new.values())
    left = f" {len(every) - len(files):,} are left; pack again." if len(every) > len(files) else ""
    return (
        f"Packed {len(files):,} cells ({sum(size for _, size, _ in before):,} bytes): "
        f"{store.pack_file} holds {len(cells):,} now ({store.pack_file.stat().st_size:,} bytes). "
        f"{dropped:,} ranks of validation, of which no table is made, were left out; its metrics "
        f"are kept.{left}"
    )


def _packed_before(store: Store) -> dict[str, Content]:
    """The cells of the packed file."""
    try:
        names = packed.names_in(store.pack_file)
        found = {name: packed.read_packed(store.pack_file, name) for name in names}
    except DamagedFileError as error:
        raise UserError(
            f"{store.pack_file} is damaged ({error}); restore it, or delete it to run its cells "
            "again."
        ) from error
    return {name: content for name, content in found.items() if content}


def _single(store: Store, file: Path) -> tuple[Content, int]:
    """A cell of its own files, and how many ranks of validation it has."""
    try:
        record = read_record(file)
        check_shape(record, _CELL)
    except (DamagedFileError, OSError) as error:
        raise _damaged(file, str(error)) from error
    cell = Cell(**{part: record[part] for part in _CELL}, measure=record.get("measure"))
    found = store.load(cell) if cell.name == file.stem else None
    if found is None:
        raise _damaged(file, "it is not the cell of its name")
    kept = {key: ranks for key, ranks in found.ranks.items() if key[1] != packed.LEFT_OUT}
    arrays = arrays_of(kept, found.measured)
    dropped = sum(
        len(ranks) for (_, phase), (_, ranks) in found.ranks.items() if phase == packed.LEFT_OUT
    )
    return (sealed(record), arrays), dropped


def _compare(path: Path, cells: Mapping[str, Content]) -> None:
    """Read what was written before anything is removed."""
    for name, (record, arrays) in cells.items():
        try:
            found = packed.read_packed(path, name)
        except DamagedFileError as error:
            raise UserError(f"{name} cannot be packed ({error}).") from error
        if found is None or found[0] != record or set(found[1]) != set(arrays):
            raise UserError(
                f"{name} cannot be packed: the record that was read back differs from the record "
                "that was written."
            )
        for wanted, array in arrays.items():
            if not np.array_equal(array, found[1][wanted]) or array.dtype != found[1][wanted].dtype:
                raise UserError(f"{name} cannot be packed: its {wanted} came back changed.")


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(
        f"{file} cannot be packed ({reason}); delete it and the .safetensors file of the same "
        "name; nothing was changed."
    )
