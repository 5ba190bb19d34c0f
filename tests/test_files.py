"""Locks between processes; how files are replaced is tested where files are written."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from ksr_recbole.errors import UserError
from ksr_recbole.files import locked


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
