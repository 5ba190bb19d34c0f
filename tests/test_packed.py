"""Finished cells in one small file."""

from __future__ import annotations

import json
import lzma
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ksr_recbole.comparison import cli, packed, store
from ksr_recbole.comparison.cells import Cell
from ksr_recbole.comparison.moving_cells import pack
from ksr_recbole.comparison.store import Store
from ksr_recbole.digests import sealed
from ksr_recbole.errors import DamagedFileError, UserError
from tests.benchmark_fakes import run_result

CELL = Cell("KSR", "toy", "next-item", 1, {"a": 1}, "ab" * 32)
OTHER = replace(CELL, model="GRU++", key="cd" * 32)


def filled(folder: Path) -> Store:
    store = Store.of(folder, "toy")
    rng = np.random.default_rng(3)
    for cell in (CELL, OTHER):
        ranks = {"test": rng.integers(1, 900, 50), "valid": rng.integers(1, 9, 50)}
        store.save(cell, run_result(ranks, measured_arrays={"m": np.eye(3)}), 3.0, False)
    return store


def same(one, other) -> None:
    assert one.record == other.record
    kept = {key: value for key, value in one.ranks.items() if key[1] != packed.LEFT_OUT}
    assert kept.keys() == other.ranks.keys()
    for key, arrays in kept.items():
        for mine, theirs in zip(arrays, other.ranks[key], strict=True):
            assert mine.dtype == theirs.dtype and (mine == theirs).all()
    assert (one.measured["m"] == other.measured["m"]).all()


def test_a_packed_cell_reads_as_one_of_its_own_files(tmp_path, capsys):
    store = filled(tmp_path)
    before = [store.load(cell) for cell in (CELL, OTHER)]
    assert cli.main(["--pack", "--dataset=toy", f"--results_dir={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "Packed 2 cells" in shown and "200 ranks of validation" in shown
    assert [path.name for path in store.pack_file.parent.iterdir()] == [packed.FILE]
    for one, cell in zip(before, (CELL, OTHER), strict=True):
        same(one, store.load(cell))
    assert store.load(replace(CELL, key="ef" * 32)) is None
    assert store.load(replace(CELL, measure="other:measure")) is None
    with pytest.raises(UserError, match="none of validation"):
        store.load(CELL).per_user("full", "valid")
    with pytest.raises(UserError, match="are packed already"):
        pack(store)


def test_the_list_of_members_is_read_once_for_all_cells(tmp_path, monkeypatch):
    store = filled(tmp_path)
    pack(store)
    opened = []

    class Counted(zipfile.ZipFile):
        def __init__(self, *given, **more) -> None:
            opened.append(given)
            super().__init__(*given, **more)

    monkeypatch.setattr(zipfile, "ZipFile", Counted)
    packed._opened.cache_clear()
    packed._lines_of.cache_clear()
    assert all(store.load(cell) for cell in (CELL, OTHER, CELL))
    assert len(opened) == 1


def test_the_bytes_depend_on_the_cells_alone(tmp_path):
    one, other = filled(tmp_path / "a"), filled(tmp_path / "b")
    pack(one)
    aside = [other.result_file(OTHER), other.ranks_file(OTHER)]
    content = [path.read_bytes() for path in aside]
    [path.unlink() for path in aside]
    pack(other)
    [path.write_bytes(data) for path, data in zip(aside, content, strict=True)]
    pack(other)
    assert one.pack_file.read_bytes() == other.pack_file.read_bytes()


def test_a_new_cell_of_its_own_files_comes_before_the_packed_one(tmp_path):
    store = filled(tmp_path)
    pack(store)
    store.save(CELL, run_result({"test": [1, 2], "valid": [3, 4]}), 9.0, False)
    assert store.load(CELL).record["wall_seconds"] == 9
    pack(store)
    assert store.load(CELL).record["wall_seconds"] == 9
    assert len(packed.names_in(store.pack_file)) == 2


@pytest.mark.parametrize("seed", range(5))
def test_ranks_of_any_order_come_back(seed, tmp_path):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 400))
    users = np.sort(rng.integers(0, 40, n)).astype(np.uint8)
    full = rng.integers(1, 3000, n).astype(np.uint16)
    few = (full // 3 + 1).astype(np.uint16) if seed else full[::-1].copy()
    arrays = {"full/test/ranks": full, "full/test/users": users, "measured/b": np.zeros((0, 2)),
              "uni/test/ranks": few, "uni/test/users": users}  # fmt: skip
    packed.pack_bytes(tmp_path / "p.zip", {"x": ({}, arrays)})
    _, found = packed.read_packed(tmp_path / "p.zip", "x")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert array.dtype == found[name].dtype and np.array_equal(array, found[name])
    differences = packed._less_than(full, users, few)
    assert np.array_equal(packed._more_than(full, users, differences), few)


def test_a_flipped_byte_is_seen_or_changes_nothing(tmp_path, caplog):
    store = filled(tmp_path)
    pack(store)
    content, before = store.pack_file.read_bytes(), store.load(CELL)
    places = range(0, len(content), max(1, len(content) // 150))
    n_seen = 0
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 0x55
        store.pack_file.write_bytes(changed)
        packed._lines_of.cache_clear()
        caplog.clear()
        found = store.load(CELL)
        if found is None:
            n_seen += 1
            assert "cannot be used" in caplog.text, place
        else:  # a byte of the other cell, or of a time or name that says nothing
            same(before, found)
    assert 2 / 3 < n_seen / len(places) < 1


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip file", "folder"])
def test_what_is_no_packed_file(content, tmp_path, caplog):
    store = Store.of(tmp_path, "toy")
    store.pack_file.parent.mkdir(parents=True)
    if content == "folder":
        store.pack_file.mkdir()
    else:
        store.pack_file.write_bytes(content)
    assert store.load(CELL) is None and "cannot be read" in caplog.text
    store.save(CELL, run_result({"test": [1, 2], "valid": [3, 4]}), 9.0, False)
    with pytest.raises(UserError, match="is damaged"):
        pack(store)
    assert store.load(CELL) is not None


def test_a_damaged_cell_is_not_packed(tmp_path):
    store = filled(tmp_path)
    store.ranks_file(CELL).write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be packed"):
        pack(store)
    assert not store.pack_file.exists() and store.load(OTHER) is not None


@contextmanager
def altered(path: Path) -> Iterator[dict[str, bytes]]:
    """A packed file of one cell ``x``, whose members can be changed inside the block."""
    packed.pack_bytes(path, {"x": ({}, {"full/test/users": np.zeros(9, np.uint8)})})
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    yield members
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    packed._lines_of.cache_clear()


@pytest.mark.parametrize(
    "dtype", ["M8[s/0]", "m8[s/0]", "i8,i8", "(2,)u1", "u1\n", "=u1", "O", "U1", "f1", "", "\ud800"]
)
def test_a_type_that_is_never_written_is_not_shown_to_numpy(dtype, tmp_path):
    """Of the first one NumPy's reader divides by 0, which ends the process."""
    path = tmp_path / "p.zip"
    with altered(path) as members:
        line = json.loads(lzma.decompress(members[packed._LINES]))
        del line["sha256"]
        line["arrays"]["full/test/users"]["dtype"] = dtype
        members[packed._LINES] = lzma.compress(json.dumps(sealed(line)).encode())
    with pytest.raises(DamagedFileError, match="is no type of numbers"):
        packed.read_packed(path, "x")


def test_members_that_unpack_to_more_than_they_say(tmp_path):
    path = tmp_path / "p.zip"
    with altered(path) as members:
        [array] = [name for name in members if name != packed._LINES]
        members[array] = packed._squeezed(bytes(1 << 22))
    with pytest.raises(DamagedFileError, match="another length"):
        packed.read_packed(path, "x")


def test_other_options_are_refused_with_pack(tmp_path, capsys):
    assert cli.main(["--pack", "--dataset=toy", "--models=KSR", f"--results_dir={tmp_path}"]) == 2
    assert "--pack takes" in capsys.readouterr().err
    for other in ("--seeds=5", "--jobs=2"):
        assert cli.main(["--pack", "--dataset=toy", other, f"--results_dir={tmp_path}"]) == 2
        assert "--pack takes" in capsys.readouterr().err
    assert cli.main(["--pack", "--dataset=toy", f"--results_dir={tmp_path}"]) == 2
    assert "no finished cells" in capsys.readouterr().err


def test_the_largest_ranks_that_a_cell_may_have_are_packed_without_loss() -> None:
    most = store._MOST_RANKED - 1
    users = np.zeros(4, np.int64)
    base, ranks = np.array([1, most, 2, most - 1]), np.array([most, 1, most - 1, 2])
    for one, other in ((base, ranks), (ranks, base)):
        packed_ranks = packed._less_than(one, users, other)
        assert packed._more_than(one, users, packed_ranks).tolist() == other.tolist()
