"""``python -m dataset_atomic fetch`` against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import os
import random
import tarfile
import threading
import warnings
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dataset_atomic import fetch as module
from dataset_atomic.archives import unpack
from dataset_atomic.cli import main
from dataset_atomic.fetch import download, fetch, git_blob_check
from dataset_atomic.sources import SOURCES
from ksr_recbole.errors import UserError

LIMIT = 1 << 20


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, text in files.items():
            file.writestr(f"ml-1m/{name}", text)
    return buffer.getvalue()


@pytest.fixture
def server():
    """``(address, files by path, requested ranges)`` of a server that can resume."""
    files: dict[str, bytes] = {}
    ranges: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, asked = files.get(self.path), self.headers.get("Range")
            if not self.path.endswith((".md5", "listing")):
                ranges.append(asked)
            if body is None:
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if asked and start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.end_headers()
                return
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if self.path.endswith(".html"):
                self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start:])

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}", files, ranges
    http.shutdown()
    http.server_close()


@pytest.fixture
def public(server, monkeypatch):
    """A server that has ml-1m and its link file, in place of GroupLens and GitHub."""
    address, files, _ = server
    archive = zipped(**{"ratings.dat": "1::2::3::4\n"})
    link = b"1\tm.01\n"
    blob = hashlib.sha1(f"blob {len(link)}\0".encode() + link).hexdigest()
    files["/ml-1m.zip"] = archive
    files["/ml-1m.zip.md5"] = f"MD5 (ml-1m.zip) = {hashlib.md5(archive).hexdigest()}\n".encode()
    files["/ml2fb.txt"] = link
    entry = f'{{"name": "ml2fb.txt", "sha": "{blob}", "download_url": "{address}/ml2fb.txt"}}'
    files["/listing"] = f"[{entry}]".encode()
    source = replace(SOURCES["ml-1m"], archive=f"{address}/ml-1m.zip", md5=None)
    monkeypatch.setitem(SOURCES, "ml-1m", source)
    monkeypatch.setattr(module, "KB4REC_LISTING", f"{address}/listing")
    return files


def test_fetch(public, server, tmp_path):
    lines = fetch("ml-1m", tmp_path, link=True)
    assert (tmp_path / "ml-1m" / "ratings.dat").read_text() == "1::2::3::4\n"
    assert (tmp_path / "ml2fb.txt").read_bytes() == public["/ml2fb.txt"]
    assert "MovieLens: for research" in lines[0]
    assert "convert ml-1m --raw" in lines[-1]
    requests = len(server[2])
    fetch("ml-1m", tmp_path, link=True)
    assert len(server[2]) == requests  # what is complete is not downloaded again


def test_an_interrupted_download_goes_on(server, tmp_path):
    address, files, ranges = server
    files["/big"] = bytes(range(256)) * 100
    (tmp_path / "big.part").write_bytes(files["/big"][:1000])
    download(f"{address}/big", tmp_path / "big", LIMIT)
    assert (tmp_path / "big").read_bytes() == files["/big"]
    assert ranges == ["bytes=1000-"]
    (tmp_path / "again.part").write_bytes(files["/big"])  # stopped before it was renamed
    download(f"{address}/big", tmp_path / "again", LIMIT)
    assert (tmp_path / "again").read_bytes() == files["/big"]


def test_a_wrong_checksum(server, tmp_path):
    address, files, _ = server
    files["/x"] = b"not what was published"
    with pytest.raises(UserError, match=r"checksum of .*/x does not fit"):
        download(f"{address}/x", tmp_path / "x", LIMIT, git_blob_check("0" * 40))
    assert not list(tmp_path.iterdir())


def test_a_damaged_archive(public, tmp_path):
    public["/ml-1m.zip"] = public["/ml-1m.zip"][:40]
    public["/ml-1m.zip.md5"] = hashlib.md5(public["/ml-1m.zip"]).hexdigest().encode()
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch("ml-1m", tmp_path, link=True)


def odd_zip(name: str = "ml-1m/ratings.dat", **changes) -> bytes:
    """An archive with one member, whose entry is changed afterwards."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        info = zipfile.ZipInfo(name)
        info.external_attr = changes.get("mode", 0o644) << 16
        info.compress_type = changes.get("method", zipfile.ZIP_DEFLATED)
        for _ in range(changes.get("times", 1)):
            with warnings.catch_warnings(action="ignore"):  # a name given twice
                file.writestr(info, changes.get("text", "1::2::3::4\n"))
    data = bytearray(buffer.getvalue())
    for signature, flags, method in ((b"PK\3\4", 6, 8), (b"PK\1\2", 8, 10)):
        start = data.index(signature)
        data[start + flags] |= changes.get("flags", 0)
        if "claimed_method" in changes:
            data[start + method] = changes["claimed_method"]
    return bytes(data[changes.get("start", 0) : changes.get("end")])


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        file.addfile(tarfile.TarInfo("ml-1m/ratings.dat"))
    return buffer.getvalue()


ODD_ARCHIVES = {
    "encrypted": (odd_zip(flags=1), "is encrypted"),
    "unknown method": (odd_zip(claimed_method=9), "compressed by method 9"),
    "lzma": (odd_zip(method=zipfile.ZIP_LZMA), "compressed by method 14"),
    "bomb": (odd_zip(text="0" * (1 << 21)), "of 2,097,152 bytes, and at most"),
    "absolute": (odd_zip("/tmp/evil"), "may lie elsewhere"),
    "above": (odd_zip("../evil"), "may lie elsewhere"),
    "above from below": (odd_zip("ml-1m/../../evil"), "may lie elsewhere"),
    "Windows": (odd_zip("C:\\evil"), "may lie elsewhere"),
    "hidden": (odd_zip(".ssh/config"), "is hidden"),
    "link": (odd_zip(mode=0o120777, text="/etc/passwd"), "is a link"),
    "twice": (odd_zip(times=2), "occurs twice"),
    "truncated": (odd_zip(end=-30), "File is not a zip file"),
    "start missing": (odd_zip(start=20), ""),
    "html": (b"<!doctype html><html>moved</html>", "File is not a zip file"),
    "tar": (tarred(), "File is not a zip file"),
    "empty": (b"", "File is not a zip file"),
}


@pytest.mark.parametrize("kind", ODD_ARCHIVES)
def test_an_odd_archive_is_one_sentence_and_nothing_is_written(kind, tmp_path):
    data, words = ODD_ARCHIVES[kind]
    (tmp_path / "raw").mkdir()
    archive = tmp_path / "raw" / "ml-1m.zip"
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"ml-1m\.zip cannot be unpacked: ") as error:
        unpack(archive, LIMIT)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["raw", "ml-1m.zip"]


def test_a_damaged_archive_is_refused_or_unpacks_to_what_was_packed(tmp_path):
    text = "".join(f"{n}::{n}::3::4\n" for n in range(50))
    whole, rng, refused = odd_zip(text=text), random.Random(0), 0
    for number in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        folder = tmp_path / str(number) / "raw"
        folder.mkdir(parents=True)
        archive = folder / "a.zip"
        archive.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        wanted = {archive: archive.read_bytes()}
        try:
            unpack(archive, LIMIT)
            wanted[folder / "ml-1m" / "ratings.dat"] = text.encode()
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
        found = {file: file.read_bytes() for file in folder.parent.rglob("*") if file.is_file()}
        assert found == wanted, number
    assert 0 < refused < 300


def test_what_a_server_sends_has_an_end(server, public, tmp_path):
    address, files, _ = server
    files["/big"] = bytes(LIMIT + 1)
    with pytest.raises(UserError, match=r"/big is longer than 1,048,576 bytes"):
        download(f"{address}/big", tmp_path / "big", LIMIT)
    files["/page.html"] = b"<html>"
    with pytest.raises(UserError, match="is a web page instead of page"):
        download(f"{address}/page.html", tmp_path / "page", LIMIT)
    assert not list(tmp_path.glob("*"))
    for odd in (b"{}", b"[1, null]", b'[{"name": "ml2fb.txt", "download_url": "file:///x"}]', b"<"):
        files["/listing"] = odd
        with pytest.raises(UserError, match=r"listing (lists no|gives no address|is no list)"):
            fetch("ml-1m", tmp_path, link=True)
    files["/listing"] = b"[" + b" " * (1 << 21)
    with pytest.raises(UserError, match=r"listing is longer than 1,048,576 bytes"):
        fetch("ml-1m", tmp_path, link=True)


def test_a_longer_part_is_of_another_file(server, tmp_path):
    address, files, _ = server
    files["/x"] = b"short"
    (tmp_path / "x.part").write_bytes(b"longer than that")
    with pytest.raises(UserError, match="so it was another file"):
        download(f"{address}/x", tmp_path / "x", LIMIT)
    download(f"{address}/x", tmp_path / "x", LIMIT)
    assert (tmp_path / "x").read_bytes() == b"short"


def test_a_place_that_is_taken(server, tmp_path):
    address, files, _ = server
    files["/x"] = b"short"
    os.mkfifo(tmp_path / "x")
    with pytest.raises(UserError, match="it is a named pipe, not a file"):
        download(f"{address}/x", tmp_path / "x", LIMIT)
    (tmp_path / "y.part").mkdir()
    with pytest.raises(UserError, match="it is a folder, not a file"):
        download(f"{address}/x", tmp_path / "y", LIMIT)


def test_errors_are_one_sentence(server, public, tmp_path, capsys, monkeypatch):
    del public["/ml-1m.zip.md5"]
    assert main(["fetch", "ml-1m", "--link", "--raw", str(tmp_path)]) == 2
    assert "the server says 404" in capsys.readouterr().err
    source = replace(SOURCES["ml-1m"], archive="http://127.0.0.1:9/ml-1m.zip")
    monkeypatch.setitem(SOURCES, "ml-1m", source)
    assert main(["fetch", "ml-1m", "--link", "--raw", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: Cannot download http://127.0.0.1:9/ml-1m.zip.md5")
    assert error.count("\n") == 1 and "check the network" in error
    assert main(["fetch", "ml-9m", "--raw", str(tmp_path)]) == 2
    assert "There is nothing to fetch for 'ml-9m'" in capsys.readouterr().err
