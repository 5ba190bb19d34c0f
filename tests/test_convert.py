"""``python -m dataset_atomic convert`` and ``describe`` on small raw files of every format."""

from __future__ import annotations

import csv
import os
import re
import signal
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_atomic import lines, table1
from dataset_atomic.atomic import read_atomic
from dataset_atomic.cli import main
from dataset_atomic.convert import read_names
from dataset_atomic.layout import KEYS
from dataset_atomic.raw.interactions import DAY, Period, read_interactions
from dataset_atomic.raw.iris import expand, shorten
from dataset_atomic.raw.links import read_links
from dataset_atomic.raw.stream import TextFormat, read_blocks, read_table
from dataset_atomic.raw.timestamps import TimestampReader
from dataset_atomic.raw.triples import NameSpool, scan_triples
from ksr_recbole.errors import UserError
from tests.raw_samples import (
    FREEBASE,
    LINKS,
    NAMES,
    START,
    TRIPLES,
    contents,
    freebase_lines,
    ratings,
    write,
    write_graph,
    write_links,
    write_raw,
)

SHARED_ML_1M = Path(__file__).resolve().parents[2] / "shared" / "data" / "ml-1m"

LINKED = {item for item, _ in LINKS}
NEAR = [t for t in TRIPLES if t[0].startswith("m.0") or t[2].startswith("m.0")]

DATASETS = ["ml-1m", "ml-20m", "ml-latest-small", "lfm-1b", "amazon-book"]
GRAPHS = ["freebase.gz", "ntriples", "tsv", "atomic", "folder"]


@pytest.fixture
def raw(tmp_path):
    """A raw folder of ml-20m with links and a Freebase dump where they are looked for."""
    folder = write_raw("ml-20m", tmp_path / "raw")
    write_links(folder / "ml2fb.txt")
    write_graph("freebase.gz", folder).rename(folder / "freebase-rdf-latest.gz")
    return folder


def convert(name: str, out: Path, *arguments: object) -> int:
    words = list(map(str, arguments))
    if not any(word.startswith("--k-core") for word in words):
        words.append("--k-core=4")
    return main(["convert", name, "--out", str(out), *words])


def table(folder: Path, name: str, suffix: str) -> pl.DataFrame:
    return read_atomic(folder / f"{name}.{suffix}", []).frame


def expected_inter() -> list[tuple[str, str, int]]:
    rows = sorted(ratings(), key=lambda row: row[3])
    return [(u, i, t) for u, i, _, t in rows if i in LINKED]


# --- formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset(name, tmp_path, capsys):
    raw = write_raw(name, tmp_path / "raw")
    link, graph = write_links(tmp_path / "l.txt"), write_graph("tsv", tmp_path)
    out = tmp_path / name
    assert convert(name, out, "--raw", raw, "--link", link, "--kg", graph) == 0
    inter = table(out, name, "inter")
    found = [(u, i, int(t)) for u, i, t in inter.select("user_id", "item_id", "timestamp").rows()]
    assert found == expected_inter()
    assert ("rating" in inter.columns) == (name != "lfm-1b")
    assert table(out, name, "link").rows() == LINKS
    assert table(out, name, "kg").rows() == NEAR
    printed = capsys.readouterr().out
    assert ".inter: 72 rows in, 12 dropped (item without an entity), 60 rows out" in printed
    assert "1 entity shared by several items" in printed and "Licences: " in printed
    assert f"{name}: 60 interactions, 5 linked items, 12 users" in printed


def test_titles(tmp_path):
    for name in ("ml-1m", "ml-20m"):
        raw = write_raw(name, tmp_path / name)
        link, graph = write_links(tmp_path / "l.txt"), write_graph("tsv", tmp_path)
        out = tmp_path / f"{name}-out"
        assert convert(name, out, "--raw", raw, "--link", link, "--kg", graph) == 0
        assert table(out, name, "item").row(0) == ("1", "Café 1, The", "1991", "Drama War")
    raw = write_raw("lfm-1b", tmp_path / "lfm-1b")
    out = tmp_path / "lfm"
    assert convert("lfm-1b", out, "--raw", raw, "--link", link, "--kg", graph) == 0
    assert table(out, "lfm-1b", "item").row(1) == ("2", "Song 2", "The Band")


def test_ml_100k_from_its_raw_files(tmp_path, capsys):
    from dataset_atomic.ml_100k import FREEBASE, bundled_folder, convert_ml_100k

    convert_ml_100k(tmp_path / "wheel", FREEBASE)
    source = read_atomic(bundled_folder() / "ml-100k.inter", []).frame
    films = read_atomic(bundled_folder() / "ml-100k.item", []).frame
    write(tmp_path / "raw" / "u.data", ["\t".join(row) for row in source.iter_rows()])
    items = [
        f"{i}|Film (1990)|01-Jan-1990||http://x|{'|'.join('0' * 18)}|1" for i in films["item_id"]
    ]
    write(tmp_path / "raw" / "u.item", items)
    out = tmp_path / FREEBASE
    assert main(["convert", FREEBASE, "--raw", str(tmp_path / "raw"), "--out", str(out)]) == 0
    for suffix in ("inter", "kg", "link", "relation"):
        name = f"{FREEBASE}.{suffix}"
        assert (out / name).read_bytes() == (tmp_path / "wheel" / name).read_bytes()
    assert table(out, FREEBASE, "item").row(0) == ("1", "Film", "1990", "Western")


OWN_ROWS = [f"u{u},i{i},{u * 100 + i}" for u in range(5) for i in range(6)]


def own_graph(folder: Path) -> list[str]:
    """Options of a graph and links of the items of :data:`OWN_ROWS`."""
    write(folder / "kg", [f"e{i}\tgenre\tg{i % 2}" for i in range(6)])
    write(folder / "link", [f"i{i}\te{i}" for i in range(6)])
    return [f"--kg={folder / 'kg'}", f"--link={folder / 'link'}"]


def test_a_user_s_own_csv(tmp_path):
    rows = [f'"{u}";{i};{t * 1000}' for u, i, _, t in ratings()]
    link, graph = write_links(tmp_path / "l.txt"), write_graph("tsv", tmp_path)
    with_header = write(tmp_path / "a.csv", ["who;what;when", *rows])
    without = write(tmp_path / "b.csv", rows)
    shared = ["--link", link, "--kg", graph, "--separator=;", "--dataset=mine"]
    shared += ["--user=who", "--item=what", "--time=when"]
    assert convert("csv", tmp_path / "1", "--raw", with_header, *shared) == 0
    assert convert("csv", tmp_path / "2", "--raw", without, "--columns=who,what,when", *shared) == 0
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    found = [(u, i, int(t)) for u, i, t in table(tmp_path / "1", "mine", "inter").rows()]
    assert found == expected_inter()


def test_the_command_to_train_with_has_the_names_that_were_given(tmp_path, capsys):
    raw = write(tmp_path / "log.csv", ["user_id,item_id,timestamp", *OWN_ROWS])
    files = own_graph(tmp_path)
    names = ["--USER_ID_FIELD=session", "--field_separator=;", "--k-core=1"]
    out = ["--dataset=shop", "--out", tmp_path / "shop", "--min-triples=1"]
    assert main(list(map(str, ["convert", "csv", "--raw", raw, *files, *out, *names]))) == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("Train on it"))
    assert line.endswith("--USER_ID_FIELD=session '--field_separator=;'")


@pytest.mark.parametrize("word", ["--USER_ID_FIELD=item_id", "--TIME_FIELD=rating"])
def test_the_name_of_another_column_is_refused(word, tmp_path, capsys):
    raw = write(tmp_path / "log.csv", ["user_id,item_id,timestamp", *OWN_ROWS])
    command = ["convert", "csv", "--raw", str(raw), *own_graph(tmp_path), "--dataset=shop"]
    assert main([*command, f"--out={tmp_path / 'shop'}", word]) == 2
    assert "they name different columns" in capsys.readouterr().err
    assert main(["describe", str(tmp_path), word]) == 2
    assert "they name different columns" in capsys.readouterr().err


def test_columns_that_are_not_wanted_may_have_one_name(tmp_path):
    rows = [f"web,{u},{i},x,{t}" for u, i, _, t in ratings()]
    link, graph = write_links(tmp_path / "l.txt"), write_graph("tsv", tmp_path)
    raw = write(tmp_path / "b.csv", rows)
    given = ["--link", link, "--kg", graph, "--dataset=mine", "--raw", raw]
    names = "--columns=_, user_id,item_id,_,timestamp"
    assert convert("csv", tmp_path / "o", *given, names) == 0
    found = [(u, i, int(t)) for u, i, t in table(tmp_path / "o", "mine", "inter").rows()]
    assert found == expected_inter()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["csv", "--dataset=m", "--raw=r", "--item=user_id"], "name the column 'user_id'"),
        (["csv", "--dataset=m", "--raw=r", "--rating=timestamp"], "name the column 'timestamp'"),
        (["csv", "--dataset=m", "--raw=r", "--columns=user_id,user_id,item_id,timestamp"],
         "names the column 'user_id' twice; name it once"),
        (["csv", "--dataset=m", "--raw=r", "--columns=user_id,item_id"], "'timestamp' not at all"),
        (["csv", "--dataset=m", "--raw=r", "--ranges=7"], "--ranges is about a table of items"),
        (["csv", "--dataset=m", "--raw=r", "--items-id=x"], "--items-id is about a table of items"),
        (["ml-1m", "--raw=r", "--items=x"], "--items is for `convert csv` alone"),
        (["ml-1m", "--raw=r", "--dataset=mine"], "--dataset is for `convert csv` alone"),
        (["ml-100k", "--separator=;"], "--separator is for `convert csv` alone"),
        (["ml-100k", "--items-id=x"], "--items-id is for `convert csv` alone"),
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(words, said, tmp_path, capsys):
    sentence = complaint(capsys, "convert", *words, "--out", tmp_path / "o")
    assert said in sentence and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "line",
    [
        "<http://x/A> <http://x/p> <http://x/B> <http://x/graph> .",
        '<http://x/A> <http://x/p> "words"@en <http://x/graph> .',
        "<http://x/A> <http://x/p> _:b1 <http://x/graph> .",
        "<http://x/A> <http://x/p> words .",
    ],
)
def test_a_line_that_is_no_triple_of_n_triples(line, tmp_path, capsys):
    """The fourth term of N-Quads is no part of the object."""
    rows = [f"{u},{i},{t}" for u, i, _, t in ratings()]
    raw = write(tmp_path / "a.csv", ["user_id,item_id,timestamp", *rows])
    graph = write(tmp_path / "g.nq", ["<http://x/A> <http://x/p> <http://x/B> .", line])
    given = ["csv", "--raw", raw, "--dataset=m", "--link", write_links(tmp_path / "l.txt")]
    given += ["--k-core=1", "--kg", graph]
    sentence = complaint(capsys, "convert", *given, "--out", tmp_path / "o")
    assert "g.nq, line 2" in sentence and "in N-Quads remove the fourth term." in sentence


def test_more_steps_than_a_folder_has(tmp_path, capsys):
    rows = [f"{u},{i},{t}" for u, i, _, t in ratings()]
    raw = write(tmp_path / "a.csv", ["user_id,item_id,timestamp", *rows])
    graph = write_graph("folder", tmp_path)
    given = ["csv", "--raw", raw, "--dataset=m", "--link", write_links(tmp_path / "l.txt")]
    given += ["--kg", graph, "--out", tmp_path / "o", "--k-core=1", "--min-triples=1"]
    sentence = complaint(capsys, "convert", *given, "--hops=3")
    assert "has no hop3.kg, which --hops=3 reads; give --hops=2" in sentence


@pytest.mark.parametrize("blank", ['""', '" "', " "])
@pytest.mark.parametrize("column", [0, 1])
def test_a_blank_id_is_refused_before_anything_is_written(blank, column, tmp_path, capsys):
    rows = [[str(u), str(i), str(t)] for u, i, _, t in ratings()]
    rows[3][column] = blank
    raw = write(tmp_path / "a.csv", ["user_id,item_id,timestamp", *map(",".join, rows)])
    link, graph = write_links(tmp_path / "l.txt"), write_graph("tsv", tmp_path)
    given = ["csv", "--raw", raw, "--dataset=m", "--link", link, "--kg", graph]
    sentence = complaint(capsys, "convert", *given, "--out", tmp_path / "o")
    assert "line 5" in sentence and "fill it in" in sentence
    assert not list((tmp_path / "o").glob("*.inter"))


def test_what_is_converted_is_one_file_whatever_a_run_reads(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("benchmark_filename: [train, valid, test]\n")
    link, graph = write_links(tmp_path / "l.txt"), write_graph("tsv", tmp_path)
    rows = [f"{u},{i},{t}" for u, i, _, t in ratings()]
    raw = write(tmp_path / "a.csv", ["user_id,item_id,timestamp", *rows])
    given = ["--raw", raw, "--dataset=m", "--link", link, "--kg", graph]
    assert convert("csv", tmp_path / "o", *given, "--config_files", config) == 0


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("kind", GRAPHS)
def test_every_graph_format_gives_the_same_triples(kind, hops, tmp_path):
    graph = write_graph(kind, tmp_path)
    scan = scan_triples([graph], pl.Series([e for _, e in LINKS]), hops=hops)
    expected = NEAR if hops == 1 else [t for t in TRIPLES if t[0] != "m.zz"]
    assert sorted(scan.kg.rows()) == sorted(expected)
    assert scan.funnel.rows_in - sum(scan.funnel.dropped.values()) == scan.kg.height


def test_what_a_dump_drops_is_counted(tmp_path):
    scan = scan_triples([write_graph("freebase.gz", tmp_path)], pl.Series([e for _, e in LINKS]))
    assert scan.funnel.rows_in == len(freebase_lines())
    assert scan.funnel.dropped == {
        "literal": 2 * len(NAMES) + 1,
        "an end is no entity of Freebase (m.* or g.*)": 1,
        "beyond one step of the linked items": 2,
    }


def reachable(triples, seeds, hops):
    near = set(seeds)
    for _ in range(hops - 1):
        near |= {e for h, _, t in triples if h in near or t in near for e in (h, t)}
    return [t for t in triples if t[0] in near or t[2] in near]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    triples=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 2), st.integers(0, 9)), min_size=1, unique=True
    ),
    hops=st.integers(1, 4),
)
def test_hops_agree_with_loops(triples, hops, tmp_path_factory):
    named = [(f"e{h}", f"r{r}", f"e{t}") for h, r, t in triples]
    path = write(tmp_path_factory.mktemp("kg") / "k.tsv", ["\t".join(t) for t in named])
    found = scan_triples([path], pl.Series(["e0", "e1"]), hops=hops)
    assert sorted(found.kg.rows()) == sorted(reachable(named, ["e0", "e1"], hops))
    assert found.funnel.rows_in - sum(found.funnel.dropped.values()) == found.kg.height


def test_names_prefer_english(raw, tmp_path):
    assert convert("ml-20m", tmp_path / "o", "--raw", raw) == 0
    assert dict(table(tmp_path / "o", "ml-20m", "entity").rows()) == {
        "m.01": "Alien", "m.d0": "R. 'Rid' Scott", "m.g0": "Épouvante"
    }  # fmt: skip
    given_names = write(tmp_path / "names.tsv", ["m.01\tThe  Alien ", "m.02\tTwo"])
    assert convert("ml-20m", tmp_path / "p", "--raw", raw, "--names", given_names) == 0
    names = dict(table(tmp_path / "p", "ml-20m", "entity").rows())
    assert (names["m.01"], names["m.02"], names["m.g0"]) == ("The Alien", "Two", "Épouvante")


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_any_block_size_gives_the_same_files(raw, tmp_path, monkeypatch, size, capsys):
    assert convert("ml-20m", tmp_path / "whole", "--raw", raw) == 0
    whole = capsys.readouterr().out
    monkeypatch.setattr(lines, "BLOCK_BYTES", size)
    assert convert("ml-20m", tmp_path / "parts", "--raw", raw) == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert capsys.readouterr().out == whole.replace("/whole", "/parts")


def test_ids_of_knowledge_bases_round_trip():
    iris = ["m.01", "g.11", "dbr:Alien_(film)", "wd:Q42", "Afghan_Luke", "http://x.org/a"]
    full = expand(pl.Series("e", iris))
    assert full[0] == f"{FREEBASE}m.01>" and full[2] == "<http://dbpedia.org/resource/Alien_(film)>"
    assert full.to_frame().select(shorten("e"))["e"].to_list() == iris


NO_IDS = ("<", ">", "<>", "< >", "<m.1", "m.1>", "<http://x.org/a", "http://x.org/a>")


@pytest.mark.parametrize("bad", [*NO_IDS, " "])
@pytest.mark.parametrize("header", ["", "item_id:token\tentity_id:token\n"], ids=["plain", "link"])
def test_a_link_to_no_entity_is_refused_with_its_line(tmp_path, bad, header):
    path = tmp_path / "x.link"
    path.write_text(f"{header}1\tm.1\n\n2\t<Yago>\n3\t{bad}\n4\t<m.2>\n")
    with pytest.raises(UserError) as told:
        read_links(path)
    line = 5 if header else 4
    assert f"line {line}: column 'entity_id' is {bad!r}, which is no id; write" in str(told.value)
    path.write_text(f"{header}1\tm.1\n \tm.2\n")
    with pytest.raises(UserError, match=f"line {line - 2}: column 'item_id' is blank"):
        read_links(path)


def test_blanks_around_the_ids_of_a_link_are_no_part_of_them(tmp_path):
    path = write(tmp_path / "x.link", [" 1 \t m.1 ", "1\tm.1", "2\tm.1"])
    links = read_links(path)
    assert links.frame.rows() == [("1", "m.1"), ("2", "m.1")] and links.repeated == 1


def test_the_columns_of_an_atomic_file_are_known_by_name_in_any_order(tmp_path):
    """A header in another order was taken for a first line: links and triples were reversed."""
    link = write(tmp_path / "x.link", ["entity_id:token\titem_id:token", "m.1\t7"])
    assert read_links(link).frame.rows() == [("7", "m.1")]
    names = write(tmp_path / "x.entity", ["name:token_seq\tentity_id:token", "A film\tm.1"])
    assert read_names(names).rows() == [("m.1", "A film")]
    header = "tail_id:token\trelation_id:token\thead_id:token"
    graph = write(tmp_path / "x.kg", [header, "m.2\tr\tm.1"])
    scan = scan_triples([graph], pl.Series(["m.1"]))
    assert scan.kg.rows() == [("m.1", "r", "m.2")] and scan.funnel.rows_in == 1


@pytest.mark.parametrize("bad", NO_IDS)
def test_a_name_of_no_entity_and_a_triple_without_one_are_refused_with_their_line(tmp_path, bad):
    names, graph = tmp_path / "names.tsv", tmp_path / "x.kg"
    names.write_text(f"m.1\tA <title>\n{bad}\t<\n")
    with pytest.raises(UserError, match=f"line 2: column 'entity_id' is {re.escape(repr(bad))}"):
        read_names(names)
    for k, column in enumerate(("head_id", "relation_id", "tail_id")):
        triple = ["m.1", "r", "m.1"]
        triple[k] = bad
        told = f"line 3: column {column!r} is {re.escape(repr(bad))}, which is no id"
        graph.write_text("m.1\t->-\tm.2\n\n" + "\t".join(triple) + "\n")
        with pytest.raises(UserError, match=told):
            scan_triples([graph], pl.Series(["m.1"]))
        rdf = ["<a>", "<r>", "<a>"]
        rdf[k] = bad
        graph.write_text('<a>\t<r>\t"5"^^<int>\t.\n\n' + "\t".join(rdf) + "\t.\n")
        if bad.startswith("<") or k == 1:  # else it is no entity, and counted as such
            with pytest.raises(UserError, match=told):
                scan_triples([graph], pl.Series(["a"]))


@pytest.mark.parametrize("bad", ["<> <r> <a>", "<a> <> <a>", "<a> <r> <>", "< <r> <a>"])
def test_a_line_of_n_triples_with_an_empty_iri_is_refused(tmp_path, bad):
    path = tmp_path / "x.nt"
    path.write_text(f"<a> <r> <b> .\n{bad} .\n")
    with pytest.raises(UserError, match=r"line 2: .* is not a triple"):
        scan_triples([path], pl.Series(["a"]))


# --- rules -----------------------------------------------------------------------------------


def test_period_repeats_and_links(tmp_path, capsys):
    raw = write_raw("ml-20m", tmp_path / "raw")
    with (raw / "ratings.csv").open("a") as file:
        file.write(f"1,1,5.0,{START + 10**6}\n\n")  # a repetition, and a blank line
        file.write("1,2,5.0,1000000000\n")  # 2001
    movies = raw / "movies.csv"
    movies.write_text(movies.read_text().replace('"Café 1', '"""Café"" 1'))
    links = [("1", "m.01"), ("1", "m.02"), ("1", "m.03"), ("1", "m.01"), *LINKS[1:]]
    link, graph = write_links(tmp_path / "l.txt", links), write_graph("tsv", tmp_path)
    common = ["--raw", raw, "--link", link, "--kg", graph]
    assert convert("ml-20m", tmp_path / "o", *common, "--drop-repeats") == 0
    printed = capsys.readouterr().out
    assert (
        ".inter: 75 rows in, 1 dropped (blank line), 1 dropped (not in 2005-2015), 12 dropped "
        "(item without an entity), 1 dropped (repeated (user, item)), 60 rows out"
    ) in printed
    assert (
        "2 links to another entity than an earlier line has for the item; the first line counts"
        in printed
    )
    assert ".link: 8 rows in, 1 dropped (repeated link), 2 dropped (item already linked" in printed
    assert table(tmp_path / "o", "ml-20m", "item")["movie_title"][0] == "'Café' 1, The"
    assert table(tmp_path / "o", "ml-20m", "link").rows() == LINKS
    assert convert("ml-20m", tmp_path / "p", *common) == 0
    assert table(tmp_path / "p", "ml-20m", "inter").height == 61
    assert convert("ml-20m", tmp_path / "q", *common, "--last-days=6", "--k-core=1") == 0
    last = START + 10**6
    kept = table(tmp_path / "q", "ml-20m", "inter")["timestamp"].cast(pl.Int64)
    assert sorted(kept) == sorted(
        [last, *(t for _, _, t in expected_inter() if t > last - 6 * 86_400)]
    )


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_the_last_days_end_with_the_last_time_and_begin_after_so_many_days(
    tmp_path, monkeypatch, size
):
    monkeypatch.setattr(lines, "BLOCK_BYTES", size)  # the last time need not be in the last block
    start = 1_600_000_000
    times = [start + after for after in (0, 1, DAY, 2 * DAY)]
    path = tmp_path / "ratings.csv"
    path.write_text(
        "user_id,item_id,timestamp\n"
        + "".join(f"u,i,{time}\n" for time in (times[k] for k in (0, 3, 1, 2, 0)))
    )
    columns = {name: name for name in ("user_id", "item_id", "timestamp")}
    layout = TextFormat(columns, ",", quoted=True, header=True)
    left = read_interactions(path, layout, pl.Series(["i"]), Period(last_days=2)).frame
    assert left["timestamp"].cast(pl.Float64).to_list() == times[1:]


def test_years_hold_their_first_second_and_not_that_of_the_next_year():
    first, after = (int(datetime(y, 1, 1, tzinfo=UTC).timestamp()) for y in (2005, 2016))
    seconds = pl.Series([first - 1, first, after - 1, after])
    inside = Period(first_year=2005, last_year=2015).mask(seconds)
    assert inside.to_list() == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "seconds", "form"),
    [
        ("978300019", 978300019, "seconds"),
        ("978300019.7", 978300019, "seconds"),
        ("9.78300019e8", 978300019, "seconds"),
        ("978300019123", 978300019, "milliseconds"),
        ("978300019123456", 978300019, "microseconds"),
        ("978300019123456789", 978300019, "nanoseconds"),
        ("2000-12-31 22:00:19", 978300019, "%Y-%m-%d %H:%M:%S%.f"),
        ("2000-12-31T22:00:19Z", 978300019, "%Y-%m-%dT%H:%M:%S%.fZ"),
        ("2000-12-31T23:00:19+01:00", 978300019, "%Y-%m-%dT%H:%M:%S%.f%:z"),
        ("2000-12-31", 978220800, "%Y-%m-%d"),
        ("20001231", 978220800, "%Y%m%d"),
        ("20001231220019", 978300019, "%Y%m%d%H%M%S"),
        ("12/31/00", 978220800, "%m/%d/%y"),
        ("31.12.00", 978220800, "%d.%m.%y"),
        ("12345678", 12345678, "seconds"),
        ("31/12/2000", 978220800, "%d/%m/%Y"),
        ("12/31/2000 22:00", 978300000, "%m/%d/%Y %H:%M"),
        ("12/31/2000 10:00:19 PM", 978300019, "%m/%d/%Y %I:%M:%S %p"),
        ("31-12-2000 22:00:19", 978300019, "%d-%m-%Y %H:%M:%S%.f"),
        ("2000-12-31T22:00", 978300000, "%Y-%m-%dT%H:%M"),
        ("2000-12-31 22:00:19 UTC", 978300019, "%Y-%m-%d %H:%M:%S%.f UTC"),
        ("31-Dec-2000", 978220800, "%d-%b-%Y"),
        ("2000.12.31", 978220800, "%Y.%m.%d"),
        ("20001231", 978220800, "%Y%m%d"),
        ("20001231.0", 978220800, "%Y%m%d"),
        ("200012312200", 978300000, "%Y%m%d%H%M"),
        ("20001231220019", 978300019, "%Y%m%d%H%M%S"),
        ("20001331.0", 20001331, "seconds"),  # no such month
        ("978300019.0", 978300019, "seconds"),
    ],
)
def test_timestamps(tmp_path, text, seconds, form):
    path = write(tmp_path / "t", [text] * 3)
    clock = TimestampReader()
    (block,) = read_blocks(path, TextFormat(("timestamp",)))
    exact = clock.exact(block)
    assert (exact // clock.per_second).to_list() == [seconds] * 3
    assert clock.form == form
    assert (clock.note() is None) == (form == "seconds")


DAYS = ["01/03/2024", "02/03/2024", "12/03/2024"]
"""Of a March or of the third days of months: only a line like 13/03/2024 tells."""


def clock_after(tmp_path, texts: list[str], form: str | None = None) -> list[int]:
    """Seconds of some times, read as a file's."""
    clock = TimestampReader(form, "--time-format")
    (block,) = read_blocks(write(tmp_path / "t", texts), TextFormat(("timestamp",)))
    return (clock.exact(block) // clock.per_second).to_list()


def days_of_march(*days: int) -> list[int]:
    return [int(datetime(2024, 3, day, tzinfo=UTC).timestamp()) for day in days]


def test_a_unit_begins_where_the_smaller_one_ends(tmp_path):
    assert clock_after(tmp_path, [f"{10**11 - 1}"] * 2) == [10**11 - 1] * 2
    assert clock_after(tmp_path, [f"{10**11}"] * 2) == [10**8] * 2  # of 1973, in milliseconds
    with pytest.raises(UserError, match=f"'{10**11 - 1}' is not a timestamp; expected millisecond"):
        clock_after(tmp_path, ["1300000000000", "1300000000000", f"{10**11 - 1}"])
    with pytest.raises(UserError, match=f"'{10**11}' is not a timestamp; expected seconds"):
        clock_after(tmp_path, ["1300000000", "1300000000", f"{10**11}"])


def test_the_month_is_seen_from_all_lines(tmp_path):
    assert clock_after(tmp_path, [*DAYS, "13/03/2024"]) == days_of_march(1, 2, 12, 13)
    americas = ["03/01/2024", "03/02/2024", "03/12/2024", "03/13/2024"]
    assert clock_after(tmp_path, americas) == days_of_march(1, 2, 12, 13)
    assert clock_after(tmp_path, ["3/3/24", "03/03/24"]) == days_of_march(3, 3)


@pytest.mark.parametrize("sign", ["/", "-"])
@pytest.mark.parametrize("hour", ["", " 10:15"])
def test_where_no_line_tells_the_month_it_is_asked_for(tmp_path, sign, hour):
    texts = [day.replace("/", sign) + hour for day in DAYS]
    with pytest.raises(
        UserError, match=r"line 1: '01.03.2024.*none of the first lines tells which number"
    ):
        clock_after(tmp_path, texts)
    form = f"%d{sign}%m{sign}%Y" + (" %H:%M" if hour else "")
    found = clock_after(tmp_path, texts, form)
    assert [second // 86400 * 86400 for second in found] == days_of_march(1, 2, 12)


def test_a_time_of_another_form_than_was_given(tmp_path):
    with pytest.raises(
        UserError, match=r"line 2: 'soon' is not a .*expected %Y %b \(--time-format"
    ):
        clock_after(tmp_path, ["2024 Mar", "soon"], "%Y %b")
    with pytest.raises(UserError, match=r"line 1: '1/3/2024' is not a .*expected %q"):
        clock_after(tmp_path, ["1/3/2024"], "%q")


def test_an_option_of_csv_is_not_named_by_other_converters(tmp_path):
    for text in ("soon", DAYS[0]):
        (block,) = read_blocks(write(tmp_path / "t", [text] * 2), TextFormat(("timestamp",)))
        with pytest.raises(UserError, match=r"correct the value|write them as") as raised:
            TimestampReader().exact(block)
        assert "--time-format" not in str(raised.value)


def test_the_form_of_times_is_an_option(tmp_path, capsys):
    rows = [f"u{u},i{i},{DAYS[i]}" for u in range(3) for i in range(3)]
    sales = write(tmp_path / "s.csv", ["user_id,item_id,timestamp", *rows])
    items = write(tmp_path / "i.csv", ["item_id,brand", "i0,a", "i1,a", "i2,b"])
    given = ["csv", "--dataset=s", "--raw", sales, "--items", items, "--k-core=1"]
    out = tmp_path / "o"
    assert "say it with --time-format='%" in complaint(capsys, "convert", *given, "--out", out)
    assert main(list(map(str, ["convert", *given, "--out", out, "--time-format=%d/%m/%Y"]))) == 0
    assert "timestamps are %d/%m/%Y (given)" in capsys.readouterr().out
    assert set(table(out, "s", "inter")["timestamp"].cast(int)) == set(days_of_march(1, 2, 12))


def test_years_taken_for_seconds_are_all_of_one_day(tmp_path, capsys):
    """Years, days since 1900 and steps look like seconds; then every user has one session."""
    items = write(tmp_path / "i.csv", ["item_id,brand", "i0,a", "i1,a", "i2,b"])
    for name, times in {"years": (2019, 2020, 2021), "seconds": (86_399, 86_400, 86_401)}.items():
        rows = [f"u{u},i{i},{times[i]}" for u in range(3) for i in range(3)]
        sales = write(tmp_path / "s.csv", ["user_id,item_id,timestamp", *rows])
        given = ["csv", "--dataset=s", "--raw", sales, "--items", items, "--k-core=1"]
        assert main(list(map(str, ["convert", *given, "--out", tmp_path / name]))) == 0
        said = "all times are of one day, 1970-01-01, so every user has one session"
        assert (said in capsys.readouterr().out) == (name == "years")


def test_ratings_with_a_decimal_comma(tmp_path, capsys):
    items = write(tmp_path / "i.csv", ["item_id;brand", "i0;a", "i1;a", "i2;b"])
    given = ["csv", "--dataset=s", "--items", items, "--k-core=1", "--separator=;"]
    for text, found in {"3,5": 3.5, "-0,25": -0.25, "4": 4.0, "1,000": None}.items():
        rows = [f"u{u};i{i};{i};{text}" for u in range(3) for i in range(3)]
        sales = write(tmp_path / "s.csv", ["user_id;item_id;timestamp;stars", *rows])
        out = tmp_path / text
        call = ["convert", *given, "--rating=stars", "--raw", sales, "--out", out]
        if found is None:
            assert "'1,000' is not a rating" in complaint(capsys, *call)
        else:
            assert main(list(map(str, call))) == 0
            assert set(table(out, "s", "inter")["rating"].cast(float)) == {found}


field_text = st.text(
    st.characters(
        codec="utf-8", exclude_characters='\t\n\r"\x1f,', exclude_categories=["Cs", "Cc"]
    ),
    min_size=1,
).filter(lambda text: text.strip())


@settings(max_examples=80, deadline=None, derandomize=True)
@given(rows=st.lists(st.tuples(field_text, field_text), min_size=1), size=st.integers(1, 200),
       separator=st.sampled_from(["\t", ",", "::"]))  # fmt: skip
def test_what_is_written_is_read(rows, size, separator, tmp_path_factory):
    rows = [(a.replace(":", ";"), b.replace(":", ";")) for a, b in rows]
    rows = [(a.removeprefix("\ufeff") or "x", b) for a, b in rows]
    path = write(tmp_path_factory.mktemp("t") / "f", [separator.join(row) for row in rows])
    layout = TextFormat(("a", "b"), separator=separator)
    frames = [block.frame for block in read_blocks(path, layout, block_bytes=size)]
    assert pl.concat(frames).rows() == rows
    assert read_table(path, layout).rows() == rows


# --- bad input -------------------------------------------------------------------------------


def complaint(capsys, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1
    return printed


@pytest.mark.parametrize(
    ("line", "text", "expected"),
    [
        (1, "userId;movieId;rating;timestamp", "has no column 'userId'"),
        (1, "1,2,3.5,1300000000", "has no column 'userId'"),
        (5, "1,2", "2 column(s)"),
        (5, "1\t2\t3\t4", "1 column(s)"),
        (5, "1,,3,1300000000", "column 'item_id' is empty"),
        (5, "1,2,3,yesterday", "'yesterday' is not a timestamp"),
        (5, "1,2,good,1300000000", "'good' is not a rating"),
        (5, "1,2,inf,1300000000", "'inf' is not a rating"),
        (5, "1,2,nan,1300000000", "'nan' is not a rating"),
        (5, '1,"2,3,1300000000', "double quote is not closed"),
        (5, '1,"2"x,3,1300000000', "cannot be read as CSV"),
        (5, '1,"a\tb",3,1300000000', "holds a tab"),
        (5, "1,2,3,1300000000000", "is not a timestamp; expected seconds"),
    ],
)
def test_a_malformed_line(raw, tmp_path, capsys, line, text, expected):
    path = raw / "ratings.csv"
    lines = path.read_text().split("\n")
    lines[line - 1] = text
    path.write_text("\n".join(lines))
    sentence = complaint(capsys, "convert", "ml-20m", "--raw", raw, "--out", tmp_path / "o")
    assert f"{path}, line {line}:" in sentence and expected in sentence
    assert not (tmp_path / "o").exists()


def test_a_header_in_another_order(raw, tmp_path):
    assert convert("ml-20m", tmp_path / "o", "--raw", raw) == 0
    rows = [f"{t},{r},{i},{u}" for u, i, r, t in ratings()]
    write(raw / "ratings.csv", ["timestamp,rating,movieId,userId", *rows])
    assert convert("ml-20m", tmp_path / "p", "--raw", raw) == 0
    assert contents(tmp_path / "o") == contents(tmp_path / "p")


def test_blanks_around_ids_and_windows_line_ends(raw, tmp_path, capsys):
    assert convert("ml-20m", tmp_path / "o", "--raw", raw) == 0
    path = raw / "ratings.csv"
    path.write_bytes(
        b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n1,", b"\n 1 ,").replace(b"\n", b"\r\n")
    )
    assert convert("ml-20m", tmp_path / "p", "--raw", raw) == 0
    assert contents(tmp_path / "o") == contents(tmp_path / "p")
    assert "blanks around 6 ids were removed" in capsys.readouterr().out


def test_damaged_files(raw, tmp_path, capsys):
    command = ["convert", "ml-20m", "--raw", raw, "--out", tmp_path / "o", "--k-core=4"]
    dump = raw / "freebase-rdf-latest.gz"
    whole = dump.read_bytes()
    dump.write_bytes(whole[:-30])
    assert f"{dump} is truncated or damaged" in complaint(capsys, *command)
    dump.write_bytes(b"PK\x03\x04 what is this?")
    assert "is not a triple" in complaint(capsys, *command)
    dump.write_bytes(b"")
    assert f"{dump} is empty" in complaint(capsys, *command)
    dump.write_bytes(whole)
    links = raw / "ml2fb.txt"
    links.write_bytes(b"1\tm.01\n2\tm.\xff\n")
    assert f"{links}, line 2: byte 0xff is not UTF-8" in complaint(capsys, *command)
    links.write_text("1 m.01\n")
    assert f"{links}, line 1: 1 column(s)" in complaint(capsys, *command)
    write_links(links)
    (raw / "ratings.csv").write_text("")
    assert "is empty" in complaint(capsys, *command)
    assert not (tmp_path / "o").exists()


def test_nothing_in_common(raw, tmp_path, capsys):
    command = ["convert", "ml-20m", "--raw", raw, "--out", tmp_path / "o", "--k-core=4"]
    write_links(raw / "ml2fb.txt", [(f"movie_{i}", e) for i, e in LINKS])
    sentence = complaint(capsys, *command)
    assert "'1', '2', '3'" in sentence and "'movie_1', 'movie_2', 'movie_3'" in sentence
    write_links(raw / "ml2fb.txt", [(i, f"{e}x") for i, e in LINKS])
    assert "'m.01x', 'm.02x', 'm.03x'" in complaint(capsys, *command)


@pytest.mark.parametrize(
    "word",
    [
        *("--hops=1000000000", "--k-core=99999999999999999999", f"--min-triples={10**30}"),
        *("--first-year=99999", "--last-year=9999", "--first-year=-1", f"--last-days={10**30}"),
        "--last-days=0",
    ],
)
def test_numbers_that_no_data_have(raw, tmp_path, capsys, word):
    words = ["convert", "ml-20m", "--raw", raw, "--out", tmp_path / "o", word]
    assert "expected a whole number from 1 to" in complaint(capsys, *words)


def test_a_long_field_in_a_malformed_line(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("user_id,item_id,timestamp\n" + "u" * 200_000 + ",i\n")
    columns = {name: name for name in ("user_id", "item_id", "timestamp")}
    layout = TextFormat(columns, ",", quoted=True, header=True)
    with pytest.raises(UserError, match="line 2: the row cannot be read as CSV"):
        read_interactions(path, layout, pl.Series(["i"]), Period())


FIELDS = st.text(st.sampled_from('ab\n",é '), min_size=1).filter(str.strip)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows=st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=12), size=st.integers(1, 60))
def test_fields_in_quotes_may_have_line_ends_however_large_the_file_is(
    rows, size, tmp_path_factory
):
    path = tmp_path_factory.mktemp("t") / "f.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([("a", "b"), *rows])
    layout = TextFormat({"a": "a", "b": "b"}, ",", quoted=True, header=True)
    blocks = list(read_blocks(path, layout, block_bytes=size))
    assert [row for block in blocks for row in block.frame.rows()] == rows
    begins = [1 + sum(1 + "".join(row).count("\n") for row in rows[:k]) for k in range(len(rows))]
    told = [block.line_of(k) for block in blocks for k in range(block.frame.height)]
    assert told == [f"{path}, line {line + 1}" for line in begins]


def test_a_malformed_row_after_one_of_several_lines_is_told_by_its_line(tmp_path):
    path = write(tmp_path / "f.csv", ["a,b", '"1\n2\n3",x', "only one"])
    layout = TextFormat({"a": "a", "b": "b"}, ",", quoted=True, header=True)
    with pytest.raises(UserError, match=r"f.csv, line 5: 1 column"):
        list(read_blocks(path, layout))


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("blank", ["", "   ", "\t", ",,", " , ,"])
@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_line_of_blanks_is_blank_wherever_it_stands(tmp_path, quoted, blank, at):
    lines = ["u1,i1,x", "u2,i2,7", "u3,i3,x"]
    lines.insert(at - 1, blank)
    path = write(tmp_path / "f.csv", lines)
    (block,) = read_blocks(path, TextFormat(("user_id", "item_id", "t"), ",", quoted=quoted))
    assert block.frame["user_id"].to_list() == ["u1", "u2", "u3"] and block.blank_lines == 1
    told = [k + 1 for k, line in enumerate(lines) if line != blank]
    assert [block.line_of(row) for row in range(3)] == [f"{path}, line {k}" for k in told]


def test_lines_of_one_column_may_be_blank_too(tmp_path):
    (block,) = read_blocks(write(tmp_path / "f", ["a b", "  ", "c"]), TextFormat(("line",)))
    assert block.frame["line"].to_list() == ["a b", "c"] and block.blank_lines == 1


def test_a_quote_within_a_field_is_a_part_of_it(tmp_path):
    lines = ['i1,27" monitor,x', 'i2,"a, b",y', 'i3,3" or 4,', "", 'i4,"5"" pipe",z']
    layout = TextFormat(("item_id", "name", "kind"), ",", True, optional=frozenset(["kind"]))
    for size in (5, None):
        blocks = read_blocks(write(tmp_path / "f.csv", lines), layout, block_bytes=size)
        assert pl.concat(block.frame for block in blocks).rows() == [
            ("i1", '27" monitor', "x"), ("i2", "a, b", "y"), ("i3", '3" or 4', None),
            ("i4", '5" pipe', "z"),
        ]  # fmt: skip


@pytest.mark.parametrize("word", ["e1", "genre"])
def test_an_id_that_begins_with_a_quote_is_refused_before_anything_is_written(
    tmp_path, capsys, word
):
    raw = write(tmp_path / "log.csv", ["user_id,item_id,timestamp", *OWN_ROWS])
    command = ["convert", "csv", "--raw", raw, *own_graph(tmp_path), "--dataset=shop", "--k-core=1"]
    command += ["--out", tmp_path / "shop", "--min-triples=1", "--overwrite"]
    assert main(list(map(str, command))) == 0
    before = contents(tmp_path / "shop")
    for path in (tmp_path / "kg", tmp_path / "link"):
        path.write_text(path.read_text().replace(word, f'"{word}"'))
    capsys.readouterr()
    assert main(list(map(str, command))) == 2
    assert "begins with a quotation mark, which RecBole would take" in capsys.readouterr().err
    assert contents(tmp_path / "shop") == before


def test_wrong_folders_and_names(raw, tmp_path, capsys):
    out = ["--out", tmp_path / "o"]
    assert "does not exist" in complaint(capsys, "convert", "ml-1m", "--raw", tmp_path / "no", *out)
    assert "holds no ratings.dat" in complaint(capsys, "convert", "ml-1m", "--raw", raw, *out)
    assert "needs the raw files" in complaint(capsys, "convert", "ml-1m", *out)
    assert "There is no converter 'ml-2m'" in complaint(capsys, "convert", "ml-2m", *out)
    assert "k_core` is 0" in complaint(capsys, "convert", "ml-20m", "--raw", raw, "--k-core=0")
    (raw / "freebase-rdf-latest.gz").unlink()
    lfm = write_raw("lfm-1b", tmp_path / "lfm")  # MovieLens has the film graph that ships
    assert "no knowledge graph" in complaint(capsys, "convert", "lfm-1b", "--raw", lfm, *out)
    (raw / "ml2fb.txt").unlink()
    graph = write_graph("tsv", tmp_path)
    sentence = complaint(capsys, "convert", "ml-20m", "--raw", raw, "--kg", graph, *out)
    assert "no link file" in sentence
    sentence = complaint(capsys, "convert", "ml-20m", "--raw", raw, "--kg", tmp_path, *out)
    assert "no hop1.kg" in sentence or "no link file" in sentence


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_an_output_folder_with_something_in_it(raw, tmp_path, capsys, monkeypatch, how):
    out = tmp_path / "o"
    assert convert("ml-20m", out, "--raw", raw) == 0
    before = contents(out)
    sentence = complaint(capsys, "convert", "ml-20m", "--raw", raw, "--out", out)
    assert "is not empty; add --overwrite" in sentence and contents(out) == before
    (out / "ml-20m.user").write_text("of an earlier conversion")
    (out / "notes.txt").write_text("mine")
    assert convert("ml-20m", out, "--raw", raw, "--overwrite") == 0
    assert contents(out) == {**before, "notes.txt": b"mine"}

    def interrupted(*_, **__):
        if how == "SIGTERM":
            signal.raise_signal(signal.SIGTERM)
        raise KeyboardInterrupt

    monkeypatch.setattr("dataset_atomic.convert.filter_to_fixed_point", interrupted)
    assert convert("ml-20m", out, "--raw", raw, "--overwrite") == 130
    assert contents(out) == {**before, "notes.txt": b"mine"}


@pytest.mark.parametrize("folder", ["[old] data", "what? *", "{a,b}"])
def test_folders_whose_names_look_like_patterns(raw, tmp_path, folder):
    graph = write_graph("ntriples", tmp_path)  # names of entities are put aside in a folder
    given = ["--raw", raw, "--link", write_links(tmp_path / "l.txt"), "--kg", graph]
    out = tmp_path / folder / "ml-20m"
    out.parent.mkdir()
    assert convert("ml-20m", out, *given) == 0
    assert convert("ml-20m", tmp_path / "ml-20m", *given) == 0
    assert contents(out) == contents(tmp_path / "ml-20m")
    assert len(table(out, "ml-20m", "entity"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_no_room_for_the_names(raw, tmp_path, capsys, monkeypatch):
    """Polars' own error of a full disk was a traceback."""

    def full(spool: NameSpool, folder: Path) -> None:
        (folder / "000000.parquet").symlink_to("/dev/full")
        begin(spool, folder)

    begin = NameSpool.__init__
    monkeypatch.setattr(NameSpool, "__init__", full)
    graph = ["--link", write_links(tmp_path / "l.txt"), "--kg", write_graph("ntriples", tmp_path)]
    out = tmp_path / "o"
    sentence = complaint(
        capsys, "convert", "ml-20m", "--raw", raw, "--k-core=5", "--out", out, *graph
    )
    assert "000000.parquet: No space left on device" in sentence
    assert not out.exists() and not list(tmp_path.glob(".*"))


# --- describe --------------------------------------------------------------------------------


def test_describe_a_small_dataset(raw, tmp_path, capsys):
    assert convert("ml-20m", tmp_path / "ml-20m", "--raw", raw) == 0
    capsys.readouterr()
    assert main(["describe", str(tmp_path / "ml-20m")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ml-20m: 60 interactions, 5 linked items, 12 users")
    assert "interactions per user: 5 at least, 5 in the median, 5.0 on average, 5 at most" in lines
    assert any(line.startswith("sessions per user by day (UTC): ") for line in lines)
    assert any(line.split() == ["4", "film.film.directed_by,", "attribute,", "reverse", "of",
                                "film.director.film"] for line in lines)  # fmt: skip
    assert lines[-1] == "entities without a name: 6 of 9"


def test_describe_bad_folders(tmp_path, capsys):
    assert "does not exist" in complaint(capsys, "describe", tmp_path / "no")
    assert "should hold one .inter file; found: none" in complaint(capsys, "describe", tmp_path)


@pytest.mark.skipif(not SHARED_ML_1M.is_dir(), reason="the shared ml-1m is not here")
def test_describe_ml_1m(capsys):
    assert main(["describe", str(SHARED_ML_1M)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "ml-1m: 932,293 interactions, 2,983 linked items, 6,040 users, 28,123 entities, "
        "17 relations, 111,740 triples"
    )


def test_a_run_says_where_an_absent_dataset_comes_from(tmp_path, monkeypatch):
    from ksr_recbole.quick_start import atomic_data

    monkeypatch.setattr(atomic_data, "DATASETS", tmp_path)
    with pytest.raises(UserError) as raised:
        atomic_data.prepare_atomic_files(absent("ml-1m", tmp_path))
    sentence = str(raised.value)
    assert "https://files.grouplens.org/datasets/movielens/ml-1m.zip" in sentence
    assert "python run_recbole.py --dataset=ml-1m" in sentence
    with pytest.raises(UserError) as raised:
        atomic_data.prepare_atomic_files(absent("amazon-book", tmp_path))
    sentence = str(raised.value)
    assert "python -m dataset_atomic convert amazon-book --raw raw/amazon-book" in sentence
    assert "fetch amazon-book" in sentence and "--data_path=FOLDER" in sentence


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m"])
def test_files_without_interactions_are_not_replaced(name, tmp_path, monkeypatch):
    """They may be a user's own graph, put where a dataset is made."""
    from ksr_recbole.quick_start import atomic_data

    monkeypatch.setattr(atomic_data, "DATASETS", tmp_path)
    folder = tmp_path / name
    folder.mkdir()
    for suffix in ("kg", "link"):
        (folder / f"{name}.{suffix}").write_text("mine")
    with pytest.raises(UserError, match=rf"has {name}\.kg, {name}\.link and no {name}\.inter"):
        atomic_data.prepare_atomic_files({**absent(name, tmp_path), "data_path": str(folder)})
    assert contents(folder) == {f"{name}.{suffix}": b"mine" for suffix in ("kg", "link")}


def test_links_without_a_graph(raw, tmp_path, capsys):
    sales, items = tmp_path / "sales.csv", tmp_path / "items.csv"
    sales.write_text("user_id,item_id,timestamp\nu,i,1\n")
    items.write_text("item_id,brand\ni,b\n")
    given = ["convert", "csv", "--dataset=s", "--raw", sales, "--items", items]
    given += ["--out", tmp_path / "o", "--link", write_links(tmp_path / "l.txt")]
    assert "give the graph with --kg=PATH, or leave --link out" in complaint(capsys, *given)


def absent(name: str, folder: Path) -> dict[str, object]:
    places = {"dataset": name, "data_path": str(folder / name), "download": False}
    return {**dict.fromkeys(KEYS.values()), **places}


def test_two_conversions_into_one_folder_both_end_well(raw, tmp_path, monkeypatch, capsys):
    """One of them ended with a sentence about files that were replaced while they were read."""
    out = tmp_path / "o"
    assert convert("ml-20m", out, "--raw", raw) == 0
    before, first = contents(out), capsys.readouterr().out
    ids, others = table1._ids, [True]

    def ids_late(*words, **named):
        if others:  # another command writes the same while this one describes what it has written
            others.clear()
            assert convert("ml-20m", out, "--raw", raw, "--overwrite") == 0
        return ids(*words, **named)

    monkeypatch.setattr(table1, "_ids", ids_late)
    assert convert("ml-20m", out, "--raw", raw, "--overwrite") == 0
    assert not others and contents(out) == before
    assert capsys.readouterr().out.splitlines()[-2:] == first.splitlines()[-2:]
