"""Reading what is a file only, locks between processes, writing in one step."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from ksr_recbole.errors import UserError
from ksr_recbole.files import (
    check_regular,
    open_regular,
    read_regular,
    read_text,
    sha256_of,
)
from ksr_recbole.locks import locked


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
        "null byte": Path("a\0b"),
    }


@pytest.mark.parametrize("read", [check_regular, open_regular, read_regular, read_text, sha256_of])
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
    assert sha256_of(tmp_path / "link") == hashlib.sha256(b"a\r\nb\rc\n").hexdigest()
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
    # Linux calls this a file of no bytes, and it can be read for ever.
    assert read_regular("/proc/self/pagemap") == b""
