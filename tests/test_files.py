"""Reading what is a file only, locks between processes, writing in one step."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import socket
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock, Timeout

from dataset_atomic.atomic import AtomicTable, write_atomic_files
from dataset_atomic.atomic_files import steady_dataset
from dataset_atomic.convert import Options, ensure_free
from dataset_atomic.describe import describe
from dataset_atomic.sources import SOURCES
from ksr_recbole import one_step
from ksr_recbole.comparison.moving_cells import pack
from ksr_recbole.comparison.store import Cell, Store
from ksr_recbole.digests import of_file
from ksr_recbole.errors import UserError
from ksr_recbole.files import (
    check_regular,
    ensure_writable,
    open_regular,
    read_regular,
    read_text,
    replacing,
    replacing_folder,
)
from ksr_recbole.inference.directory import read_directory
from ksr_recbole.locks import locked
from ksr_recbole.one_step import finish_steps, no_name, read_steadily, steady
from ksr_recbole.paths import is_installed
from ksr_recbole.pretraining import pretrain


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path / "new" / "a.lock"):
            raise ZeroDivisionError
    other = FileLock(tmp_path / "new" / "a.lock")
    with locked(tmp_path / "new" / "a.lock"), pytest.raises(Timeout):
        other.acquire(timeout=0)
    other.acquire(timeout=0)
    other.release()


def test_no_lock_where_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"), locked(tmp_path / "file" / "a.lock"):
        pass


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch, caplog) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", unknown)
    with caplog.at_level(logging.WARNING), locked(tmp_path / "a.lock"):
        pass
    assert f"No file locks in {tmp_path}" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_locks_that_the_system_refuses_are_none(
    tmp_path: Path, monkeypatch, caplog, number
) -> None:
    """They were an error, which left a folder and a lock file."""
    monkeypatch.setattr("fcntl.flock", _failing(number))
    with (
        caplog.at_level(logging.WARNING),
        locked(tmp_path / "a.lock"),
        replacing(tmp_path / "x") as t,
    ):
        t[0].write_text("new")
    assert f"No file locks in {tmp_path}" in caplog.text
    assert os.listdir(tmp_path) == ["x"]


def test_a_lock_that_fails_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fcntl.flock", _failing(errno.EIO))
    told = pytest.raises(UserError, match=r"Cannot write .*x: Input/output error")
    with told, replacing(tmp_path / "x"):
        pass
    assert os.listdir(tmp_path) == []


def _failing(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_what_the_disk_could_not_keep_replaces_nothing(tmp_path: Path, monkeypatch, names) -> None:
    """An error of ``fsync`` says that written bytes are lost; it was taken for one without it."""
    paths = [tmp_path / name for name in names]
    for number, after in ((errno.EIO, "old"), (errno.EDQUOT, "old"), (errno.EINVAL, "new")):
        for path in paths:
            path.write_text("old")
        monkeypatch.setattr(os, "fsync", _failing(number))
        told = pytest.raises(UserError, match=f"Cannot write .*a: {os.strerror(number)}")
        with told if after == "old" else nullcontext(), replacing(*paths) as temporaries:
            for temporary in temporaries:
                temporary.write_text("new")
        assert [path.read_text() for path in paths] == [after] * len(names)
        assert sorted(os.listdir(tmp_path)) == names


def test_a_folder_whose_journal_cannot_be_kept_changes_nothing(tmp_path: Path, monkeypatch) -> None:
    def fail(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    paths = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(UserError, match="Input/output error"), replacing(*paths) as temporaries:
        for temporary in temporaries:
            temporary.write_text("new")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def specials(tmp_path: Path) -> dict[str, Path]:
    """What can stand where a file is expected, by what is said of it."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    listening.close()
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return {
        "a folder, not a file": tmp_path / "folder",
        "a named pipe, not a file": tmp_path / "pipe",
        "a socket, not a file": tmp_path / "socket",
        "a device, not a file": Path("/dev/zero"),
        "a link to nothing": tmp_path / "broken",
        "a link that leads to itself": tmp_path / "loop",
        "its name has a NUL character": Path("a\0b"),
    }


@pytest.mark.parametrize("read", [check_regular, open_regular, read_regular, read_text, of_file])
def test_what_is_no_file_is_said_at_once(specials: dict[str, Path], read) -> None:
    for words, path in specials.items():
        with pytest.raises(OSError) as error:
            read(path)
        assert words in error.value.strerror
    with pytest.raises(FileNotFoundError):
        read("no such file")


def test_files_and_links_to_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\r\nb\rc\n")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular(tmp_path / "link") == b"a\r\nb\rc\n"
    assert read_text(tmp_path / "link") == "a\nb\nc\n"
    assert of_file(tmp_path / "link") == hashlib.sha256(b"a\r\nb\rc\n").hexdigest()
    with pytest.raises(OSError, match="at most 6 are read"):
        read_regular(tmp_path / "file", limit=6)


def test_a_file_that_shrinks_and_one_that_never_ends(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_bytes(b"12345678")
    before = os.stat(tmp_path / "file")

    class Longer:
        st_mode, st_size = before.st_mode, 9

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda _: Longer)
        with pytest.raises(OSError, match="became shorter"):
            read_regular(tmp_path / "file")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="Linux has such files")
@pytest.mark.parametrize("read", [check_regular, open_regular, read_regular, read_text, of_file])
@pytest.mark.parametrize("name", ["mem", "pagemap", "environ", "status"])
def test_the_systems_own_files_are_not_taken_as_empty(name: str, read) -> None:
    """Linux says that they have no bytes, whatever can be read of them."""
    with pytest.raises(OSError, match="it says that it is empty, and it is not"):
        read(f"/proc/self/{name}")


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read_regular(tmp_path / "file") == b"" and check_regular(tmp_path / "file").st_size == 0


# Writing in one step; tests/test_killed.py kills commands in the middle of it ------------------


def left_by_a_dead_process(folder: Path, journal: str | None = None) -> Path:
    """A temporary folder as a killed command leaves it."""
    left = folder / f".{'0' * 16}.ksr-tmp"
    left.mkdir()
    (left / "ksr-lock").write_text("")
    (left / "a").write_text("new a")
    if journal is not None:
        (left / "ksr-journal.json").write_text(journal)
    return left


def test_what_the_dead_left_goes_and_what_the_living_write_stays(tmp_path: Path) -> None:
    left = left_by_a_dead_process(tmp_path)
    with replacing(tmp_path / "x") as (first,):
        first.write_text("1")
        assert not left.exists()
        with replacing(tmp_path / "y") as (second,):
            second.write_text("2")
        assert first.read_text() == "1"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "1", "y": "2"}


def test_files_that_only_look_like_temporary_ones_stay(tmp_path: Path) -> None:
    for name in (".x.1234.tmp", ".0.ksr-tmp", f"{'0' * 16}.ksr-tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / f".{'1' * 16}.ksr-tmp").write_text("a file")
    with replacing(tmp_path / "x") as (temporary,):
        temporary.write_text("1")
    assert len(list(tmp_path.iterdir())) == 5


def test_the_next_reader_finishes_a_step(tmp_path: Path) -> None:
    for name in ("a", "gone"):
        (tmp_path / name).write_text("old")
    left_by_a_dead_process(tmp_path, '{"names": ["b", "a"], "removed": ["gone"]}')
    finish_steps(tmp_path, {"a", "b", "gone"}.__contains__)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new a"}


@pytest.fixture
def lasting_journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals cannot be removed, as where the disk reports an error."""
    unlink = Path.unlink

    def fail(path: Path, missing_ok: bool = False) -> None:
        if path.name == "ksr-journal.json" and path.exists():
            raise OSError(errno.EIO, "Input/output error", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", fail)


def test_a_journal_that_cannot_be_removed_is_no_file_that_cannot_be_written(
    tmp_path: Path, lasting_journals
) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    told = r"All files were written to .*, but the journal .* \(Input/output error\); delete"
    with pytest.raises(UserError, match=told), replacing(*paths) as temporaries:
        for temporary in temporaries:
            temporary.write_text("new")
    assert [path.read_text() for path in paths] == ["new", "new"]
    finish_steps(tmp_path, {"a", "b"}.__contains__)  # readers have all that they need
    with pytest.raises(UserError, match=told), replacing(tmp_path / "c"):
        pass  # a writer does not leave a journal that would be followed later


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the system has no user ids")
def test_a_journal_of_another_user_in_a_shared_folder_does_nothing(tmp_path, monkeypatch) -> None:
    left = left_by_a_dead_process(tmp_path, '{"names": ["a"], "removed": []}')
    tmp_path.chmod(0o1777)
    with monkeypatch.context() as other:
        other.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
        finish_steps(tmp_path, "a".__eq__)
    assert left.exists() and not (tmp_path / "a").exists()
    finish_steps(tmp_path, "a".__eq__)
    assert not left.exists() and (tmp_path / "a").read_text() == "new a"


ODD_JOURNALS = (
    *("", "[]", "{}", "\xff", '{"names": null, "removed": []}', '{"names": [1], "removed": []}'),
    *('{"names": ["../a"], "removed": []}', '{"names": [], "removed": ["/etc/x"]}'),
)


@pytest.mark.parametrize("journal", ODD_JOURNALS)
def test_a_journal_that_makes_no_sense_is_one_sentence(tmp_path: Path, journal: str) -> None:
    left = left_by_a_dead_process(tmp_path, journal)
    finish, write = partial(finish_steps, tmp_path, "a".__eq__), replacing(tmp_path / "a").__enter__
    for work in (finish, write):
        with pytest.raises(UserError, match=r"is damaged .*; delete the folder"):
            work()
    assert left.exists() and not (tmp_path / "a").exists()


STRANGERS = (
    '{"names": [], "removed": ["other.txt"]}',
    '{"names": ["a"], "removed": ["other.txt"]}',
    '{"names": ["a", "other.txt"], "removed": []}',
)


@pytest.mark.parametrize("journal", STRANGERS)
def test_a_step_with_files_of_others_is_left_alone(tmp_path: Path, journal: str, caplog) -> None:
    """A folder that was downloaded may have one, which no command here has begun."""
    one_step._warn.cache_clear()
    left = left_by_a_dead_process(tmp_path, journal)
    (left / "other.txt").write_text("new")
    before = {"a": "old", "other.txt": "precious", "x": "old"}
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    for _ in range(2):
        finish_steps(tmp_path, "a".__eq__)
        with steady(tmp_path, ["a"], "a".__eq__):
            pass
        with replacing(tmp_path / "x") as (temporary,):
            temporary.write_text("old")
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path != left} == before
    assert left.exists() and str(left) in caplog.text and "other.txt" in caplog.text
    assert caplog.text.count("that nobody finished") == 1 + ('"a"' in journal)
    if '"a"' in journal:  # it would take back later what is written now
        for targets in (("a",), ("a", "b")):
            refused = pytest.raises(UserError, match=r"a step that nobody finished, on .*/a among")
            with refused, replacing(*map(tmp_path.joinpath, targets)) as temporaries:
                [path.write_text("newer") for path in temporaries]
    finish_steps(tmp_path, {"a", "other.txt"}.__contains__)
    assert not left.exists()


def test_what_a_step_has_done_already_is_no_matter(tmp_path: Path) -> None:
    left = left_by_a_dead_process(tmp_path, '{"names": ["done", "a"], "removed": ["gone"]}')
    (tmp_path / "done").write_text("new")
    finish_steps(tmp_path, "a".__eq__)
    assert not left.exists() and (tmp_path / "a").read_text() == "new a"


def test_a_step_of_the_living_is_not_called_unfinished(tmp_path: Path, caplog) -> None:
    one_step._warn.cache_clear()
    with replacing(tmp_path / "x", tmp_path / "y") as temporaries:
        [path.write_text("1") for path in temporaries]
        journal = temporaries[0].parent / "ksr-journal.json"
        journal.write_text('{"names": ["x", "y"], "removed": []}')
        finish_steps(tmp_path, no_name)
        with replacing(tmp_path / "x") as (other,):
            other.write_text("2")
        journal.unlink()
    assert caplog.text == "" and (tmp_path / "x").read_text() == "1"


@pytest.mark.parametrize("journal", STRANGERS)
def test_no_reader_or_writer_removes_files_next_to_its_own(tmp_path: Path, journal: str) -> None:
    """Whatever the folder is for."""
    config = {"dataset": "toy", "pretrain_path": str(tmp_path)}
    table = AtomicTable(pl.DataFrame({"item_id": ["a"]}), {"item_id": "token"})
    cell = Cell("KSR", "toy", "next-item", 1, {}, "ab" * 32)
    store = Store(tmp_path)
    cells = store.result_file(cell).parent
    work = {
        tmp_path / "models": lambda here: read_directory(here / "model"),
        tmp_path / "vectors": lambda here: pretrain._given(
            {**config, "pretrain_path": here}, "ent"
        ),
        tmp_path / "raw": lambda here: SOURCES["ml-1m"].ratings_file(here),
        tmp_path / "toy": lambda here: describe(here),
        tmp_path / "out": lambda here: ensure_free(here, Options()),
        tmp_path / "files": lambda here: steady_dataset(here, "toy").__enter__(),
        tmp_path / "written": lambda here: write_atomic_files(here, "toy", {"item": table}),
        tmp_path / "saved": lambda here: replacing_folder(here / "model").__enter__(),
        cells: lambda _: (store.load(cell), pack(store)),
    }
    for here, read in work.items():
        here.mkdir()
        left = left_by_a_dead_process(here, journal)
        (left / "other.txt").write_text("new")
        (here / "other.txt").write_text("precious")
        with suppress(UserError):
            read(here)
        assert (here / "other.txt").read_text() == "precious" and left.exists(), here
        assert not (here / "a").exists()


def test_what_is_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text("1")
    times: list[int] = []

    def read(most: int) -> list[str]:
        times.append(1)
        first = paths[0].read_text()
        if len(times) <= most:
            with replacing(*paths) as temporaries:
                [path.write_text("2" * len(times)) for path in temporaries]
        found = [first, paths[1].read_text()]
        if len(set(found)) > 1:
            raise ValueError("mixed")
        return found

    assert read_steadily(paths, lambda: read(2)) == ["22", "22"] and len(times) == 3
    times.clear()
    with pytest.raises(UserError, match="a was replaced each of the 5 times"):
        read_steadily(paths, lambda: read(9))
    paths[1].write_text("another")
    with pytest.raises(ValueError, match="mixed"):
        read_steadily(paths, lambda: read(0))


def test_a_folder_is_not_written_over_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused = pytest.raises(UserError, match="Cannot write")
    with refused, replacing_folder(tmp_path / "loop" / "a"):
        pass
    with pytest.raises(UserError, match="no model directory"):
        read_directory(tmp_path / "loop")


@pytest.mark.parametrize("thing", ["file", "link to nothing"])
def test_what_stands_where_a_folder_is_wanted_is_said(tmp_path: Path, thing: str) -> None:
    """The system's own words are "File exists", which is no reason for a reader."""
    there = tmp_path / "there"
    if thing == "file":
        there.touch()
    else:
        there.symlink_to(tmp_path / "nowhere")
    said = "something else than a folder has this name"
    with pytest.raises(UserError, match=rf"folder {there} \(results_dir\): {said}; choose"):
        ensure_writable(there, "results_dir")
    with pytest.raises(UserError, match=f"Cannot write {there}: {said}"), replacing(there / "a"):
        pass


def test_devices_are_not_replaced() -> None:
    refused = pytest.raises(UserError, match="Cannot write /dev/null: it is no file")
    with refused, replacing("/dev/null"):
        pass
    assert Path("/dev/null").is_char_device()


def test_files_replaced_while_they_are_read_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with steady(tmp_path, ["a", "b"], no_name):
        (tmp_path / "c").write_text("another")
    refused = pytest.raises(UserError, match="a was replaced while")
    with refused, steady(tmp_path, ["a", "b"], no_name), replacing(tmp_path / "a") as (new,):
        new.write_text("new")


def test_a_folder_that_is_named_like_a_package_is_no_package(tmp_path, monkeypatch):
    """Ray and Weights & Biases leave such folders where a user works."""
    folder = tmp_path / "only_a_folder"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert find_spec(folder.name) is not None and not is_installed(folder.name)
    (folder / "__init__.py").write_text("")
    invalidate_caches()
    assert is_installed(folder.name)
    assert not is_installed("not_even_a_folder")
