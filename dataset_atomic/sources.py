"""The public datasets: what their raw files are called, look like, and come from.

Nothing raw is in this repository; :attr:`Source.licence` says what the owners ask for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import polars as pl

from dataset_atomic.atomic import AtomicTable, read_atomic
from dataset_atomic.raw.interactions import Period
from dataset_atomic.raw.stream import TextFormat, read_table
from ksr_recbole.errors import UserError
from ksr_recbole.one_step import finish_steps

GROUPLENS = "https://files.grouplens.org/datasets/movielens"
KB4REC = "https://github.com/RUCDM/KB4Rec"
RECBOLE_KG = "https://github.com/RUCAIBox/RecSysDatasets (KGDatasets)"
FREEBASE_DUMP = (
    "https://commondatastorage.googleapis.com/freebase-public/rdf/freebase-rdf-latest.gz"
)
FREEBASE_BYTES = 1 << 36
"""More than the dump has (32 GB)."""

ARCHIVES = {
    "ml-100k": (f"{GROUPLENS}/ml-100k.zip", "0e33842e24a9c977be4e0107933c0723"),
    "ml-1m": (f"{GROUPLENS}/ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906"),
    "ml-10m": (f"{GROUPLENS}/ml-10m.zip", "ce571fd55effeba0271552578f2648bd"),
    "ml-20m": (f"{GROUPLENS}/ml-20m.zip", "cd245b17a1ae2cc31bb14903e1204af3"),
    "ml-25m": (f"{GROUPLENS}/ml-25m.zip", "6b51fb2759a8657d3bfcbfc42b592ada"),
    "ml-32m": (f"{GROUPLENS}/ml-32m.zip", "d472be332d4daa821edc399621853b57"),
    "ml-latest-small": (f"{GROUPLENS}/ml-latest-small.zip", None),
    "ml-latest": (f"{GROUPLENS}/ml-latest.zip", None),
}
"""MovieLens's archives and the md5 that GroupLens publishes of each.

The last two are made anew from time to time, so that theirs is read where it is published, in
``<address>.md5``.
"""

MOVIELENS_LICENCE = (
    "MovieLens: for research, no redistribution without permission, no commercial use without "
    "permission; cite Harper and Konstan 2015 (doi 10.1145/2827872)"
)
KB4REC_LICENCE = (
    "KB4Rec: non-commercial use, no redistribution; cite Zhao et al. 2019 "
    "(doi 10.1162/dint_a_00008)"
)


@dataclass(frozen=True)
class Source:
    """A public dataset.

    Attributes:
        name: of the dataset, its folder and its atomic files.
        ratings: names under which the file of interactions may lie in the raw folder.
        layout: of that file.
        items: makes the ``.item`` table from the raw folder, ``None`` without the files.
        k_core: of the paper (Sec. 5.1).
        period: of the paper (Sec. 5.1).
        download: what to get from where by hand.
        archive: what ``fetch`` downloads and unpacks, if it can.
        md5: of the archive; ``None`` if it is published with the archive only, or nowhere.
        films: whether its item ids are MovieLens's, so that the film graph that ships suits it.
        max_bytes: more than the archive has, and more than it unpacks to; the public ones have
            less than half.
        link: KB4Rec's file that ``fetch`` downloads and that is looked for in the raw folder.
        kg: names of knowledge graphs that are looked for in the raw folder.
        licence: what the owners of the data ask for.
    """

    name: str
    ratings: tuple[str, ...]
    layout: TextFormat
    items: Callable[[Path], AtomicTable | None]
    download: str
    licence: str
    link: str
    kg: tuple[str, ...] = ()
    k_core: int = 10
    period: Period = field(default_factory=Period)
    archive: str | None = None
    md5: str | None = None
    films: bool = False
    max_bytes: int = 1 << 26

    def ratings_file(self, folder: Path) -> tuple[Path, TextFormat]:
        """The file of interactions in the raw folder, or in a folder in it, and its layout.

        RecBole's own ``<name>.inter`` serves too, where the raw file is missing.

        Raises:
            UserError: there is none.
        """
        if not folder.is_dir():
            raise UserError(f"The raw folder {folder} does not exist; give it with --raw=FOLDER.")
        for where in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            self.finish_unpacking(where)  # of a `fetch` that was killed
        if found := find_in(folder, self.ratings):
            return found, self.layout
        found = find_in(folder, (f"{self.name}.inter",))
        if found is None:
            held = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
            raise UserError(
                f"{folder} holds no {' or '.join(self.ratings)} (but {held}); expected the raw "
                f"files of {self.name}: {self.download}."
            )
        return found, INTER

    def finish_unpacking(self, folder: Path) -> None:
        """Do what a killed command left to do in a folder of raw files.

        An archive has files of any name, which are unpacked where there are none of these names.

        Raises:
            UserError: it cannot be done.
        """
        known = (*self.ratings, self.link)
        finish_steps(folder, lambda name: name in known or not os.path.lexists(folder / name))

    def item_table(self, folder: Path) -> AtomicTable | None:
        """The ``.item`` table of the raw folder, or RecBole's own; ``None`` without files."""
        table = self.items(folder)
        found = find_in(folder, (f"{self.name}.item",)) if table is None else None
        return table if found is None else read_atomic(found, {"item_id": "token"})


_NO_GENRES = "(no genres listed)"
"""What MovieLens has in the place of genres."""


def find_in(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of some names in a folder or one level below it."""
    for name in names:
        for path in (folder / name, *sorted(folder.glob(f"*/{name}"))):
            if path.exists():
                return path
    return None


def movie_table(frame: pl.DataFrame) -> AtomicTable:
    """``item_id``, ``movie_title``, ``release_year`` and ``genre`` from a title with its year.

    Args:
        frame: ``item_id``, ``title`` such as ``Alien (1979)``, and ``genre`` with ``|`` between.
    """
    title = pl.col("title").str.strip_chars()
    year = title.str.extract(r"\((\d{4})[^()]*\)$")
    genre = pl.col("genre").replace(_NO_GENRES, None)
    table = frame.select(
        "item_id",
        movie_title=title.str.replace(r"\s*\(\d{4}[^()]*\)$", ""),
        release_year=year,
        genre=genre.str.replace_all("|", " ", literal=True),
    )
    types = ("token", "token_seq", "token", "token_seq")
    return AtomicTable(table, dict(zip(table.columns, types, strict=True)))


def movie_facts(items: pl.DataFrame) -> pl.DataFrame:
    """Genres and decades of films, as facts (:data:`dataset_atomic.sources.FACT`).

    Args:
        items: ``item_id``, and what there is of ``release_year`` and of genres separated by
            blanks in ``genre`` (``class`` in RecBole's ml-100k).
    """
    genre = next((name for name in ("genre", "class") if name in items.columns), None)
    facts = []
    if genre is not None:
        listed = pl.col(genre).replace(_NO_GENRES, None).str.split(" ").list.sort()
        names = items.select("item_id", name=listed).explode("name")
        facts.append(names.with_columns(relation_id=pl.lit("ml:genre")))
    if "release_year" in items.columns:
        decade = pl.col("release_year").str.extract(r"^(\d{3})\d$") + "0s"
        names = items.select("item_id", name=decade)
        facts.append(names.with_columns(relation_id=pl.lit("ml:decade")))
    if not facts:
        return pl.DataFrame(schema=FACT)
    known = pl.concat(facts).filter(pl.col("name").str.len_chars() > 0)
    return known.with_columns(tail_id=pl.col("relation_id") + "/" + pl.col("name")).select(*FACT)


def _movies_dat(folder: Path, encoding: str = "latin-1") -> AtomicTable | None:
    path = find_in(folder, ("movies.dat",))
    layout = TextFormat(("item_id", "title", "genre"), separator="::", encoding=encoding)
    return None if path is None else movie_table(read_table(path, layout))


def _movies_csv(folder: Path) -> AtomicTable | None:
    path = find_in(folder, ("movies.csv",))
    columns = {"movieId": "item_id", "title": "title", "genres": "genre"}
    layout = TextFormat(columns, separator=",", quoted=True, header=True)
    return None if path is None else movie_table(read_table(path, layout))


def _tracks(folder: Path) -> AtomicTable | None:
    path = find_in(folder, ("LFM-1b_tracks.txt", "LFM-1b_tracks.txt.gz"))
    if path is None:
        return None
    layout = TextFormat(("item_id", "title", "artist_id"), optional=frozenset(["title"]))
    tracks, types = read_table(path, layout), {"item_id": "token", "title": "token_seq"}
    artists = find_in(folder, ("LFM-1b_artists.txt", "LFM-1b_artists.txt.gz"))
    if artists is not None:
        layout = TextFormat(("artist_id", "artist"), optional=frozenset(["artist"]))
        names = read_table(artists, layout).unique("artist_id", keep="first")
        tracks = tracks.join(names, on="artist_id", how="left", maintain_order="left")
        types["artist"] = "token_seq"
    return AtomicTable(tracks.select(*types), types)


def _no_items(folder: Path) -> AtomicTable | None:
    return None


FACT = dict.fromkeys(("item_id", "relation_id", "tail_id", "name"), pl.String)
"""Columns of facts: an item, a relation, the entity that it has there, and that entity's name."""

INTER = TextFormat(
    {
        "user_id:token": "user_id",
        "item_id:token": "item_id",
        "rating:float": "rating",
        "timestamp:float": "timestamp",
    },
    header=True,
)
"""The layout of the files of MovieLens that RecBole gives."""

_RATINGS_CSV = TextFormat(
    {"userId": "user_id", "movieId": "item_id", "rating": "rating", "timestamp": "timestamp"},
    separator=",",
    quoted=True,
    header=True,
)
_PLAIN = ("user_id", "item_id", "rating", "timestamp")


def _movielens(name: str, **others: object) -> Source:
    given: dict = {
        "ratings": ("ratings.csv", "ratings.csv.gz"),
        "layout": _RATINGS_CSV,
        "items": _movies_csv,
        "download": ARCHIVES[name][0],
        "archive": ARCHIVES[name][0],
        "md5": ARCHIVES[name][1],
        "films": True,
        "licence": MOVIELENS_LICENCE,
        "link": "ml2fb.txt",
        "kg": ("MovieLens-KG", "freebase-rdf-latest.gz"),
    }
    return Source(name=name, **(given | others))


SOURCES = {
    source.name: source
    for source in (
        _movielens("ml-100k", ratings=("u.data",), layout=TextFormat(_PLAIN), items=_no_items),
        _movielens(
            "ml-1m",
            ratings=("ratings.dat",),
            layout=TextFormat(_PLAIN, separator="::"),
            max_bytes=1 << 27,
            items=_movies_dat,
        ),
        _movielens(
            "ml-10m",
            ratings=("ratings.dat",),
            layout=TextFormat(_PLAIN, separator="::"),
            max_bytes=1 << 30,
            items=partial(_movies_dat, encoding="utf-8"),
        ),
        _movielens("ml-20m", max_bytes=1 << 31, period=Period(first_year=2005, last_year=2015)),
        _movielens("ml-25m", max_bytes=1 << 32),
        _movielens("ml-32m", max_bytes=1 << 32),
        _movielens("ml-latest-small"),
        _movielens("ml-latest", max_bytes=1 << 32),
        Source(
            name="lfm-1b",
            ratings=("LFM-1b_LEs.txt", "LFM-1b_LEs.txt.gz"),
            layout=TextFormat(("user_id", "artist_id", "album_id", "item_id", "timestamp")),
            items=_tracks,
            download="LFM-1b.zip from http://www.cp.jku.at/datasets/LFM-1b (on request)",
            licence="LFM-1b: for research; cite Schedl 2016",
            link="lfb2fb.txt",
            kg=("LFM-1b-KG", "freebase-rdf-latest.gz"),
            period=Period(last_days=365),
        ),
        Source(
            name="amazon-book",
            ratings=("ratings_Books.csv", "ratings_Books.csv.gz"),
            layout=TextFormat(_PLAIN, separator=",", quoted=True),
            items=_no_items,
            download="http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
            "ratings_Books.csv",
            archive="http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
            "ratings_Books.csv",
            max_bytes=1 << 32,
            licence="Amazon: for research; cite He and McAuley 2016",
            link="ab2fb.txt",
            kg=("Amazon-book-KG", "freebase-rdf-latest.gz"),
            k_core=3,
        ),
    )
}
"""The datasets by name: eight of MovieLens, LFM-1b and Amazon-book."""


def how_to_get(name: str) -> str:
    """What to download from where and which command converts it, in one sentence."""
    source = SOURCES[name]
    fetch = f" (or run `python -m dataset_atomic fetch {name} --raw raw/{name}`)"
    return (
        f"download {source.download} and {source.link} from {KB4REC}"
        f"{fetch if source.archive else ''} and a knowledge graph, such as {source.kg[0]} from "
        f"{RECBOLE_KG} or {FREEBASE_DUMP}, all into raw/{name}/, then run "
        f"`python -m dataset_atomic convert {name} --raw raw/{name}`"
    )
