"""Unpacking an archive from a stranger: looked through first, then each folder in one step."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from ksr_recbole.errors import UserError, one_line, shown
from ksr_recbole.files import open_regular, replacing

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1
_MOST_MEMBERS = 1000
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(ValueError, RuntimeError, struct.error, OverflowError),  # headers that make no sense
)
_CHUNK = 1 << 20


def unpack(archive: Path, max_bytes: int) -> Path:
    """Unpack a zip file into its own folder; the files of one folder appear in one step.

    Args:
        archive: the file.
        max_bytes: more than all its members together can have.

    Raises:
        UserError: it is no zip file, is damaged or encrypted, has members that lie elsewhere, are
            links, occur twice or are too large, or cannot be written.
    """
    try:
        with open_regular(archive) as raw, zipfile.ZipFile(raw) as file:
            for folder, members in _members(archive, file, max_bytes).items():
                _unpack_folder(file, archive.parent / folder, members)
    except _UNREADABLE as error:
        raise _refused(archive, one_line(error)) from error
    return archive.parent


def _members(
    archive: Path, file: zipfile.ZipFile, max_bytes: int
) -> dict[str, dict[str, zipfile.ZipInfo]]:
    """The members by folder and name, each of them checked."""
    found: dict[str, dict[str, zipfile.ZipInfo]] = defaultdict(dict)
    members = [info for info in file.infolist() if not info.is_dir()]
    for info in members:
        path = PurePosixPath(info.filename)
        if problem := _problem(info, path):
            raise _refused(archive, f"its member {shown(repr(info.filename))} {problem}")
        known = found[str(path.parent)]
        if path.name.casefold() in known:
            raise _refused(archive, f"its member {shown(repr(info.filename))} occurs twice")
        known[path.name.casefold()] = info
    size = sum(info.file_size for info in members)
    if size > max_bytes or len(members) > _MOST_MEMBERS:
        raise _refused(
            archive,
            f"it holds {len(members):,} files of {size:,} bytes, and at most {_MOST_MEMBERS:,} of "
            f"{max_bytes:,} are expected",
        )
    return found


def _problem(info: zipfile.ZipInfo, path: PurePosixPath) -> str | None:
    """Why a member is not unpacked."""
    mode = info.external_attr >> 16
    odd = "\\" in info.filename or ":" in info.filename or not info.filename.isprintable()
    if path.is_absolute() or ".." in path.parts or not path.name or odd:
        return "has a name that may lie elsewhere"
    if any(part.startswith(".") for part in path.parts):
        return "is hidden"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is a link or another special file"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in _METHODS:
        return f"is compressed by method {info.compress_type}, which is not known here"
    return None


def _unpack_folder(
    file: zipfile.ZipFile, folder: Path, members: dict[str, zipfile.ZipInfo]
) -> None:
    names = [PurePosixPath(info.filename).name for info in members.values()]
    is_new = not folder.exists()
    try:
        with replacing(*(folder / name for name in names)) as temporaries:
            for info, temporary in zip(members.values(), temporaries, strict=True):
                with temporary.open("wb") as target:
                    target.writelines(_content(file, info))
    except BaseException:
        if is_new:
            with suppress(OSError):  # something was put there meanwhile
                folder.rmdir()
        raise


def _content(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """A member's bytes, no more than the size that was checked; zipfile checks their sum."""
    try:
        with file.open(info) as source:
            while chunk := source.read(_CHUNK):
                yield chunk
    except OSError as error:  # an entry that points outside of the file
        raise zipfile.BadZipFile(one_line(error)) from error


def _refused(archive: Path, reason: str) -> UserError:
    return UserError(f"{archive} cannot be unpacked: {reason}; delete it and fetch it again.")
