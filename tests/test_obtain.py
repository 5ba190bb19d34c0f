"""``run_recbole.py --dataset=ml-1m`` from nothing, against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dataset_atomic import fetch, film_graph, obtain
from dataset_atomic.atomic import read_atomic
from dataset_atomic.obtain import downloadable
from dataset_atomic.raw.links import read_links
from dataset_atomic.sources import ARCHIVES, SOURCES
from ksr_recbole.errors import UserError

NAMES = ["ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest-small"]
FOLDERS = {"ml-10m": "ml-10M100K"}
FILMS = read_links(film_graph.LINK).frame["item_id"].to_list()[:14]


def archive(name: str) -> bytes:
    """An archive as GroupLens has it: of 12 users with 15 films, one of which has no entity."""
    films = [*FILMS, "999999"]
    rows = [(u, i, 4, 1_300_000_000 + 7 * u + k) for u in range(12) for k, i in enumerate(films)]
    titles = [(i, f"Café {i}, The (199{k % 10})") for k, i in enumerate(films)]
    dat = name in ("ml-1m", "ml-10m")
    if dat:
        ratings = ["::".join(map(str, row)) for row in rows]
        movies = [f"{i}::{title}::Drama|War" for i, title in titles]
    else:
        ratings = ["userId,movieId,rating,timestamp", *(",".join(map(str, row)) for row in rows)]
        movies = ["movieId,title,genres", *(f'{i},"{title}",Drama|War' for i, title in titles)]
    buffer = io.BytesIO()
    suffix, folder = "dat" if dat else "csv", FOLDERS.get(name, name)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for kind, lines in (("ratings", ratings), ("movies", movies)):
            text = "".join(f"{line}\n" for line in lines)
            content = text.encode("latin-1" if name == "ml-1m" else "utf-8")
            file.writestr(f"{folder}/{kind}.{suffix}", content)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves ``files``; of a path in ``cut``, only so many bytes before it hangs up.

    With ``packed`` it says that they are packed for the way.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.packed = False


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        part = self.headers.get("Range")
        self.server.asked.append((self.path, part))
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        assert self.headers["Accept-Encoding"] == "identity"  # else no length is the file's
        start = int(part.removeprefix("bytes=").rstrip("-")) if part else 0
        if start >= len(body):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        if self.server.packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body[start : self.server.cut.get(self.path, len(body))])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server in GroupLens's place, and an empty machine: no raw files, no datasets."""
    http = Server()
    threading.Thread(target=http.serve_forever, daemon=True).start()
    for name in NAMES:
        content = archive(name)
        http.files[f"/{name}.zip"] = content
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        http.files[f"/{name}.zip.md5"] = f"MD5 ({name}.zip) = {md5}\n".encode()
        source = SOURCES[name]
        address = f"http://127.0.0.1:{http.server_port}/{name}.zip"
        known = md5 if source.md5 else None
        monkeypatch.setitem(SOURCES, name, replace(source, archive=address, md5=known))
    monkeypatch.setattr(obtain, "DATASETS", tmp_path / "dataset_atomic")
    monkeypatch.chdir(tmp_path)
    yield http
    http.shutdown()
    http.server_close()


def get(name: str, download: bool = True) -> list[str]:
    """Obtain a dataset; the lines it said."""
    said: list[str] = []
    out = Path("dataset_atomic") / name
    places = obtain.usual_places(name)
    report = obtain.obtain(name, out, places, download=download, say=said.append)
    assert report.table1.interactions == 12 * len(FILMS)
    assert report.table1.linked_items == len(FILMS)
    return said


@pytest.mark.parametrize("name", NAMES)
def test_from_nothing_to_named_atomic_files(server, name):
    said = get(name)
    assert said[0].startswith("MovieLens: for research") and "CC BY-SA" in said[1]
    folder = Path("dataset_atomic") / name
    entities = read_atomic(folder / f"{name}.entity", []).frame
    graph = read_atomic(folder / f"{name}.kg", []).frame
    ends = set(graph["head_id"]) | set(graph["tail_id"])
    assert ends == set(entities["entity_id"])
    assert {"ml:genre", "ml:decade", "dbo:director"} <= set(graph["relation_id"])
    titles = read_atomic(folder / f"{name}.item", []).frame
    assert titles["movie_title"][0].startswith("Café")
    requests = len(server.asked)
    (folder / f"{name}.inter").unlink()
    get(name, download=False)  # the raw files are there: nothing is asked of the server
    assert len(server.asked) == requests


def test_every_address_and_md5_is_in_one_table():
    assert set(NAMES) <= set(ARCHIVES) and set(NAMES) <= set(downloadable())
    for name, (address, md5) in ARCHIVES.items():
        assert address == f"https://files.grouplens.org/datasets/movielens/{name}.zip"
        assert (md5 is None) == name.startswith("ml-latest")


def test_half_a_download_goes_on(server, monkeypatch):
    monkeypatch.setattr(fetch, "CHUNK", 100)  # what has come in full is kept
    server.cut["/ml-1m.zip"] = 500
    with pytest.raises(UserError, match="broke off"):
        get("ml-1m")
    assert not Path("dataset_atomic/ml-1m").exists()
    server.cut.clear()
    get("ml-1m")
    assert server.asked[-1] == ("/ml-1m.zip", "bytes=500-")


def test_a_server_that_does_not_say_how_long_the_file_is(server, tmp_path):
    [name, *_] = NAMES
    address, target = f"http://127.0.0.1:{server.server_port}/{name}.zip", tmp_path / "x.zip"
    (tmp_path / "x.zip.part").write_bytes(server.files[f"/{name}.zip"])
    with pytest.raises(UserError, match=r"x\.zip\.part may be a part of it or all of it; delete"):
        fetch.download(address, target, 1 << 20)
    assert not target.exists()


def test_a_server_that_packs_what_it_sends(server, tmp_path):
    [name, *_] = NAMES
    server.packed = True
    address = f"http://127.0.0.1:{server.server_port}/{name}.zip"
    with pytest.raises(UserError, match=r"was sent packed \(gzip\), so that it could not"):
        fetch.download(address, tmp_path / "x.zip", 1 << 20)
    assert not list(tmp_path.glob("x.zip*"))


@pytest.mark.parametrize("place", ["raw/ml-1m", "dataset/ml-1m", "dataset_atomic/ml-1m"])
@pytest.mark.parametrize("packed", [True, False])
def test_raw_files_that_lie_here_are_used(server, place, packed):
    folder = Path(place)
    folder.mkdir(parents=True)
    if packed:
        (folder / "ml-1m.zip").write_bytes(server.files["/ml-1m.zip"])
    else:
        zipfile.ZipFile(io.BytesIO(server.files["/ml-1m.zip"])).extractall(folder)
    get("ml-1m", download=False)
    assert not server.asked


def test_recboles_own_files_are_used(server):
    folder = Path("dataset/ml-1m")
    folder.mkdir(parents=True)
    rows = [f"{u}\t{i}\t4\t{9 * u + k}" for u in range(12) for k, i in enumerate(FILMS)]
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (folder / "ml-1m.inter").write_text("\n".join([header, *rows]) + "\n")
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq"
    titles = [f"{i}\tFilm {i}\t1994\tDrama War" for i in FILMS]
    (folder / "ml-1m.item").write_text("\n".join([header, *titles]) + "\n")
    get("ml-1m", download=False)
    graph = read_atomic("dataset_atomic/ml-1m/ml-1m.kg", []).frame
    assert {"ml:genre/Drama", "ml:genre/War", "ml:decade/1990s"} <= set(graph["tail_id"])


def refusal(download: bool = True) -> str:
    with pytest.raises(UserError) as raised:
        get("ml-1m", download)
    assert not Path("dataset_atomic/ml-1m/ml-1m.inter").exists()
    return str(raised.value)


def test_without_a_network_one_sentence_has_the_address_and_the_command(server):
    address = SOURCES["ml-1m"].archive
    for sentence in (refusal(download=False), refusal_without_server(server)):
        assert sentence.count("http://") == 1 and address in sentence
        assert sentence.count("run_recbole.py --dataset=ml-1m") == 1
        assert len(sentence.replace(str(Path.cwd()), "")) <= 3 * 80


def refusal_without_server(server: Server) -> str:
    server.shutdown()
    server.server_close()
    return refusal()


def test_a_page_of_a_proxy_or_another_archive_is_refused_and_removed(server):
    right = server.files["/ml-1m.zip"]
    server.files["/ml-1m.zip"] = b"<html>Please log in</html>"
    assert "web page" in refusal()
    server.files["/ml-1m.zip"] = right + b"more"
    assert "checksum" in refusal()
    assert not list(Path("raw/ml-1m").glob("ml-1m*"))
    server.files["/ml-1m.zip"] = right
    get("ml-1m")


def test_an_archive_here_that_is_another_one_is_refused(server):
    folder = Path("raw/ml-1m")
    folder.mkdir(parents=True)
    (folder / "ml-1m.zip").write_bytes(server.files["/ml-1m.zip"][:-10])
    sentence = refusal()
    assert "raw/ml-1m/ml-1m.zip" in sentence and "delete it" in sentence


def test_no_room(server, monkeypatch):
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda p, *a, **k: Full() if p.suffix == ".part" else opened(p, *a, **k)
    )
    assert "make room" in refusal()
