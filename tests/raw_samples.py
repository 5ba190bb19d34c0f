"""Small raw files of every format, generated; the same few films and triples in each."""

from __future__ import annotations

import gzip
from pathlib import Path

N_USERS, N_ITEMS = 12, 6
START = 1_300_000_000  # 2011
FREEBASE = "<http://rdf.freebase.com/ns/"

# Item 6 has no entity; item 5 shares that of item 4.
LINKS = [("1", "m.01"), ("2", "m.02"), ("3", "m.03"), ("4", "m.04"), ("5", "m.04")]
TRIPLES = [
    *((f"m.0{k}", "film.film.directed_by", f"m.d{k % 2}") for k in range(1, 5)),
    *((f"m.0{k}", "film.film.genre", f"m.g{k % 3}") for k in range(1, 5)),
    *((f"m.d{k % 2}", "film.director.film", f"m.0{k}") for k in range(1, 5)),
    ("m.d0", "people.person.nationality", "m.usa"),  # a second step
    ("m.zz", "film.film.genre", "m.g9"),  # out of reach
]
NAMES = {"m.01": "Alien", "m.d0": 'R. "Rid" Scott', "m.g0": "Épouvante"}


def ratings() -> list[tuple[str, str, str, int]]:
    """``user, item, rating, seconds``: everyone likes everything, in an order of their own."""
    return [
        (f"{u}", f"{i}", "4", START + 86_400 * ((u * 7 + i * 5) % 11) + u)
        for u in range(1, N_USERS + 1)
        for i in range(1, N_ITEMS + 1)
    ]


def write(path: Path, lines: list[str], encoding: str = "utf-8") -> Path:
    """A text file, in a folder made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """What the files of a folder hold, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_raw(name: str, folder: Path) -> Path:
    """The raw files of a dataset (without links and graph)."""
    rows = ratings()
    titles = [(f"{i}", f"Café {i}, The (199{i})") for i in range(1, N_ITEMS + 1)]
    if name == "ml-1m":
        write(folder / "ratings.dat", ["::".join(map(str, row)) for row in rows])
        movies = [f"{i}::{title}::Drama|War" for i, title in titles]
        write(folder / "movies.dat", movies, "latin-1")
    elif name in ("ml-20m", "ml-latest-small"):
        lines = [",".join(map(str, row)) for row in rows]
        write(folder / "ratings.csv", ["userId,movieId,rating,timestamp", *lines])
        movies = [f'{i},"{title}",Drama|War' for i, title in titles]
        write(folder / "movies.csv", ["movieId,title,genres", *movies])
    elif name == "lfm-1b":
        lines = [f"{u}\t9\t8\t{i}\t{t}" for u, i, _, t in rows]
        write(folder / "LFM-1b_LEs.txt", lines)
        write(folder / "LFM-1b_tracks.txt", [f"{i}\tSong {i}\t9" for i, _ in titles])
        write(folder / "LFM-1b_artists.txt", ["9\tThe Band"])
    elif name == "amazon-book":
        write(folder / "ratings_Books.csv", [",".join(map(str, row)) for row in rows])
    return folder


def write_links(path: Path, links: list[tuple[str, str]] = LINKS) -> Path:
    """A link file as KB4Rec's."""
    return write(path, [f"{item}\t{entity}" for item, entity in links])


def freebase_lines() -> list[str]:
    """The triples as a Freebase dump, with names, types and literals among them."""
    lines = [f"{FREEBASE}{h}>\t{FREEBASE}{r}>\t{FREEBASE}{t}>\t." for h, r, t in TRIPLES]
    for entity, name in NAMES.items():
        text = name.replace('"', '\\"').replace("É", "\\u00C9")
        lines.append(f'{FREEBASE}{entity}>\t{FREEBASE}type.object.name>\t"Fremd"@de\t.')
        lines.append(f'{FREEBASE}{entity}>\t{FREEBASE}type.object.name>\t"{text}"@en\t.')
    lines.append(f"{FREEBASE}m.01>\t{FREEBASE}type.object.type>\t{FREEBASE}film.film>\t.")
    lines.append(f'{FREEBASE}m.01>\t{FREEBASE}film.film.runtime>\t"117"\t.')
    return lines


def write_graph(kind: str, folder: Path) -> Path:
    """The triples in one of the formats."""
    tabs = ["\t".join(triple) for triple in TRIPLES]
    if kind == "freebase.gz":
        path = folder / "dump.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress("".join(f"{x}\n" for x in freebase_lines()).encode()))
        return path
    if kind == "ntriples":
        spaced = [line.replace("\t", " ") for line in freebase_lines()]
        return write(folder / "dump.nt", ["# a comment", *spaced[:3], "", *spaced[3:]])
    if kind == "tsv":
        return write(folder / "triples.tsv", tabs)
    if kind == "atomic":
        return write(folder / "a.kg", ["head_id:token\trelation_id:token\ttail_id:token", *tabs])
    hop1 = [line for line in tabs if "m.0" in line]
    write(folder / "KG" / "hop1.kg", hop1)
    write(folder / "KG" / "hop2.kg", [line for line in tabs if line not in hop1])
    write(folder / "KG" / "extra.kg", ["m.01\tnever.listed\tm.02"])
    write(folder / "KG" / "relation.kg", sorted({relation for _, relation, _ in TRIPLES}))
    write_links(folder / "KG" / "link.kg")
    return folder / "KG"
