"""Locks between processes, of which nothing is left when they are free again."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging import getLogger
from pathlib import Path

from filelock import FileLock, Timeout

from ksr_recbole.errors import cannot_write

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What systems say of a file system without locks, such as NFS without its service for them."""


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Inside the block no other process of this machine is inside one with the same lock file.

    The second waits for the first, and says so; a process that ends, however it does, frees its
    locks.  The file must not lie in a folder that is removed or replaced meanwhile.  It is
    removed at the end: who waits for it notices that, and makes it anew.

    Raises:
        UserError: the lock file's folder cannot be created or written.
    """
    target = Path(path)
    lock = _acquired(target)
    try:
        yield
    finally:
        if lock is not None:
            _free(lock, target)


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """As :func:`locked` without waiting: whether the lock is held inside the block.

    Raises:
        OSError: the lock file cannot be created.
        NotImplementedError: the file system knows no locks.
    """
    lock = lock_if_free(path)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            _free(lock, path)


def _free(lock: FileLock, target: Path) -> None:
    with suppress(OSError):  # another system may not remove what is open
        target.unlink()
    lock.release()


def _acquired(target: Path) -> FileLock | None:
    """The lock once it is held; ``None``, and a warning, on a file system that knows no locks."""
    logger = getLogger(__name__)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_if_free(target)
        if lock is None:
            logger.info(f"Waiting for another process, which holds {target}")
            lock = FileLock(target)
            lock.acquire()
    except NotImplementedError:
        logger.warning(f"No file locks in {target.parent}: do not run two commands there at once")
        with suppress(OSError):
            target.unlink()
        return None
    except OSError as error:
        raise cannot_write(target, error) from error
    return lock


def lock_if_free(path: Path) -> FileLock | None:
    """The lock of a file if no process holds it; to be released by the caller.

    Raises:
        OSError: the lock file cannot be created.
        NotImplementedError: the file system knows no locks.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise NotImplementedError(error.strerror) from error
        raise
    return lock
