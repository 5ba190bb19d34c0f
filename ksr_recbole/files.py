"""Reading only what is a file, and writing so that a reader never meets a half-written one."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging import getLogger
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from ksr_recbole.errors import UserError


SMALL = 64 << 20
"""Bytes of the largest file of settings or results that is read; real ones have a few MB."""

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotAFileError(OSError):
    """What stands at a path is no plain file, or one that cannot be read as it should be."""


def check_regular(path: str | os.PathLike[str], limit: int | None = None) -> os.stat_result:
    """Look at a path without opening it, and refuse what is no plain file.

    For libraries that open a path themselves: a named pipe would keep them waiting for ever, and
    a device may never end.

    Args:
        path: the file, or a link to one.
        limit: the most bytes it may have, if there is a limit.

    Raises:
        FileNotFoundError: there is nothing.
        OSError: there is something else than a file, or a larger one.  Its ``strerror`` says what
            it is, in words that go on after "PATH cannot be read: ".
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            raise _no_file(path, errno.ENOENT, "it is a link to nothing") from None
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _no_file(path, errno.ELOOP, "it is a link that leads to itself") from None
        raise
    except ValueError as error:  # a NUL character in the name
        raise _no_file(path, errno.EINVAL, str(error)) from None
    _check_kind(path, found, limit)
    return found


def _check_kind(path: str | os.PathLike[str], found: os.stat_result, limit: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for is_it, name in _KINDS if is_it(found.st_mode)), "something else")
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise _no_file(path, number, f"it is {kind}, not a file")
    if limit is not None and found.st_size > limit:
        text = f"it has {found.st_size:,} bytes, and at most {limit:,} are read"
        raise _no_file(path, errno.EFBIG, text)


def _no_file(path: str | os.PathLike[str], number: int, text: str) -> NotAFileError:
    return NotAFileError(number, text, os.fspath(path))


def open_regular(path: str | os.PathLike[str], limit: int | None = None) -> BinaryIO:
    """Open a file for reading bytes; unlike ``open`` it never waits for a named pipe.

    Raises:
        OSError: see :func:`check_regular`.
    """
    check_regular(path, limit)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check_kind(path, os.fstat(file.fileno()), limit)  # it may have been replaced since
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """All bytes of a file, as many as it had when it was opened.

    Raises:
        OSError: see :func:`check_regular`; or it became shorter while it was read.
    """
    with open_regular(path, limit) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size)
    if len(content) < size:
        raise _no_file(path, errno.EIO, "it became shorter while it was read")
    return content


def read_text(
    path: str | os.PathLike[str], limit: int | None = SMALL, encoding: str = "utf-8"
) -> str:
    """All text of a file, with every line end as ``\\n``.

    Raises:
        OSError: see :func:`read_regular`.
        UnicodeDecodeError: it is not in that encoding.
    """
    text = read_regular(path, limit).decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes as hexadecimal digits.

    Raises:
        OSError: see :func:`check_regular`.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Inside the block no other process of this machine is inside one with the same lock file.

    The second waits for the first, and says so; a process that ends, however it does, frees its
    locks.

    Raises:
        UserError: the lock file's folder cannot be created or written.
    """
    lock = _acquired(Path(path))
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquired(target: Path) -> FileLock | None:
    """The lock once it is held; ``None``, and a warning, on a file system that knows no locks."""
    logger = getLogger(__name__)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info(f"Waiting for another process, which holds {target}")
            lock.acquire()
    except NotImplementedError:
        logger.warning(f"No file locks in {target.parent}: commands side by side may collide there")
        return None
    except OSError as error:
        raise _cannot_write(target, error) from error
    return lock


@contextmanager
def replacing(*targets: str | os.PathLike[str]) -> Iterator[tuple[Path, ...]]:
    """Yield one temporary path per target and rename them all at the end.

    The temporary files lie beside their targets, so that the rename stays within one file
    system.  If the block raises (or is interrupted), the temporaries are removed and the
    targets are left as they were.

    Raises:
        UserError: a folder cannot be created or written, or the disk is full.
    """
    finals = tuple(Path(target) for target in targets)
    temporaries = tuple(p.with_name(f".{p.name}.{os.getpid()}.tmp") for p in finals)
    try:
        for final in finals:
            final.parent.mkdir(parents=True, exist_ok=True)
        yield temporaries
        for temporary, final in zip(temporaries, finals, strict=True):
            os.replace(temporary, final)
    except OSError as error:
        raise _cannot_write(finals[0], error) from error
    finally:
        for temporary in temporaries:
            with suppress(OSError):  # there may be no folder to look in
                temporary.unlink()


@contextmanager
def replacing_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty temporary folder that takes the place of ``target`` at the end.

    As :func:`replacing` for a whole folder.  What ``target`` held before is gone afterwards;
    whether it may be is for the caller to find out first.

    Raises:
        UserError: a folder cannot be created or written, or the disk is full.
    """
    final = Path(target).resolve()
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    before = temporary.with_suffix(".old")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        if final.exists():
            os.replace(final, before)  # a folder with content cannot be replaced in one step
        os.replace(temporary, final)
    except OSError as error:
        raise _cannot_write(final, error) from error
    finally:
        if before.exists() and not final.exists():
            os.replace(before, final)
        for leftover in (temporary, before):
            shutil.rmtree(leftover, ignore_errors=True)


def _cannot_write(target: Path, error: OSError) -> UserError:
    return UserError(
        f"Cannot write {error.filename or target}: {error.strerror or error}; "
        "choose a folder you may write to, on a disk with free space."
    )


def ensure_writable(folder: str | os.PathLike[str], key: str) -> Path:
    """Create ``folder`` if need be and make sure that files can be written in it.

    Args:
        folder: the folder.
        key: the config key that named it, for the sentence.

    Raises:
        UserError: it cannot be created or written.
    """
    path = Path(folder)
    try:
        _probe(path)
    except OSError as error:
        raise UserError(
            f"Cannot write in the folder {path} ({key}): {error.strerror}; "
            f"choose another with --{key}=FOLDER or make room."
        ) from error
    return path


def ensure_writable_file(path: str | os.PathLike[str], key: str) -> Path:
    """Create the folder of ``path`` if need be and make sure that the file can be written.

    Args:
        path: the file.
        key: the argument that named it, for the sentence.

    Raises:
        UserError: its folder cannot be created or written, or it is a folder itself.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _probe(path.parent)
    except OSError as error:
        raise UserError(
            f"Cannot write the file {path} ({key}): {error.strerror}; "
            f"choose another with --{key}=FILE or make room."
        ) from error
    return path


def _probe(folder: Path) -> None:
    """Create a folder if need be and try whether files can be written in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"\0" * 4096)
        probe.flush()
