"""Downloading the public raw files: resumed, checked, and renamed only when complete.

What a server sends is not trusted: no more is read than the source can have, and an
archive is looked through before anything of it is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from dataset_atomic.archives import unpack
from dataset_atomic.sources import (
    FREEBASE_BYTES,
    FREEBASE_DUMP,
    KB4REC_LICENCE,
    RECBOLE_KG,
    SOURCES,
    Source,
)
from ksr_recbole.bars import Bar
from ksr_recbole.errors import UserError, shown
from ksr_recbole.files import check_regular, ensure_writable, open_regular
from ksr_recbole.locks import locked

KB4REC_LISTING = "https://api.github.com/repos/RUCDM/KB4Rec/contents/Linkage"
"""GitHub's list of the link files, with the address, size and git hash of each."""

CHUNK = 1 << 20
TIMEOUT = (10, 60)
"""Seconds to wait for a connection and for the next bytes."""

_HASH_LENGTH_MD5 = 32
_SMALL = 1 << 20
"""Bytes of the longest list or checksum."""

_LINK_BYTES = 1 << 28
"""Bytes of the largest link file; KB4Rec's have a few MB."""


class Unreachable(UserError):
    """No network, or a server that does not answer.

    Args:
        url: what could not be reached.
        reason: why, in a word or two.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"Cannot download {url} ({reason}); check the network, or download it by hand."
        )
        self.reason = reason


def fetch(name: str, folder: Path, link: bool = False) -> list[str]:
    """Download what is public of a dataset into a folder, and say what is still missing.

    An interrupted download resumes where it stopped; a finished one is not repeated.

    Args:
        name: of a dataset, or ``freebase`` for the dump.
        folder: where to.
        link: also KB4Rec's link file, where the film graph that ships would do without.

    Returns:
        Lines to print: files, licences, what to do next.

    Raises:
        UserError: an unknown name, no network, a checksum that does not fit, no room.
    """
    if name != "freebase" and name not in SOURCES:
        raise UserError(
            f"There is nothing to fetch for '{shown(name)}'; expected one of "
            f"{', '.join([*SOURCES, 'freebase'])}."
        )
    ensure_writable(folder, "raw")
    if name == "freebase":
        dump = download(FREEBASE_DUMP, folder / "freebase-rdf-latest.gz", FREEBASE_BYTES)
        return [f"{dump} is complete"]
    source, lines = SOURCES[name], []
    lines.append(f"Licences: {source.licence}")
    if source.archive is None:
        lines.append(f"{name} cannot be fetched: get {source.download} and put it into {folder}/")
    else:
        lines += fetch_archive(source, folder)
    if source.films and not link:
        lines.append(
            "A graph of films comes with this package: "
            f"`python -m dataset_atomic convert {name} --raw {folder}`"
        )
        return lines
    lines.append(f"Licence of the links: {KB4REC_LICENCE}")
    lines.append(f"{_link_file(source.link, folder)} is complete (git hash as published)")
    lines.append(
        f"Still needed: a knowledge graph, such as {source.kg[0]} from {RECBOLE_KG} put into "
        f"{folder}/, or the Freebase dump (`fetch freebase --raw {folder}`, tens of GB); then "
        f"`python -m dataset_atomic convert {name} --raw {folder}`"
    )
    return lines


def fetch_archive(source: Source, folder: Path) -> list[str]:
    """Download and unpack the archive of a source that has one, and say what is there.

    Raises:
        UserError: as :func:`fetch`; :class:`Unreachable` if the server cannot be reached.
    """
    assert source.archive is not None
    ensure_writable(folder, "raw")
    archive = folder / source.archive.rsplit("/", 1)[-1]
    is_zip = archive.suffix == ".zip"
    checksum = None
    if is_zip:
        checksum = check_of(source.md5) if source.md5 else published_md5(source.archive)
    download(source.archive, archive, source.max_bytes, checksum)
    lines = [f"{archive} is complete{' (md5 as published)' if checksum else ''}"]
    if is_zip:
        lines.append(f"unpacked into {unpack(archive, source.max_bytes)}")
    return lines


def check_of(md5: str) -> Callable[[Path], bool]:
    """A check against a known md5."""
    return lambda path: _digest(path, hashlib.md5(usedforsecurity=False)) == md5


def published_md5(url: str) -> Callable[[Path], bool]:
    """A check against the md5 that GroupLens publishes with each archive.

    Raises:
        UserError: it cannot be downloaded, or what was is none.
    """
    text = _get_small(f"{url}.md5").decode(errors="replace")
    found = re.search(rf"\b[0-9a-f]{{{_HASH_LENGTH_MD5}}}\b", text)
    if not found:
        raise UserError(f"{url}.md5 holds no md5 but {text[:60]!r}; try again later.")
    return check_of(found.group())


def git_blob_check(sha: str) -> Callable[[Path], bool]:
    """A check against the hash under which git, and so GitHub's listing, knows a file."""

    def check(path: Path) -> bool:
        start = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        return _digest(path, start) == sha

    return check


def download(
    url: str, target: Path, max_bytes: int, check: Callable[[Path], bool] | None = None
) -> Path:
    """Download a file, resuming from ``<target>.part`` if there is one.

    Args:
        url: what.
        target: where to; if it is there and passes the check, nothing is downloaded.
        max_bytes: more than the file can have; a longer one is refused.
        check: whether a complete file is right.

    Raises:
        UserError: no network, an error of the server, or a file that fails the check (which is
            then removed).
    """
    with locked(target.with_name(f".{target.name}.lock")):
        if _there(target) and (check is None or check(target)):
            return target
        part = target.with_name(f"{target.name}.part")
        done = part.stat().st_size if _there(part) else 0
        response = _get(url, {"Range": f"bytes={done}-"} if done else {}, complete=done > 0)
        with response:
            if response.status_code == 416:  # nothing is left to send
                _check_complete(response, part, url)
            else:
                _save(response, part, target.name, url, max_bytes)
        if check is not None and not check(part):
            with open_regular(part) as file:
                is_page = file.read(64).lstrip().startswith(b"<")
            part.unlink()
            told = " and begins as a web page does (of a proxy?)" if is_page else ""
            raise UserError(
                f"The checksum of {url} does not fit{told}; it was removed, fetch it again, or "
                "download it by hand."
            )
        os.replace(part, target)
    return target


def _there(path: Path) -> bool:
    """Whether a file is there.

    Raises:
        UserError: something else than a file is.
    """
    try:
        check_regular(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(
            f"Cannot download to {path} ({error.strerror}); move it away, or choose another folder "
            "with --raw=DIR."
        ) from error
    return True


def _link_file(name: str, folder: Path) -> Path:
    entry = next((e for e in _listing() if isinstance(e, dict) and e.get("name") == name), None)
    if entry is None:
        raise UserError(f"{KB4REC_LISTING} lists no {name}; download it from KB4Rec by hand.")
    url, sha = entry.get("download_url"), entry.get("sha")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")) or not sha:
        raise UserError(
            f"{KB4REC_LISTING} gives no address of {name}; download it from KB4Rec by hand."
        )
    return download(url, folder / name, _LINK_BYTES, git_blob_check(str(sha)))


def _listing() -> list[Any]:
    try:
        listing = json.loads(_get_small(KB4REC_LISTING))
    except (ValueError, RecursionError):
        listing = None
    if not isinstance(listing, list):
        raise UserError(f"{KB4REC_LISTING} is no list of files now; try again later.")
    return listing


def _check_complete(response: requests.Response, part: Path, url: str) -> None:
    """Refuse what is longer than the file the server has, which then is another one."""
    size = response.headers.get("Content-Range", "").removeprefix("bytes */")
    if not size.isdecimal():
        raise UserError(
            f"{url} does not say how long it is, so {part} may be a part of it or all of it; "
            "delete that and fetch it again."
        )
    if size != str(part.stat().st_size):
        part.unlink()
        raise UserError(
            f"{part} was longer than {url}, so it was another file and was removed; fetch again."
        )


def _save(response: requests.Response, part: Path, name: str, url: str, max_bytes: int) -> None:
    resumed = response.status_code == 206
    done = part.stat().st_size if resumed else 0
    if not response.headers.get("Content-Range", f"bytes {done}-").startswith(f"bytes {done}-"):
        raise UserError(f"{url} was not sent from byte {done} on; delete {part} and fetch again.")
    if (packed := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise UserError(
            f"{url} was sent packed ({shown(packed)}), so that it could not be resumed; download "
            f"{name} by hand."
        )
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise UserError(f"{url} is a web page instead of {name}; download it by hand.")
    length = response.headers.get("Content-Length", "")
    total = int(length) + done if length.isdecimal() and len(length) < 20 else None
    if total is not None and total > max_bytes:
        raise _too_long(url, max_bytes)
    bar = Bar(total=total, initial=done, unit="B", unit_scale=True, desc=name)
    try:
        with part.open("ab" if resumed else "wb") as file, bar:
            for chunk in response.iter_content(CHUNK):
                done += len(chunk)
                if done > max_bytes:
                    raise _too_long(url, max_bytes)
                file.write(chunk)
                bar.update(len(chunk))
    except requests.RequestException as error:
        raise UserError(f"{url} broke off ({_reason(error)}); run it again to resume.") from error
    except OSError as error:
        raise UserError(
            f"Cannot write {part}: {error.strerror}; make room and try again."
        ) from error
    if total is not None and part.stat().st_size < total:
        raise UserError(f"{url} broke off; run it again to resume.")


def _too_long(url: str, max_bytes: int) -> UserError:
    return UserError(
        f"{url} is longer than {max_bytes:,} bytes, which the file cannot be; download it "
        "yourself and check its content."
    )


def _get_small(url: str) -> bytes:
    """A short text."""
    with _get(url) as response:
        try:
            content = b""
            for chunk in response.iter_content(CHUNK):
                content += chunk
                if len(content) > _SMALL:
                    raise _too_long(url, _SMALL)
        except requests.RequestException as error:
            raise UserError(f"{url} broke off ({_reason(error)}); try again.") from error
    return content


def _get(
    url: str, headers: dict[str, str] | None = None, *, complete: bool = False
) -> requests.Response:
    """A response; with ``complete``, also 416 (the range asked for begins at the end)."""
    try:
        # Packed on the way, lengths and ranges would not be those of the file.
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        response = requests.get(url, headers=sent, stream=True, timeout=TIMEOUT)
        if not (complete and response.status_code == 416):
            response.raise_for_status()
    except requests.RequestException as error:
        raise Unreachable(url, _reason(error)) from error
    return response


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server says {error.response.status_code}"
    return type(error).__name__


def _digest(path: Path, state: hashlib._Hash) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: state).hexdigest()
