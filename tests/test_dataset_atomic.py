"""The conversion of ml-100k, and the filtering of Sec. 5.1 against a version with loops."""

from __future__ import annotations

import random
import shutil
from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_atomic import atomic, ml_100k
from dataset_atomic.atomic import AtomicTable, read_atomic, write_atomic_files
from dataset_atomic.convert import Options
from dataset_atomic.describe import describe
from dataset_atomic.filtering import (
    Funnel,
    LinkedData,
    core_of,
    default_min_triples,
    filter_to_fixed_point,
    largest_core,
    relation_table,
)
from dataset_atomic.ml_100k import (
    FREEBASE,
    bundled_folder,
    convert_ml_100k,
    correct_link,
    read_crosswalk,
)
from dataset_atomic.table1 import describe_table1
from ksr_recbole.errors import UserError
from tests.raw_samples import contents

SUFFIXES = ("inter", "item", "kg", "link", "relation", "user")

# Titles in ml-100k, and the entity that Freebase calls by that name.
KNOWN_FILMS = {
    "1": ("Toy Story", "m.0dyb1"),
    "2": ("GoldenEye", "m.01npcx"),
    "12": ("Usual Suspects, The", "m.016fyc"),
    "22": ("Braveheart", "m.01gc7"),
    "50": ("Star Wars", "m.0dtfn"),
    "56": ("Pulp Fiction", "m.0f4_l"),
    "64": ("Shawshank Redemption, The", "m.07jnt"),
    "69": ("Forrest Gump", "m.0bdjd"),
    "89": ("Blade Runner", "m.017n9"),
    "96": ("Terminator 2: Judgment Day", "m.07gp9"),
    "98": ("Silence of the Lambs, The", "m.07cyl"),
    "100": ("Fargo", "m.011yhm"),
    "127": ("Godfather, The", "m.07g1sm"),
    "172": ("Empire Strikes Back, The", "m.0f3m1"),
    "181": ("Return of the Jedi", "m.0ddjy"),
    "204": ("Back to the Future", "m.0bt4g"),
}

ATTRIBUTES = [
    "film.film.actor",
    "film.film.award_nomination",
    "film.film.award_won",
    "film.film.cinematography",
    "film.film.country",
    "film.film.directed_by",
    "film.film.genre",
    "film.film.language",
    "film.film.prequel",
    "film.film.produced_by",
    "film.film.production_companies",
    "film.film.rating",
    "film.film.sequel",
    "film.film.subjects",
    "film.film.written_by",
]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The folder of a conversion with default options, and its report."""
    folder = tmp_path_factory.mktemp("converted") / FREEBASE
    return folder, convert_ml_100k(folder, FREEBASE)


@pytest.fixture(scope="module")
def tables(converted):
    folder, _ = converted
    return {s: read_atomic(folder / f"{FREEBASE}.{s}", []).frame for s in SUFFIXES}


# --- ml-100k ---------------------------------------------------------------------------------


def test_known_films_have_their_own_entity(tables):
    films = tables["item"].join(tables["link"], on="item_id")
    found = {
        item: (title, entity)
        for item, title, entity in films.select("item_id", "movie_title", "entity_id").iter_rows()
    }
    assert {item: found[item] for item in KNOWN_FILMS} == KNOWN_FILMS


def test_the_bundled_link_needs_the_correction():
    bundled = dict(read_atomic(bundled_folder() / "ml-100k.link", []).frame.iter_rows())
    assert bundled["50"] == "m.016fyc"  # The Usual Suspects
    right = [item for item, (_, entity) in KNOWN_FILMS.items() if bundled.get(item) == entity]
    assert right == ["1"]  # the two numberings agree by chance


def test_items_that_share_an_entity_both_stay(converted, tables):
    _, report = converted
    entity = dict(tables["link"].iter_rows())
    assert entity["246"] == entity["268"] == "m.0gd92"  # Chasing Amy is listed twice
    assert {"246", "268"} <= set(tables["inter"]["item_id"])
    shared = [e for e, n in Counter(entity.values()).items() if n > 1]
    assert report.shared_entities == len(shared) == 8


def test_table1_and_funnels(converted, tables):
    folder, report = converted
    assert report.table1 == describe_table1(folder, FREEBASE)
    assert describe_table1(folder, FREEBASE).line() == (
        "ml-100k-freebase: 94,423 interactions, 1,091 linked items, 943 users, "
        "29,086 entities, 23 relations, 73,742 triples"
    )
    assert {f.table: f.rows_out for f in report.funnels} == {
        f".{suffix}": tables[suffix].height for suffix in SUFFIXES if suffix != "relation"
    }
    rows_in = {f.table: f.rows_in for f in report.funnels}
    assert rows_in == {
        ".inter": 100_000,
        ".link": 1_682,
        ".kg": 91_631,
        ".item": 1_682,
        ".user": 943,
    }
    assert report.min_triples == 73


def test_the_tables_belong_together(tables):
    inter, link, kg = tables["inter"], tables["link"], tables["kg"]
    assert min(Counter(inter["user_id"]).values()) >= 10
    assert min(Counter(inter["item_id"]).values()) >= 10
    assert set(inter["item_id"]) == set(link["item_id"]) == set(tables["item"]["item_id"])
    assert set(inter["user_id"]) == set(tables["user"]["user_id"])
    assert link["item_id"].is_unique().all()
    entities = set(link["entity_id"])
    assert entities <= set(kg["head_id"]) | set(kg["tail_id"])
    assert all(h in entities or t in entities for h, _, t in kg.iter_rows())
    assert min(Counter(kg["relation_id"]).values()) >= 91
    assert kg.is_unique().all()


def test_rows_and_columns_are_the_source_s(converted):
    folder, _ = converted
    for suffix in ("item", "kg", "user"):
        source = (bundled_folder() / f"ml-100k.{suffix}").read_text().splitlines()
        lines = (folder / f"{FREEBASE}.{suffix}").read_text().splitlines()
        assert lines[0] == source[0]
        remaining = iter(source)
        assert all(line in remaining for line in lines)  # in the source's order


def test_interactions_are_in_the_order_of_time_and_ties_in_the_file_s(tables):
    source = read_atomic(bundled_folder() / "ml-100k.inter", []).frame
    kept = source.filter(pl.col("item_id").is_in(tables["inter"]["item_id"].implode()))
    kept = kept.filter(pl.col("user_id").is_in(tables["inter"]["user_id"].implode()))
    expected = sorted(kept.iter_rows(), key=lambda row: float(row[3]))
    assert [(u, i, float(r), float(t)) for u, i, r, t in tables["inter"].iter_rows()] == [
        (u, i, float(r), float(t)) for u, i, r, t in expected
    ]


def test_attributes_and_reverses_of_ml_100k(converted, tables):
    _, report = converted
    assert sorted(report.attributes) == ATTRIBUTES
    relation = tables["relation"]
    assert relation.filter(pl.col("attribute") == "1")["relation_id"].to_list() == ATTRIBUTES
    reverse = dict(relation.select("relation_id", "reverse_id").iter_rows())
    assert reverse["film.film.directed_by"] == "film.director.film"
    assert reverse["film.film.prequel"] == "film.film.sequel"
    assert reverse["film.film.actor"] is None
    assert all(reverse[r] is None or reverse[reverse[r]] == r for r in reverse)


def test_the_conversion_is_reproducible(converted, tmp_path):
    folder, report = converted
    again = convert_ml_100k(tmp_path / FREEBASE, FREEBASE)
    assert contents(tmp_path / FREEBASE) == contents(folder)
    assert again.lines()[:-1] == report.lines()[:-1]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interrupted_conversion_leaves_the_old_files(tmp_path, monkeypatch, interruption):
    convert_ml_100k(tmp_path, options=Options(k_core=50))
    before = contents(tmp_path)
    write, calls = atomic._write, []

    def interrupted(path, *table):
        calls.append(path)
        if len(calls) == 4:
            path.write_text("half a fi")
            raise interruption
        write(path, *table)

    monkeypatch.setattr(atomic, "_write", interrupted)
    with pytest.raises(interruption):
        convert_ml_100k(tmp_path, options=Options(k_core=40, overwrite=True))
    assert contents(tmp_path) == before


# --- bad input -------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A copy of the source files to damage, which is what is converted."""
    folder = tmp_path / "source"
    shutil.copytree(bundled_folder(), folder)
    monkeypatch.setattr(ml_100k, "bundled_folder", lambda: folder)
    return folder


def complaint(out_dir, **options) -> str:
    with pytest.raises(UserError) as raised:
        convert_ml_100k(out_dir, FREEBASE, options=Options(**options))
    assert not out_dir.exists()
    return str(raised.value)


def replace_line(path, number: int, text: str) -> None:
    lines = path.read_text().split("\n")
    lines[number - 1] = text
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("suffix", ["inter", "item", "kg", "link", "user"])
def test_a_missing_or_empty_source_file(source, tmp_path, suffix):
    path = source / f"ml-100k.{suffix}"
    path.write_text("")
    sentence = complaint(tmp_path / "out")
    assert str(path) in sentence and "is empty" in sentence
    path.unlink()
    sentence = complaint(tmp_path / "out")
    assert str(path) in sentence and "does not exist" in sentence


@pytest.mark.parametrize(
    ("suffix", "line", "text", "expected"),
    [
        ("inter", 1, "user_id:token\titem_id:token\trating:float\ttime:float", "'timestamp'"),
        ("inter", 1, "user_id\titem_id\trating\ttimestamp", "`name:type`"),
        ("inter", 7, "1\t2\t3", "3 columns found where the header has 4"),
        ("inter", 100_001, "1\t2\t3\tyesterday", "'yesterday' in column 'timestamp'"),
        ("inter", 9, "1\t2\tgood\t3", "'good' in column 'rating'"),
        ("kg", 1, "head:token\trelation_id:token\ttail_id:token", "'head_id'"),
        ("kg", 50, "m.1\tr\tm.2\tm.3", "4 columns found"),
        ("link", 3, "3\t", "'entity_id' is empty"),
        ("item", 2, "1", "1 column found"),
        ("user", 2, "1 24 M technician 85711", "1 column found"),
    ],
)
def test_a_malformed_source_file(source, tmp_path, suffix, line, text, expected):
    path = source / f"ml-100k.{suffix}"
    replace_line(path, line, text)
    sentence = complaint(tmp_path / "out")
    assert f"{path}, line {line}:" in sentence and expected in sentence


def test_windows_line_ends_change_nothing(source, tmp_path, converted):
    for path in source.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    convert_ml_100k(tmp_path / "out", FREEBASE)
    assert contents(tmp_path / "out") == contents(converted[0])


def test_nothing_left(tmp_path):
    sentence = complaint(tmp_path / "out", k_core=10_000)
    assert "No linked item" in sentence and "k_core=10000" in sentence
    least = int(sentence.partition("--k-core=")[2].split()[0])
    assert complaint(tmp_path / "out", k_core=least + 1).endswith(sentence[-25:])
    sentence = complaint(tmp_path / "out", min_triples=10**6)
    assert "'m.0dyb1'" in sentence  # an example of the links
    assert "No linked item" in sentence and "min_triples=1000000" in sentence


def test_bad_options(tmp_path):
    assert "`k_core` is 0" in complaint(tmp_path / "out", k_core=0)
    assert "`min_triples` is -1" in complaint(tmp_path / "out", min_triples=-1)


def test_no_attribute_left(source, tmp_path):
    # Only the sides that lead to a film: nothing describes an item.
    path = source / "ml-100k.kg"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *(x for x in lines if "film.film." not in x)]) + "\n")
    assert "no attribute" in complaint(tmp_path / "out")


def test_a_target_that_cannot_be_written(tmp_path):
    (tmp_path / "ml-100k.inter").mkdir()
    with pytest.raises(UserError, match=r"Cannot write .*ml-100k\.inter"):
        convert_ml_100k(tmp_path, options=Options(overwrite=True))
    assert [path.name for path in tmp_path.iterdir()] == ["ml-100k.inter"]


def test_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"Cannot write .*file"):
        convert_ml_100k(tmp_path / "file" / "ml-100k")


def test_without_recbole(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install recbole"):
        bundled_folder()


# --- filtering -------------------------------------------------------------------------------


def frame(columns: str, rows) -> pl.DataFrame:
    names = columns.split()
    return pl.DataFrame(list(rows), schema=dict.fromkeys(names, pl.String), orient="row")


def linked_data(inter, link, kg) -> LinkedData:
    return LinkedData(
        frame("user_id item_id", inter),
        frame("item_id entity_id", link),
        frame("head_id relation_id tail_id", kg),
    )


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_triples_further_than_so_many_steps_are_left_out(hops):
    kg = [(f"e{k}", "r", f"e{k + 1}") for k in range(6)]
    data = linked_data([("u", "i")], [("i", "e0")], kg)
    left, funnels, _ = filter_to_fixed_point(data, k_core=1, min_triples=1, hops=hops)
    assert left.kg.rows() == kg[:hops] and funnels.kg.rows_out == hops


def filter_by_loops(inter, link, kg, k_core, min_triples, rng):
    """Drop one thing at a time, whatever breaks a rule, until nothing does."""
    inter, link, kg = list(inter), list(link), list(dict.fromkeys(kg))
    while True:
        users, items = Counter(u for u, _ in inter), Counter(i for _, i in inter)
        relations = Counter(r for _, r, _ in kg)
        linked_items, entities = {i for i, _ in link}, {e for _, e in link}
        in_graph = {h for h, _, _ in kg} | {t for _, _, t in kg}
        broken = [
            *((inter, x) for x in inter if min(users[x[0]], items[x[1]]) < k_core),
            *((inter, x) for x in inter if x[1] not in linked_items),
            *((link, x) for x in link if x[0] not in items or x[1] not in in_graph),
            *((kg, x) for x in kg if x[0] not in entities and x[2] not in entities),
            *((kg, x) for x in kg if relations[x[1]] < min_triples),
        ]
        if not broken:
            return inter, link, kg
        rows, row = rng.choice(broken)
        rows.remove(row)


def ids(prefix: str, n: int):
    return st.integers(0, n - 1).map(lambda k: f"{prefix}{k}")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    inter=st.lists(st.tuples(ids("u", 5), ids("i", 5)), max_size=40),
    # Items 1 and 2 share an entity; the last items have none.
    n_linked=st.integers(0, 5),
    kg=st.lists(st.tuples(ids("e", 8), ids("r", 3), ids("e", 8)), max_size=30),
    k_core=st.integers(1, 4),
    min_triples=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_the_fixed_point_agrees_with_loops(inter, n_linked, kg, k_core, min_triples, seed):
    link = [("i0", "e0"), ("i1", "e1"), ("i2", "e1"), ("i3", "e3"), ("i4", "e4")][:n_linked]
    data, funnels, _ = filter_to_fixed_point(
        linked_data(inter, link, kg), k_core=k_core, min_triples=min_triples
    )
    expected = filter_by_loops(inter, link, kg, k_core, min_triples, random.Random(seed))
    # Rows that occur twice may stand in another order after list.remove().
    assert Counter(data.inter.iter_rows()) == Counter(expected[0])
    assert data.link.rows() == expected[1]
    assert data.kg.rows() == expected[2]
    assert (funnels.inter.rows_out, funnels.link.rows_out, funnels.kg.rows_out) == data.sizes


def test_a_dropped_relation_unlinks_its_items_and_starts_a_cascade():
    # i1 is known to the graph by the rare relation alone; without it u1 leaves the 2-core,
    # then i2 does, then e2 has no item, and its triples are beyond one step.
    inter = [("u0", "i0"), ("u0", "i3"), ("u2", "i0"), ("u2", "i3")]
    inter += [("u1", "i1"), ("u0", "i1"), ("u1", "i2"), ("u0", "i2")]
    link = [(f"i{k}", f"e{k}") for k in range(4)]
    kg = [("e0", "often", "x"), ("e3", "often", "x"), ("e2", "often", "y"), ("e1", "rare", "x")]
    data, funnels, rounds = filter_to_fixed_point(
        linked_data(inter, link, kg), k_core=2, min_triples=2
    )
    assert data.inter.rows() == inter[:4]
    assert data.link.rows() == [("i0", "e0"), ("i3", "e3")]
    assert data.kg.rows() == kg[:2]
    assert rounds > 2
    assert funnels.kg.dropped == {
        "relation with fewer than 2 triples": 1,
        "beyond one step of the linked items": 1,
    }


def test_the_threshold_for_relations_is_scaled_down_only():
    assert default_min_triples(63_000_000) == 5_000
    assert default_min_triples(91_631) == 91
    assert default_min_triples(10) == 1


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7])
def test_the_largest_core_is_the_last_that_is_not_empty(k):
    """Every one of ``k`` users has each of ``k`` items, and there is somebody else."""
    pairs = [(f"u{u}", f"i{i}") for u in range(k) for i in range(k)] + [("v", "i0")]
    inter = frame("user_id item_id", pairs)
    assert largest_core(inter) == k
    assert core_of(inter, k + 1).is_empty()


def test_a_funnel_reads_well():
    funnel = Funnel(".kg", 91_631, {"repeated triple": 0, "infrequent relation": 1_006})
    assert funnel.line() == (
        ".kg: 91,631 rows in, 0 dropped (repeated triple), "
        "1,006 dropped (infrequent relation), 90,625 rows out"
    )


def test_the_crosswalk_lists_18_films_twice():
    crosswalk = read_crosswalk()
    assert crosswalk["item_id"].is_unique().all()
    assert crosswalk.height - crosswalk["movielens_id"].n_unique() == 18


def test_correct_link_goes_through_the_movielens_id():
    items = frame("item_id", [("7",), ("3",), ("5",), ("9",)])
    bundled = frame("item_id entity_id", [("3", "m.a"), ("30", "m.b"), ("30", "m.z")])
    crosswalk = frame("item_id movielens_id", [("3", "30"), ("7", "30"), ("5", "50")])
    funnel = Funnel(".link", 4)
    link = correct_link(items, bundled, crosswalk, funnel)
    assert link.rows() == [("7", "m.b"), ("3", "m.b")]
    assert funnel.dropped == {"item without a MovieLens id": 1, "MovieLens id without an entity": 1}


# --- atomic files and Table 1 ----------------------------------------------------------------


def test_text_survives_a_round_trip(tmp_path):
    content = (
        'item_id:token\ttitle:token_seq\tx:float\n1\t"Heat", a "film"\t\n02\tAmélie #1\t1.50\n'
    )
    (tmp_path / "a[1].item").write_text(content)
    table = read_atomic(tmp_path / "a[1].item", {"item_id": "token"})
    write_atomic_files(tmp_path / "new", "b", {"item": table})
    assert (tmp_path / "new" / "b.item").read_text() == content


def test_a_dataset_without_a_graph_is_described_without_one(tmp_path):
    (tmp_path / "bare.inter").write_text(
        "user_id:token\titem_id:token\ttimestamp:float\n1\ta\t5\n1\tb\t6\n2\ta\t7\n"
    )
    first, *rest = describe(tmp_path)
    assert first == (
        "bare: 3 interactions, 2 items, 2 users, no knowledge graph (no bare.kg and .link)"
    )
    assert rest[0].startswith("time: 1970-01-01") and not any("triples" in line for line in rest)
    (tmp_path / "bare.kg").write_text("head_id:token\trelation_id:token\ttail_id:token\na\tr\tb\n")
    with pytest.raises(UserError, match=r"bare\.link does not exist"):
        describe(tmp_path)


@pytest.mark.parametrize(
    ("time", "told"),
    [
        (" 6", "1970-01-01 to 1970-01-01 (UTC)"),
        ("90000 ", "1970-01-01 to 1970-01-02 (UTC)"),
        ("1e308", "1970-01-01 to 1e+308 seconds after 1970, which no calendar has (UTC)"),
        ("-1e15", "-1e+15 seconds after 1970, which no calendar has to 1970-01-01 (UTC)"),
        ("253402300800", "1970-01-01 to 2.53402e+11 seconds after 1970, which no calendar has"),
    ],
)
def test_odd_times_that_a_run_accepts_are_described(tmp_path, time, told):
    (tmp_path / "bare.inter").write_text(
        f"user_id:token\titem_id:token\ttimestamp:float\n1\ta\t5\n1\tb\t{time}\n2\ta\t7\n"
    )
    assert describe(tmp_path)[1].startswith(f"time: {told}")


def test_what_the_links_cost_is_described(tmp_path):
    files = {
        "inter": ["user_id:token\titem_id:token\ttimestamp:float", "1\ta\t5", "1\tb\t6", "2\ta\t7"],
        "kg": ["head_id:token\trelation_id:token\ttail_id:token", "e1\tr\te2"],
        "link": ["item_id:token\tentity_id:token", "a\tgone", "b\te1"],
    }
    for suffix, lines in files.items():
        (tmp_path / f"few.{suffix}").write_text("".join(f"{line}\n" for line in lines))
    told = describe(tmp_path)
    expected = (
        "items: 2, of which 1 without a link to an entity with triples; with these: 2 interactions"
    )
    assert expected in told
    assert "links: 2; 0 entities shared by several items" in told


def test_table1_counts_what_the_files_hold(tmp_path):
    tables = {
        # i9 is not linked; i8 is, but nobody interacted with it.
        "inter": frame("user_id item_id", [("u1", "i1"), ("u1", "i1"), ("u2", "i9"), ("u2", "i2")]),
        "link": frame("item_id entity_id", [("i1", "e1"), ("i2", "e1"), ("i8", "e8")]),
        "kg": frame("head_id relation_id tail_id", [("e1", "r", "x"), ("x", "s", "e1")]),
    }
    tokens = {s: AtomicTable(t, dict.fromkeys(t.columns, "token")) for s, t in tables.items()}
    write_atomic_files(tmp_path, "tiny", tokens)
    assert describe_table1(tmp_path, "tiny").line() == (
        "tiny: 4 interactions, 2 linked items, 2 users, 2 entities, 2 relations, 2 triples"
    )
    (tmp_path / "tiny.kg").unlink()
    with pytest.raises(UserError, match=r"tiny\.kg does not exist"):
        describe_table1(tmp_path, "tiny")


def test_of_several_malformed_files_read_side_by_side_the_first_is_named(tmp_path):
    files = {
        "inter": ["user_id:token\titem_id:token", "u1\ti1"],
        "link": ["item_id:token\tentity_id:token", "i1\te1"],
        "kg": ["head_id:token\trelation_id:token\ttail_id:token", "e1\tr\tx"],
    }
    for suffix, lines in files.items():
        (tmp_path / f"tiny.{suffix}").write_text("".join(f"{line}\n" for line in [*lines, "odd"]))
    for suffix, lines in files.items():
        for _ in range(5):
            with pytest.raises(UserError, match=rf"tiny\.{suffix}, line 3"):
                describe_table1(tmp_path, "tiny")
        (tmp_path / f"tiny.{suffix}").write_text("".join(f"{line}\n" for line in lines))
    assert describe_table1(tmp_path, "tiny").triples == 1


def test_the_relation_table_names_reverses_and_attributes():
    link = frame("item_id entity_id", [("i1", "e1"), ("i2", "e2"), ("i3", "elsewhere")])
    kg = [("e1", "spouse", "e2"), ("e2", "spouse", "e1"), ("e1", "by", "x"), ("x", "of", "e1")]
    kg = frame("head_id relation_id tail_id", [*kg, ("x", "born", "y")])
    assert relation_table(kg, link).frame.rows() == [
        ("born", None, "0"),
        ("by", "of", "1"),
        ("of", "by", "0"),
        ("spouse", "spouse", "1"),
    ]
