"""The film graph that ships: what is in it, whose it is, and ml-100k with it and without."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import pytest

from dataset_atomic import film_graph
from dataset_atomic.atomic import read_atomic
from dataset_atomic.convert import read_names
from dataset_atomic.describe import describe
from dataset_atomic.film_graph import __main__ as make
from dataset_atomic.ml_100k import FREEBASE, convert_ml_100k
from dataset_atomic.raw.links import read_links
from dataset_atomic.raw.stream import read_table
from dataset_atomic.raw.triples import _TSV
from ksr_recbole.errors import UserError
from tests.test_shipped_results import DIGESTS

FILES = (film_graph.KG, film_graph.LINK, film_graph.NAMES)


def test_it_is_small_named_and_dbpedias_alone():
    assert sum(path.stat().st_size for path in FILES) < 1_000_000
    kg, link = read_table(film_graph.KG, _TSV), read_links(film_graph.LINK)
    assert kg.height == 78_688 and link.frame.height == 2_925
    assert link.frame["item_id"].is_unique().all() and not link.contradicting
    assert set(kg["head_id"]) == set(link.frame["entity_id"])
    named = set(read_names(film_graph.NAMES)["entity_id"])
    assert {*kg["head_id"], *kg["tail_id"], *kg["relation_id"]} <= named
    assert all(r.startswith("dbo:") or r == "dct:subject" for r in kg["relation_id"].unique())
    ids = {*kg["head_id"], *kg["tail_id"]}
    assert not [e for e in ids if not e.startswith(("dbr:", "http://"))]


def test_its_licence_is_next_to_it():
    text = (Path(film_graph.__file__).parent / "LICENSE.md").read_text()
    for word in ("CC BY-SA 3.0", "DBpedia", "Wikipedia", "Changes"):
        assert word in text


@pytest.fixture(scope="module")
def ml_100k(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films") / "ml-100k"
    return folder, convert_ml_100k(folder)


def test_ml_100k_has_names_and_the_right_films(ml_100k):
    folder, report = ml_100k
    assert report.table1.line() == (
        "ml-100k: 86,759 interactions, 1,017 linked items, 943 users, 8,474 entities, "
        "13 relations, 31,736 triples"
    )
    link = dict(read_atomic(folder / "ml-100k.link", []).frame.iter_rows())
    assert link["50"] == "dbr:Star_Wars_(film)" and link["56"] == "dbr:Pulp_Fiction"
    lines = describe(folder)
    assert "entities without a name: 0 of 8,474" in lines
    lost = "11,906 of 100,000 raw interactions were with items without a link"
    assert f"graph: {film_graph.ORIGIN}; {lost}" in lines
    relation = read_atomic(folder / "ml-100k.relation", []).frame
    names = dict(relation.select("relation_id", "name").drop_nulls().iter_rows())
    assert names["dbo:cinematography"] == "cinematographer"


def test_genres_and_decades_are_the_users_own(ml_100k):
    folder, _ = ml_100k
    kg = read_atomic(folder / "ml-100k.kg", []).frame
    facts = {(r, t) for h, r, t in kg.iter_rows() if h == "dbr:Pulp_Fiction"}
    assert {("ml:genre", "ml:genre/Crime"), ("ml:decade", "ml:decade/1990s")} <= facts


def test_the_freebase_files_are_those_of_the_stored_cells(tmp_path):
    convert_ml_100k(tmp_path, FREEBASE)
    for suffix, digest in DIGESTS[FREEBASE].items():
        content = (tmp_path / f"{FREEBASE}.{suffix}").read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
    assert "Freebase" in (tmp_path / f"{FREEBASE}.origin").read_text()


def test_the_script_takes_dbpedias_triples_alone(tmp_path, monkeypatch):
    rows = {
        "kg": (
            "head_id:token\trelation_id:token\ttail_id:token",
            "dbr:B\tdbo:director\tdbr:%22X%22\ndbr:B\tomdb:actor\tomdb:person/Y\n"
            "dbr:B\tml:genre\tml:genre/War\ndbr:C\tml:genre\tml:genre/War",
        ),
        "link": ("item_id:token\tentity_id:token", "10\tdbr:B\n9\tdbr:C"),
        "entity": ("entity_id:token\tname:token_seq", "dbr:%22X%22\t%22X%22\ndbr:B\tB"),
    }
    for suffix, (header, lines) in rows.items():
        (tmp_path / f"ml-1m.{suffix}").write_text(f"{header}\n{lines}\n")
    for name in ("KG", "LINK", "NAMES"):
        monkeypatch.setattr(make, name, tmp_path / f"{name}.gz")
    assert make.main([str(tmp_path)]) == 0
    first = (tmp_path / "KG.gz").read_bytes()
    assert make.main([str(tmp_path)]) == 0 and (tmp_path / "KG.gz").read_bytes() == first
    assert read_table(tmp_path / "KG.gz", _TSV).rows() == [("dbr:B", "dbo:director", "dbr:%22X%22")]
    assert read_links(tmp_path / "LINK.gz").frame.rows() == [("10", "dbr:B")]
    assert ("dbr:%22X%22", "'X'") in read_names(tmp_path / "NAMES.gz").rows()
    (tmp_path / "ml-1m.kg").write_text(f"{rows['kg'][0]}\ndbr:B\tdbo:new\tdbr:C\n")
    with pytest.raises(UserError, match="dbo:new"):
        make.make(tmp_path)


def test_help_and_mistakes_of_the_command(tmp_path, capsys):
    assert make.main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m dataset_atomic.film_graph ")
    for arguments in ([], ["a", "b"], ["--folder=a"], [str(tmp_path / "none")]):
        assert make.main(arguments) == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_links_to_films_of_another_time_are_counted():
    films = {
        "1": ("dbr:Braveheart_(1925_film)", "1925", "1995"),
        "2": ("dbr:Hamlet_(1990_film)", "1991", "1990"),
        "3": ("dbr:Class_(1973_film)", None, "1983"),
        "4": ("dbr:The_Piano_Teacher_(film)", "2001", "1993"),
        "5": ("dbr:Heat", "1995", "1995"),
    }
    rows = [(film, *rest) for film, rest in films.items()]
    frame = pl.DataFrame(rows, ["item_id", "entity_id", "category", "release_year"], orient="row")
    kg = frame.drop_nulls().select(
        head_id="entity_id",
        relation_id=pl.lit("dct:subject"),
        tail_id="dbr:Category:" + pl.col("category") + "_films",
    )
    assert make.links_by_year(kg, frame.select("item_id", "entity_id"), frame) == (
        "links to a name with a year: 3, 2 of another time; by their categories 1 of these 2, "
        "0 of the other 1, and 1 of 2 links to a name without a year"
    )
