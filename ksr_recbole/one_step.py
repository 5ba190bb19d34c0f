"""Several renames as one step, and an end to what killed processes left.

A write puts its new files into a folder of its own next to their places, ``.<digits>.ksr-tmp``,
and holds a lock in it for as long as it lives: a folder whose lock is free is of a dead process.
One rename is one step.  Of several, a journal in that folder says first what is to be renamed
and removed.  Until the journal is there nothing has changed.  From then on, the next process,
reader or writer, does what is left of it.

A journal may also be a stranger's, in a folder that was downloaded.  So each reader and writer says
which names are its own, and a journal with others is left alone.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from logging import getLogger
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from ksr_recbole.errors import UserError, shown
from ksr_recbole.locks import lock_if_free, locked

T = TypeVar("T")

Owned = Callable[[str], bool]
"""Whether a name in a folder is one that a reader or writer may replace and remove there."""

_NAME = re.compile(r"\.[0-9a-f]{16}\.ksr-tmp")
_LOCK, _JOURNAL, _ASIDE = "ksr-lock", "ksr-journal.json", "ksr-aside"
_COMMIT_LOCK = ".ksr-commit.lock"

_LONGEST_JOURNAL, _LONGEST_NAME = 1 << 20, 255
"""Bytes of a journal, which a stranger may have written, and of a file's name."""

_RENAME_EXCHANGE, _AT_FDCWD = 2, -100
"""Of Linux' ``renameat2``."""

_NO_FSYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EROFS)
"""Errors of a file system that has no ``fsync``, of folders or at all, or for files only read."""

_READINGS = 5
"""How often files that are replaced while they are read are read again."""


def nothing_to_check() -> None:
    """No condition on a step."""


def no_name(name: str) -> bool:
    """No name is owned."""
    return False


@contextmanager
def temporary_folder(parent: Path, owned: Owned) -> Iterator[Path]:
    """An empty folder in ``parent``, gone at the end; those of dead processes go first.

    Args:
        parent: where.
        owned: names of steps to be finished, as for :func:`finish_steps`.

    Raises:
        OSError: it cannot be made.
        UserError: what a killed process left cannot be mended.
    """
    remove_leftovers(parent, owned)
    folder, lock = _made(parent)
    try:
        yield folder
    finally:
        # With a journal the next process needs it.
        if not (folder / _JOURNAL).exists():
            shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            lock.release()


def _made(parent: Path) -> tuple[Path, FileLock | None]:
    """A new folder, and its lock where the file system knows locks."""
    while True:
        folder = parent / f".{secrets.token_hex(8)}.ksr-tmp"
        try:
            folder.mkdir()
            lock = lock_if_free(folder / _LOCK)
        except NotImplementedError:
            return folder, None
        except OSError as error:
            if isinstance(error, FileNotFoundError) and parent.is_dir():
                continue  # another process took it for a leftover before it had its lock
            shutil.rmtree(folder, ignore_errors=True)
            raise OSError(error.errno, error.strerror) from error  # not naming that folder
        if lock is not None:
            return folder, lock


def replace_all(
    folder: Path,
    names: Sequence[str],
    owned: Owned,
    removed: Sequence[str] = (),
    check: Callable[[], None] = nothing_to_check,
) -> None:
    """Move files of a temporary folder to their places next to it, in one step.

    Args:
        folder: from :func:`temporary_folder`.
        names: its files, which have the names that they get.
        owned: names of steps to be finished before, these and those removed among them.
        removed: names of files next to it that go in the same step.
        check: called when no other process can take such a step any more; raises to give up.

    Raises:
        OSError: a file is missing or cannot be moved.
        UserError: a step that may not be finished here has one of the files.
    """
    parent, mine = folder.parent, {*names, *removed}
    for name in names:
        check_place(parent / name)
        _sync(folder / name)
    if len(names) == 1 and not removed and check is nothing_to_check:
        _check_apart(parent, mine)
        os.replace(folder / names[0], parent / names[0])
    else:
        with locked(parent / _COMMIT_LOCK):
            _finish_all(parent, owned)
            _check_apart(parent, mine)
            check()
            _commit(folder, names, removed)
    _sync(parent)


def replace_folder(folder: Path, name: str, check: Callable[[], None]) -> None:
    """Move a folder in a temporary folder to its place next to that, in one step.

    Args:
        folder: from :func:`temporary_folder`.
        name: the new folder's name, here and there.
        check: as for :func:`replace_all`.

    Raises:
        OSError: it cannot be moved.
        UserError: a step that may not be finished here has it.
    """
    new, final = folder / name, folder.parent / name
    for path in sorted(new.rglob("*")):
        _sync(path)
    with locked(folder.parent / _COMMIT_LOCK):
        _finish_all(folder.parent, name.__eq__)
        _check_apart(folder.parent, {name})
        check()
        if not os.path.lexists(final):
            os.replace(new, final)
        elif not _exchanged(new, final):
            _commit(folder, [name], [])
    _sync(folder.parent)


def finish_steps(folder: str | os.PathLike[str], owned: Owned) -> None:
    """Do what killed processes left to do in a folder; every reader of several files comes first.

    A step that another process is taking right now is waited for.  One that would replace or
    remove what is not the reader's is left alone, with a warning.

    Args:
        folder: the folder.
        owned: which names in it are the reader's.

    Raises:
        UserError: it cannot be done.
    """
    parent = Path(folder)
    try:
        # Looked at before the lock, which a check within a step holds already.
        if not any(_may_finish(each, owned) for each in _journals(parent)):
            return
        with locked(parent / _COMMIT_LOCK):
            _finish_all(parent, owned)
    except (OSError, UserError) as error:
        if _all_in_place(parent):  # a reader, who perhaps may not write here, needs no more
            return
        raise UserError(
            f"A command was stopped while it replaced files in {parent}, and its work cannot be "
            f"finished ({error}); run the command again as a user with write permission."
        ) from error


@contextmanager
def steady(
    folder: str | os.PathLike[str], names: Sequence[str], owned: Owned
) -> Iterator[Callable[[], None]]:
    """Refuse what is read inside the block if one of some files of a folder changed meanwhile.

    The block gets a function that looks at once, for what must be known before something is kept.

    Args:
        folder: the folder.
        names: of the files.
        owned: as for :func:`finish_steps`.

    Raises:
        UserError: one did, so that old and new files may have been read together.
    """
    finish_steps(folder, owned)
    before = {name: _identity(Path(folder) / name) for name in names}

    def check() -> None:
        for name in names:
            if _identity(Path(folder) / name) != before[name]:
                raise UserError(
                    f"{Path(folder) / name} was replaced while the files there were read; run the "
                    "command again."
                )

    yield check
    check()


def read_steadily(paths: Sequence[Path], read: Callable[[], T]) -> T:
    """What is read of files, or of a folder, once nobody replaces them while it is read.

    Args:
        paths: the files, or the folder.
        read: reads them; called again, a few times, if one was replaced meanwhile.

    Raises:
        UserError: one was replaced each time.
        Exception: what ``read`` raises of files that stay.
    """
    for _ in range(_READINGS):
        before = [_identity(path) for path in paths]
        try:
            found = read()
        except Exception:  # of old and new files together anything may be wrong
            if before == [_identity(path) for path in paths]:
                raise
        else:
            if before == [_identity(path) for path in paths]:
                return found
    raise UserError(
        f"{paths[0]} was replaced each of the {_READINGS} times that it was read; wait until it is "
        "not written any more, and run the command again."
    )


def identity(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """What tells a file from another one in its place, and from itself after a change.

    Raises:
        OSError: it is not there.
    """
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _identity(path: Path) -> tuple[int, int, int] | None:
    """As :func:`identity`; ``None`` without a file."""
    try:
        return identity(path)
    except OSError:  # who reads it says what is wrong
        return None


def remove_leftovers(parent: Path, owned: Owned) -> None:
    """Finish the steps and remove the temporary files of dead processes in a folder.

    Args:
        parent: the folder.
        owned: as for :func:`finish_steps`.

    Raises:
        UserError: a step cannot be finished.
    """
    finish_steps(parent, owned)
    for folder in _temporary_folders(parent):
        with suppress(OSError, NotImplementedError):  # another user's, or already gone
            lock = lock_if_free(folder / _LOCK)
            if lock is None:
                continue
            # Looked at with the lock: it may have been alive until now.
            if not (folder / _JOURNAL).exists():
                shutil.rmtree(folder, ignore_errors=True)
            elif not _left_to_do(folder):
                _remove_journal(folder)
                shutil.rmtree(folder, ignore_errors=True)
            lock.release()


def only_leftovers(parent: Path) -> bool:
    """Whether a folder holds nothing but files of this module."""
    names = {path.name for path in parent.iterdir()}
    return all(name == _COMMIT_LOCK or _NAME.fullmatch(name) for name in names)


def _temporary_folders(parent: Path) -> list[Path]:
    try:
        user = _only_user(parent)
        with os.scandir(parent) as entries:
            return [
                parent / entry.name
                for entry in entries
                if _NAME.fullmatch(entry.name)
                and entry.is_dir(follow_symlinks=False)
                and user in (None, _owner(entry))
            ]
    except OSError:  # no folder, or one that cannot be looked into
        return []


def _only_user(parent: Path) -> int | None:
    """The user whose folders alone count: in a folder like ``/tmp`` others cannot rename my files,
    so their journals must not do it with my rights either."""
    if hasattr(os, "geteuid") and parent.stat().st_mode & stat.S_ISVTX:
        return os.geteuid()
    return None


def _owner(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_uid
    except OSError:  # gone since it was listed
        return -1


def _journals(parent: Path) -> list[Path]:
    """Folders with a step to be finished, of dead processes or of one that is taking it."""
    return [f for f in _temporary_folders(parent) if os.path.lexists(f / _JOURNAL)]


def _commit(folder: Path, names: Sequence[str], removed: Sequence[str]) -> None:
    draft = folder / f"{_JOURNAL}.draft"
    draft.write_text(json.dumps({"names": list(names), "removed": list(removed)}), "utf-8")
    _sync(draft)
    os.replace(draft, folder / _JOURNAL)
    try:
        _sync(folder)
    except OSError:  # nothing has changed yet
        (folder / _JOURNAL).unlink()
        raise
    try:
        _finish(folder)
    except BaseException:  # Ctrl-C does not leave a mixture either
        _finish(folder)
        raise


def _finish_all(parent: Path, owned: Owned) -> None:
    """Finish the steps of dead processes; only with the lock, which the living hold."""
    for folder in _journals(parent):
        if _may_finish(folder, owned):
            _finish(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _may_finish(folder: Path, owned: Owned) -> bool:
    """Whether all that a step has still to do is with names that are owned; else a warning."""
    others = sorted(name for name in _left_to_do(folder) if not owned(name))
    if others and _is_left(folder):
        _warn(folder, tuple(others))
    return not others


def _is_left(folder: Path) -> bool:
    """Whether no living process holds a temporary folder."""
    try:
        lock = lock_if_free(folder / _LOCK)
    except (OSError, NotImplementedError):  # another user's, or nothing here can be locked
        return True
    if lock is not None:
        lock.release()
    return lock is not None


@lru_cache(maxsize=64)
def _warn(folder: Path, names: tuple[str, ...]) -> None:
    """Once for a folder: cells are read by the thousand."""
    getLogger(__name__).warning(
        f"{folder} holds a step that nobody finished and that would replace or remove "
        f"{shown(', '.join(names))}. These files do not belong to what is used here, so they are "
        "left alone. Delete that folder unless a command of yours was stopped there; then run it "
        "again."
    )


def _left_to_do(folder: Path) -> set[str]:
    """The names in a journal that finishing its step would still replace or remove."""
    names, removed = _read_journal(folder / _JOURNAL)
    return {name for name in names if os.path.lexists(folder / name)} | {
        name for name in removed if os.path.lexists(folder.parent / name)
    }


def _all_in_place(parent: Path) -> bool:
    """Whether the steps in a folder have nothing left to do but to remove their journals."""
    try:
        return not any(map(_left_to_do, _journals(parent)))
    except (OSError, UserError):
        return False


def _check_apart(parent: Path, mine: set[str]) -> None:
    """Refuse files that a step which was left alone would take back later."""
    for folder in _journals(parent):
        both = sorted(mine & _left_to_do(folder))
        if both and _is_left(folder):
            raise UserError(
                f"{folder} holds a step that nobody finished, on {parent / both[0]} among other "
                "files; delete that folder, or run the command again that was stopped there."
            )


def _finish(folder: Path) -> None:
    """Do what is left of a journal; doing it twice does no harm."""
    parent, journal = folder.parent, folder / _JOURNAL
    names, removed = _read_journal(journal)
    for name in names:
        _put(folder / name, parent / name, folder / _ASIDE)
    for name in removed:
        (parent / name).unlink(missing_ok=True)
    _sync(parent)
    _remove_journal(folder)


def _remove_journal(folder: Path) -> None:
    """Remove the journal of a step of which nothing is left to do.

    Raises:
        UserError: it cannot be removed, and would be followed again later.
    """
    try:
        (folder / _JOURNAL).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"All files were written to {folder.parent}, but the journal of that step cannot be "
            f"removed ({error.strerror or error}); delete the folder {folder}."
        ) from error


def _read_journal(journal: Path) -> tuple[list[str], list[str]]:
    try:
        found = journal.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LONGEST_JOURNAL:
            raise ValueError("it is no file of a few names")
        content = json.loads(journal.read_text("utf-8"))
        names, removed = content["names"], content["removed"]
        if not isinstance(names, list) or not isinstance(removed, list):
            raise ValueError("it holds no lists of names")
        if not all(_is_plain(name) for name in [*names, *removed]):
            raise ValueError("it holds something that is not the name of a file")
    except FileNotFoundError:
        return [], []
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"{journal} is damaged ({error}); delete the folder {journal.parent} and write again "
            "what lies next to it."
        ) from error
    return names, removed


def _is_plain(name: object) -> bool:
    """Whether a name, which a stranger may have written, stays in its folder."""
    if not isinstance(name, str) or name in ("", ".", "..") or name != os.path.basename(name):
        return False
    # UnicodeEncodeError, half of a letter, is a ValueError.
    return "\0" not in name and len(os.fsencode(name)) <= _LONGEST_NAME


def _put(new: Path, final: Path, aside: Path) -> None:
    if not os.path.lexists(new):
        return  # done before
    if final.is_dir() and not final.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(final, aside)  # a folder with content cannot be replaced in one step
    os.replace(new, final)


def check_place(final: Path) -> None:
    """Refuse a place where a rename would fail, or would take away a device."""
    if final.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(final))
    if final.exists() and not final.is_file():
        raise OSError(errno.EEXIST, "it is no file but a device, a pipe or a socket", str(final))


def _exchanged(new: Path, final: Path) -> bool:
    """Exchange two folders in one step, where the system can."""
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if exchange is None:
        return False
    arguments = (_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(final), _RENAME_EXCHANGE)
    return exchange(*arguments) == 0


def _sync(path: Path) -> None:
    """Have the disk hold what was written, so that no rename gets ahead of its file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Not every file system can.  Any other error says that what was written is lost.
        if error.errno not in _NO_FSYNC:
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
