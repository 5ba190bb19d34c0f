"""Reading only what is a file, and writing so that a reader never meets a half-written one."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path

from ksr_recbole.errors import UserError, cannot_write, shown, why_not_written
from ksr_recbole.one_step import (
    Owned,
    check_place,
    no_name,
    nothing_to_check,
    replace_all,
    replace_folder,
    temporary_folder,
)

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
    """Look at a path without waiting for it, and refuse anything but a plain file.

    For libraries that open a path themselves: a named pipe would keep them waiting for ever, and
    a device may never end.  Only a file that says it is empty is opened here, to see whether it
    is: the system's own, as in /proc, say so whatever can be read of them.

    Args:
        path: the file, or a link to one.
        limit: the most bytes it may have, if there is a limit.

    Raises:
        FileNotFoundError: there is nothing.
        OSError: there is something else than a file, or a larger one.  Its ``strerror`` says what
            it is, in words that continue "PATH cannot be read: ".
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
    except ValueError:  # each Python says it in other words
        raise _no_file(path, errno.EINVAL, "its name has a NUL character") from None
    _check_kind(path, found, limit)
    if found.st_size == 0:
        _opened(path, limit).close()
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


def open_regular(path: str | os.PathLike[str], limit: int | None = None) -> BufferedReader:
    """Open a file for reading bytes; unlike ``open`` it never waits for a named pipe.

    Raises:
        OSError: see :func:`check_regular`.
    """
    check_regular(path, limit)
    return _opened(path, limit)


def _opened(path: str | os.PathLike[str], limit: int | None) -> BufferedReader:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        found = os.fstat(file.fileno())
        _check_kind(path, found, limit)  # it may have been replaced since
        if found.st_size == 0 and not _is_empty(file):
            raise _no_file(path, errno.EINVAL, "it says that it is empty, and it is not")
    except BaseException:
        file.close()
        raise
    return file


def _is_empty(file: BufferedReader) -> bool:
    """Whether a file really has no bytes; what cannot be read has some."""
    try:
        return file.raw.read(1) == b""  # nothing (``None``) is there yet where one would wait
    except OSError:
        return False


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


@contextmanager
def replacing(
    *targets: str | os.PathLike[str],
    removed: Sequence[Path] = (),
    check: Callable[[], None] = nothing_to_check,
    owned: Owned = no_name,
) -> Iterator[tuple[Path, ...]]:
    """Yield one temporary path per target and move them all to their places at the end.

    For a reader that calls :func:`~ksr_recbole.one_step.finish_steps` first, the files of one
    folder change in one step, even if this process is killed in the middle of it.  The temporary
    files lie in a folder next to their targets, so that a move stays within one file system.  If
    the block raises (or is interrupted), they are removed and the targets are left as they were.

    Args:
        targets: the files.
        removed: files in folders of the targets that go in the same step.
        check: called right before the step, when no other process can take one in that folder;
            raises to give up.
        owned: other names that commands of this kind replace or remove in the same folder; a
            step of a dead process is finished first if it has none but these and the targets'.

    Raises:
        UserError: a folder cannot be created or written, or the disk is full; a killed command
            left a step on one of the files and on others.
    """
    finals = tuple(Path(target) for target in targets)
    folders: dict[Path, Path] = {}

    def mine(parent: Path) -> Owned:
        names = {path.name for path in (*finals, *removed) if path.parent == parent}
        return lambda name: name in names or owned(name)

    with ExitStack() as stack:
        try:
            for final in finals:
                check_place(final)
            for parent in dict.fromkeys(final.parent for final in finals):
                parent.mkdir(parents=True, exist_ok=True)
                folders[parent] = stack.enter_context(temporary_folder(parent, mine(parent)))
            yield tuple(folders[final.parent] / final.name for final in finals)
            for parent, folder in folders.items():
                names = [final.name for final in finals if final.parent == parent]
                others = [path.name for path in removed if path.parent == parent]
                replace_all(folder, names, mine(parent), others, check)
        except OSError as error:
            raise _cannot_write(finals[0], folders, error) from error


@contextmanager
def replacing_folder(
    target: str | os.PathLike[str], check: Callable[[], None] = nothing_to_check
) -> Iterator[Path]:
    """Yield an empty temporary folder that takes the place of ``target`` at the end.

    As :func:`replacing` for a whole folder.  What ``target`` held before is gone afterwards;
    whether it may be is for the caller to find out first, and for ``check``.

    Raises:
        UserError: a folder cannot be created or written, or the disk is full.
    """
    final = Path(os.path.realpath(target))  # Path.resolve stops at a link to itself
    folders: dict[Path, Path] = {}
    with ExitStack() as stack:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(temporary_folder(final.parent, final.name.__eq__))
            folders[final.parent] = folder
            (folder / final.name).mkdir()
            yield folder / final.name
            replace_folder(folder, final.name, check)
        except OSError as error:
            raise _cannot_write(final, folders, error) from error


def _cannot_write(final: Path, folders: Mapping[Path, Path], error: OSError) -> UserError:
    """The sentence with the place of a file instead of its temporary one."""
    named = str(error.filename or final)
    for parent, folder in folders.items():
        named = named.replace(f"{folder}{os.sep}", f"{parent}{os.sep}")
    return cannot_write(named, OSError(error.errno, error.strerror or str(error)))


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
        path.mkdir(parents=True, exist_ok=True)
        _probe(path)
    except OSError as error:
        raise UserError(
            f"Cannot write in the folder {path} ({key}): {why_not_written(error)}; "
            f"choose another with --{key}=FOLDER or make room."
        ) from error
    return path


def check_suffix(path: str | os.PathLike[str], option: str, *suffixes: str) -> None:
    """Refuse a file whose name says that it is of another kind than what is written into it.

    Args:
        path: the file.
        option: the argument that named it, for the sentence.
        suffixes: how its name may end, such as ``.png``.

    Raises:
        UserError: it ends in something else.
    """
    if Path(path).suffix.lower() not in suffixes:
        raise UserError(
            f"--{option} is {shown(str(path))}; it must end in {' or '.join(suffixes)}."
        )


def ensure_writable_file(path: str | os.PathLike[str], option: str) -> Path:
    """Make sure that a file can be written, whose folder must be there.

    A folder that is named is made, as RecBole does; that of a file is not, as where RecBole opens
    one: it may be misspelt.

    Args:
        path: the file.
        option: the argument that named it, for the sentence.

    Raises:
        UserError: its folder does not exist or cannot be written, or it is no file.
    """
    path = Path(path)
    if not os.path.isdir(path.parent):  # Path.is_dir raises where a name is too long
        raise UserError(
            f"--{option} is {path}, but there is no folder {path.parent}; create it, or give "
            f"another file with --{option}=FILE."
        )
    try:
        check_place(path)
        _probe(path.parent)
    except OSError as error:
        raise UserError(
            f"Cannot write the file {path} ({option}): {why_not_written(error)}; "
            f"choose another with --{option}=FILE or make room."
        ) from error
    return path


def _probe(folder: Path) -> None:
    """Try whether files can be written in a folder."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"\0" * 4096)
        probe.flush()
