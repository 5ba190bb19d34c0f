"""``python -m dataset_atomic fetch`` against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dataset_atomic import fetch as module
from dataset_atomic.cli import main
from dataset_atomic.fetch import download, fetch, git_blob_check
from dataset_atomic.sources import SOURCES
from ksr_recbole.errors import UserError


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
                self.send_error(416)
                return
            self.send_response(206 if asked else 200)
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
    source = replace(SOURCES["ml-1m"], archive=f"{address}/ml-1m.zip")
    monkeypatch.setitem(SOURCES, "ml-1m", source)
    monkeypatch.setattr(module, "KB4REC_LISTING", f"{address}/listing")
    return files


def test_fetch(public, server, tmp_path):
    lines = fetch("ml-1m", tmp_path)
    assert (tmp_path / "ml-1m" / "ratings.dat").read_text() == "1::2::3::4\n"
    assert (tmp_path / "ml2fb.txt").read_bytes() == public["/ml2fb.txt"]
    assert "MovieLens: for research" in lines[0]
    assert "convert ml-1m --raw" in lines[-1]
    requests = len(server[2])
    fetch("ml-1m", tmp_path)
    assert len(server[2]) == requests  # what is complete is not downloaded again


def test_an_interrupted_download_goes_on(server, tmp_path):
    address, files, ranges = server
    files["/big"] = bytes(range(256)) * 100
    (tmp_path / "big.part").write_bytes(files["/big"][:1000])
    download(f"{address}/big", tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == files["/big"]
    assert ranges == ["bytes=1000-"]
    (tmp_path / "again.part").write_bytes(files["/big"])  # stopped before it was renamed
    download(f"{address}/big", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == files["/big"]


def test_a_wrong_checksum(server, tmp_path):
    address, files, _ = server
    files["/x"] = b"not what was published"
    with pytest.raises(UserError, match=r"checksum of .*/x does not fit"):
        download(f"{address}/x", tmp_path / "x", git_blob_check("0" * 40))
    assert not list(tmp_path.iterdir())


def test_a_damaged_archive(public, tmp_path):
    public["/ml-1m.zip"] = public["/ml-1m.zip"][:40]
    public["/ml-1m.zip.md5"] = hashlib.md5(public["/ml-1m.zip"]).hexdigest().encode()
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch("ml-1m", tmp_path)


def test_errors_are_one_sentence(server, public, tmp_path, capsys, monkeypatch):
    del public["/ml-1m.zip.md5"]
    assert main(["fetch", "ml-1m", "--raw", str(tmp_path)]) == 2
    assert "the server says 404" in capsys.readouterr().err
    source = replace(SOURCES["ml-1m"], archive="http://127.0.0.1:9/ml-1m.zip")
    monkeypatch.setitem(SOURCES, "ml-1m", source)
    assert main(["fetch", "ml-1m", "--raw", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: Cannot download http://127.0.0.1:9/ml-1m.zip.md5")
    assert error.count("\n") == 1 and "check the network" in error
    assert main(["fetch", "ml-9m", "--raw", str(tmp_path)]) == 2
    assert "There is nothing to fetch for 'ml-9m'" in capsys.readouterr().err
