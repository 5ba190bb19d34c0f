"""``convert csv --items``: a table of items in place of a knowledge graph."""

from __future__ import annotations

import gzip
import json
import random
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from dataset_atomic.atomic import read_atomic
from dataset_atomic.cli import main
from dataset_atomic.convert import read_names
from dataset_atomic.items import ItemColumns, read_items
from dataset_atomic.raw.columns import _numbers
from dataset_atomic.raw.links import read_links
from dataset_atomic.raw.stream import TextFormat, read_table
from dataset_atomic.raw.triples import scan_triples
from dataset_atomic.raw.typed import read_typed
from ksr_recbole.errors import UserError
from tests.raw_samples import write
from tests.toy import toy_values

N_ITEMS = 40


def rows() -> list[dict[str, str]]:
    """Items of a shop; ``sku`` tells them apart and says nothing else."""
    return [
        {
            "item_id": f"{i}",
            "title": f'The "{i}"',
            "brand": f"B{i % 5}",
            "tags": "red|blue" if i % 3 else "red",
            "colours": "a;b" if i % 2 else "",
            "words": f"x{i % 4},y{i % 3}",
            "maker": f"Smith {i % 7}, John",
            "json": f'["p{i % 2}", "it\'s"]',
            "price": f"${3 + i * 1.5:.2f}",
            "rooms": f"{1 + i % 4}",
            "released": f"20{10 + i % 9}-01-11",
            "year": f"{1990 + i % 20}",
            "sku": f"S{i}",
            "nothing": "",
        }
        for i in range(N_ITEMS)
    ]


def write_csv(path: Path, table: list[dict[str, str]]) -> Path:
    pl.DataFrame(table).write_csv(path, quote_style="always")
    return path


def write_sales(path: Path, items: list[int], suffix: str = "csv") -> Path:
    chosen = random.Random(3)
    sales = [
        {"user_id": f"u{u}", "item_id": f"{i}", "timestamp": 1_600_000_000 + 90 * u + k}
        for u in range(25)
        for k, i in enumerate(chosen.sample(items, 12))
    ]
    frame = pl.DataFrame(sales)
    write = {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}
    write[suffix](path)
    return path


def facts_of(path: Path, **options) -> tuple[dict[str, set[str]], tuple[str, ...]]:
    items = read_items(path, ItemColumns(**options))
    found: dict[str, set[str]] = {}
    for item, relation, _, name in items.facts.iter_rows():
        if item == "1":
            found.setdefault(relation, set()).add(name)
    return found, items.notes


def test_columns_of_every_kind(tmp_path):
    found, notes = facts_of(write_csv(tmp_path / "items.csv", rows()))
    assert found == {
        "brand": {"B1"},
        "tags": {"red", "blue"},
        "colours": {"a", "b"},
        "words": {"x1", "y1"},
        "maker": {"Smith 1, John"},
        "json": {"p1", "it's"},
        "price": {"price 3 to 14.7"},
        "rooms": {"2"},
        "released": {"2011"},
        "year": {"1991"},
    }
    told = "\n".join(notes)
    assert "sku: left out, as every value is different" in told
    assert "nothing: left out, as no item has a value" in told
    assert "price: numbers cut into 5 ranges" in told
    assert "colours: lists split at ';', 2 values, 20 items have none" in told


def test_every_number_is_in_its_range(tmp_path):
    items = read_items(write_csv(tmp_path / "i.csv", rows()), ItemColumns(attributes=("price",)))
    assert items.facts.height == N_ITEMS
    sizes = items.facts["name"].value_counts()["count"].to_list()
    assert len(sizes) == 5 and min(sizes) >= 6
    for item, _, _, name in items.facts.iter_rows():
        low, high = (float(each) for each in name.removeprefix("price ").split(" to "))
        assert low <= 3 + int(item) * 1.5 <= high


@pytest.mark.parametrize(
    ("numbers", "evenly"),
    [
        ([0.0] * 90 + [0.5 + k for k in range(15)], "about as many different numbers each"),
        ([52.500011 + k * 1e-8 for k in range(40)], "about as many items each"),
    ],
)
def test_ranges_tell_numbers_apart(tmp_path, numbers, evenly):
    """Where most items have one number, and where all are close to each other."""
    lines = ["item_id,discount", *(f"{k},{number!r}" for k, number in enumerate(numbers))]
    path = write(tmp_path / "i.csv", lines)
    items = read_items(path, ItemColumns(attributes=("discount",)))
    names = dict(items.facts.select("item_id", "name").iter_rows())
    assert len(set(names.values())) == 5 and names["0"] != names[str(len(numbers) - 1)]
    assert f"numbers cut into 5 ranges with {evenly}" in "\n".join(items.notes)


def test_what_is_whole_is_left_as_it_is(tmp_path):
    path = write_csv(tmp_path / "items.csv", rows())
    found, _ = facts_of(path, attributes=("tags", "year"), whole=("tags", "year"))
    assert found == {"tags": {"red|blue"}, "year": {"1991"}}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_tables_with_types(tmp_path, suffix):
    table = [
        {"item_id": i, "tags": ["red", "blue"][: 1 + i % 2], "price": 1.5 * i, "brand": f"B{i % 3}"}
        for i in range(N_ITEMS)
    ]
    path = tmp_path / f"items.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in table))
    else:
        pl.DataFrame(table).write_parquet(path)
    found, _ = facts_of(path)
    assert found["tags"] == {"red", "blue"} and found["brand"] == {"B1"}
    assert found["price"] == {"price 0 to 11.7"}
    sales = write_sales(tmp_path / f"sales.{suffix}", list(range(N_ITEMS)), suffix)
    assert convert(tmp_path, sales, path) == 0
    (tmp_path / f"bad.{suffix}").write_bytes(b"\x00nothing of the kind")
    with pytest.raises(UserError, match=f"bad.{suffix}(, line 1)? cannot be read as"):
        read_items(tmp_path / f"bad.{suffix}", ItemColumns())


def convert(folder: Path, sales: Path, items: Path, *more: str) -> int:
    out = folder / "shop"
    given = ["--raw", str(sales), "--items", str(items), "--dataset=shop", "--out", str(out)]
    return main(["convert", "csv", *given, "--k-core=2", *more])


@pytest.mark.parametrize(("long", "kept"), [(1_994, True), (1_995, False)])
def test_a_column_of_long_values_is_left_out(long, kept, tmp_path, capsys):
    table = [{**row, "story": "é" * (long // 2) + "x" * (long % 2)} for row in rows()]
    items = write_csv(tmp_path / "items.csv", table)
    sales = write_sales(tmp_path / "sales.csv", list(range(N_ITEMS)))
    assert convert(tmp_path, sales, items, "--attributes=brand,story") == 0
    told = "story: left out, as a value with the column's name has 2,001 bytes"
    assert (told in capsys.readouterr().out) is not kept


def test_long_ids_are_refused_before_anything_is_written(tmp_path, capsys):
    items = write_csv(tmp_path / "items.csv", rows())
    sales = write_sales(tmp_path / "sales.csv", list(range(N_ITEMS)))
    text = sales.read_text()
    sales.write_text(text.replace("u1,", f"{'u' * 2_001},", 1))
    assert convert(tmp_path, sales, items) == 2
    assert "sales.csv, line 14: the user_id 'uuu" in capsys.readouterr().err
    sales.write_text(text)
    write_csv(items, [*rows(), {**rows()[0], "item_id": "i" * 1_996}])
    assert convert(tmp_path, sales, items) == 2
    assert "items.csv: the id 'iii" in capsys.readouterr().err
    (tmp_path / "kg").write_text("".join(f"e{i}\tgenre\t{'g' * 2_001}\n" for i in range(40)))
    (tmp_path / "link").write_text("".join(f"{i}\te{i}\n" for i in range(40)))
    graph = [f"--{name}={tmp_path / name}" for name in ("kg", "link")]
    command = ["convert", "csv", f"--raw={sales}", "--dataset=shop", f"--out={tmp_path / 'shop'}"]
    assert main([*command, *graph, "--k-core=2", "--min-triples=1"]) == 2
    assert "in column tail_id of .kg has 2,001 bytes" in capsys.readouterr().err
    assert not (tmp_path / "shop").exists()


def test_blanks_within_ids_are_kept_in_both_tables(tmp_path, capsys):
    spaced = [{**row, "item_id": f" a  {row['item_id']} "} for row in rows()]
    items = write_csv(tmp_path / "i.csv", spaced)
    sales = write_sales(tmp_path / "sales.csv", list(range(N_ITEMS)))
    text = sales.read_text()
    lines = [line.split(",") for line in text.splitlines()]
    lines[1:] = [[user, f"a  {item}", time] for user, item, time in lines[1:]]
    sales.write_text("\n".join(map(",".join, lines)) + "\n")
    assert convert(tmp_path, sales, items) == 0
    found = read_atomic(tmp_path / "shop" / "shop.item", []).frame["item_id"]
    assert "a  7" in found.to_list()
    write_csv(items, [*rows(), {**rows()[0], "item_id": "a\tb"}])
    with pytest.raises(UserError, match=r"i.csv: the id 'a\\tb' of item 41 .* holds a tab"):
        read_items(items, ItemColumns())


def test_titles_and_values_have_names_and_unknown_items_are_counted(tmp_path, capsys):
    items = write_csv(tmp_path / "items.csv", [*rows(), {**rows()[0], "item_id": "unsold"}])
    sales = write_sales(tmp_path / "sales.csv", [*range(N_ITEMS), 777])
    assert convert(tmp_path, sales, items, "--attributes=brand,price") == 0
    told = capsys.readouterr().out
    assert "1 dropped (item not in .inter)" in told  # `unsold`
    assert "dropped (item without an entity)" in told  # item 777 of the log
    assert "graph: the columns of items.csv" in told
    names = dict(read_atomic(tmp_path / "shop/shop.entity", []).frame.iter_rows())
    assert names["item/7"] == "The '7'" and names["brand/B2"] == "B2"
    graph = read_atomic(tmp_path / "shop/shop.kg", []).frame
    assert set(graph["head_id"]) | set(graph["tail_id"]) == set(names)
    assert "The '7'" in set(read_atomic(tmp_path / "shop/shop.item", []).frame["title"])


def test_two_tables_to_a_trained_model(tmp_path, capfd):
    from ksr_recbole.quick_start import run

    sales = write_sales(tmp_path / "sales.csv", list(range(N_ITEMS)))
    assert convert(tmp_path, sales, write_csv(tmp_path / "items.csv", rows())) == 0
    values = toy_values(tmp_path, epochs=1)
    values = {key: value for key, value in values.items() if key != "eval_args"}
    values |= {"report_modes": ["uni50pop50", "full"], "state": "INFO"}
    result = run("KSR", "shop", None, values)
    told = "".join(capfd.readouterr())
    assert "the catalogue has 40 items" in told and "popular items instead of 50 and 50" in told
    assert told.count("the catalogue has 40 items") == 1  # one line for both phases
    assert result["test_result"]["hit@10"] > 0


def test_a_user_who_took_everything_is_named(tmp_path):
    """All positives get as many candidates as this user has left, which are none."""
    from ksr_recbole.quick_start import run

    sales = write_sales(tmp_path / "sales.csv", list(range(N_ITEMS)))
    with sales.open("a", encoding="utf-8") as file:
        for user, items in (("all", N_ITEMS), ("most", N_ITEMS - 1), ("many", N_ITEMS - 2)):
            file.writelines(f"{user},{i},{1_700_000_000 + i}\n" for i in range(items))
    assert convert(tmp_path, sales, write_csv(tmp_path / "items.csv", rows())) == 0
    values = toy_values(tmp_path, epochs=1, report_modes=["uni50pop50"])
    values = {key: value for key, value in values.items() if key != "eval_args"}
    with pytest.raises(UserError) as raised:
        run("KSR", "shop", None, values)
    assert str(raised.value) == (
        "User 'all' has interacted with all of the 40 items of the catalogue, and 1 more user at "
        "least all but one, so too few are left as candidates. Add --eval_args.mode=full "
        "--report_modes=full to rank all items, or remove users with so many "
        "interactions from the .inter file."
    )
    full = {"report_modes": ["full"], "eval_args": {"mode": "full"}}
    assert "full" in run("KSR", "shop", None, {**values, **full})["metrics"]


def complaint(path: Path, **options) -> str:
    with pytest.raises(UserError) as raised:
        read_items(path, ItemColumns(**options))
    return str(raised.value)


def test_bad_tables(tmp_path):
    path = tmp_path / "items.csv"
    assert "does not exist" in complaint(path)
    write_csv(path, [{"id": "1", "brand": "a"}, {"id": "2", "brand": "a"}])
    assert "no column 'item_id'; its columns are: id, brand" in complaint(path)
    assert "no column 'colour'" in complaint(path, item="id", attributes=("colour",))
    assert "is not an attribute" in complaint(path, item="id", whole=("colour",))
    write_csv(path, [{"item_id": "1", "brand": "a"}] * 3)
    assert "an earlier row has the id of 2 rows, such as '1'" in complaint(path)
    write_csv(path, [{"item_id": f"{k}", "sku": f"s{k}"} for k in range(3)])
    assert "No column" in complaint(path) and "every value is different" in complaint(path)
    path.write_text("item_id,brand\n1,a\n2,a,b\n")
    assert "line 3: 3 column(s)" in complaint(path)
    assert "`ranges` is 1" in complaint_of(1)


def complaint_of(ranges: int) -> str:
    with pytest.raises(UserError) as raised:
        ItemColumns(ranges=ranges)
    return str(raised.value)


def test_options_of_a_table_without_one(tmp_path, capsys):
    sales = write_sales(tmp_path / "sales.csv", [*range(20)])
    given = ["--raw", str(sales), "--dataset=shop", "--attributes=brand"]
    assert main(["convert", "csv", *given, "--out", str(tmp_path / "o")]) == 2
    assert "--items=FILE" in capsys.readouterr().err


def column(tmp_path: Path, values: list[str], name: str = "x") -> tuple[list[str], str]:
    """The values of a column as they were read, and the note on it."""
    table = [{"item_id": f"{k}", name: value, "kind": f"{k % 2}"} for k, value in enumerate(values)]
    items = read_items(write_csv(tmp_path / "i.csv", table), ItemColumns())
    note = next(note for note in items.notes if note.startswith(f"{name}: "))
    return items.facts.filter(pl.col("relation_id") == name)["name"].to_list(), note


@pytest.mark.parametrize(
    ("form", "first"),
    [
        ("€{0}", "x 0 to 2"), ("{0} €", "x 0 to 2"), ("USD {0}.00", "x 0 to 2"),
        ("$1,{0:03}.50", "x 1000.5 to 1002.9"), ("1.{0:03},50 EUR", "x 1000.5 to 1002.9"),
        ("£ 1'{0:03}", "x 1,000 to 1,002"), ("{0},50\xa0€", "x 0.5 to 2.9"),
    ],
)  # fmt: skip
def test_amounts_of_money_are_numbers(tmp_path, form, first):
    values, note = column(tmp_path, [form.format(k) for k in range(13)])
    assert "cut into 5 ranges" in note
    assert len(set(values)) == 5 and values[0].split(" to ")[0] == first.split(" to ")[0]


def test_amounts_of_several_currencies_are_not_compared(tmp_path):
    values, note = column(tmp_path, ["$1", "2 €", "$1", "£3.50"] * 4)
    assert set(values) == {"$1", "2 €", "£3.50"}
    assert "amounts in $, £, €, which are not compared" in note


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1 200.50", 1200.5), ("1'200", 1200), ("€ 1\u00a0200", 1200), ("12 €", 12), ("-5", -5),
        ("38 39 40", None), ("5'9", None), ("5'11'", None), ("978 3 16 148410 0", None),
        ("8 10", None), ("1 2000", None),
    ],
)  # fmt: skip
def test_blanks_and_apostrophes_stand_between_thousands_only(text, number):
    found, _ = _numbers(pl.Series([text]))
    assert found.to_list() == [number]


def test_codes_and_lists_of_numbers_are_no_amounts(tmp_path):
    assert column(tmp_path, ["ABC1", "ABC2", "ABC1"] * 5)[1].startswith("x: text")
    assert column(tmp_path, ["101,102", "102,103", "103,101", "101,103"] * 5)[1].startswith(
        "x: lists split"
    )


def test_where_semicolons_separate_columns_commas_are_decimal(tmp_path):
    """They were taken for lists: ``12,50`` for the two values 12 and 50."""
    rows = [f"{k};{k % 3};{k},5;1.{k:03},25;a,b" for k in range(13)]
    path = tmp_path / "i.csv"
    path.write_text("\n".join(["item_id;kind;price;big;tags", *rows]))
    items = read_items(path, ItemColumns(), ";")
    notes = dict(note.split(": ", 1) for note in items.notes)
    said = "numbers cut into 5 ranges with about as many items each; commas are decimal"
    assert notes["price"].startswith(said) and notes["big"].startswith(said)
    assert notes["tags"].startswith("text") or "lists" in notes["tags"]
    names = items.facts.filter(pl.col("relation_id") == "big")["name"].unique().to_list()
    assert len(names) == 5 and min(names) == "big 1000.25 to 1002.65"


def test_dates_of_many_forms_are_years(tmp_path):
    forms = [
        "2020-01-02",
        "31/12/2020",
        "5 May 2020",
        "2020",
        "01-Jan-2020",
        "2020-07",
        "07.08.2020",
    ]
    values, note = column(tmp_path, [*forms, "2019-01-01"])
    assert values == ["2020"] * len(forms) + ["2019"] and "years of dates" in note
    values, note = column(tmp_path, [*forms, "soon", "soon"])
    assert note.startswith("x: text") and "soon" in values


def test_lists_in_json_may_be_empty_or_hold_nothing(tmp_path):
    values, note = column(tmp_path, ["[]", "[null]", '["a"]', '["a", "b", null]', ""])
    assert values == ["a", "a", "b"] and "3 items have none" in note
    assert "left out, as it holds objects" in column(tmp_path, ['[{"n": 1}]', '{"n": 2}'] * 3)[1]


def test_only_a_name_of_items_is_a_title_and_it_is_said(tmp_path):
    table = [{"sku": f"{k}", "brand_name": f"B{k % 2}", "product_name": f"P{k}"} for k in range(6)]
    items = read_items(write_csv(tmp_path / "i.csv", table), ItemColumns(item="sku"))
    assert items.notes[0].startswith("product_name: the titles of the items")
    assert set(items.facts["name"]) == {"B0", "B1"}


def test_types_that_are_no_values_are_left_out_and_ids_may_be_floats(tmp_path):
    frame = pl.DataFrame(
        {
            "item_id": [0.0, 1.0, 2.0, 3.0],
            "brand": pl.Series(["a", "b", "a", "b"], dtype=pl.Categorical),
            "maker": [{"n": k} for k in range(4)],
            "deep": [[{"n": 1}]] * 4,
            "raw": [b"\xff"] * 4,
            "took": [timedelta(minutes=1)] * 4,
            "never": pl.Series([None] * 4, dtype=pl.Null),
        }
    )
    frame.write_parquet(path := tmp_path / "i.parquet")
    items = read_items(path, ItemColumns())
    assert items.link["item_id"].to_list() == ["0", "1", "2", "3"]
    assert set(items.facts["relation_id"]) == {"brand"}
    told = "\n".join(items.notes)
    for name in ("maker", "deep", "raw", "took", "never"):
        assert f"{name}: left out, as" in told


def test_what_other_programs_write_for_lists_and_for_nothing(tmp_path):
    values, note = column(tmp_path, ['[["a", "b"], ["c"]]', '["a"]', "b", '{"n": 1}', ""])
    assert sorted(values) == ["a", "a", "b", "b", "c"]
    assert "lists in JSON and text without 1 object in them" in note
    values, note = column(tmp_path, ["['a, b', \"it's\"]", "[3, 'a, b']", "[]"])
    assert values == ["a, b", "it's", "3", "a, b"] and "1 item has none" in note
    assert "holds objects" in column(tmp_path, ["[{'n': 1}]", "[{'n': 2}]", "[]"])[1]
    values, note = column(tmp_path, [*map(str, range(20)), "NA", "nan"])
    assert "x: numbers cut into 5 ranges" in note and "; 2 such as NA are none" in note
    assert len(values) == 20
    assert column(tmp_path, ["2001-02-03", "NULL", "2001-03-04"])[0] == ["2001", "2001"]
    assert column(tmp_path, ["NA", "NA", "EU", "EU"])[0] == ["NA", "NA", "EU", "EU"]
    values, note = column(tmp_path, [*map(str, range(20)), "na", "none", "<NA>"])
    assert "x: numbers cut into 5 ranges" in note and "; 3 such as NA are none" in note
    values, note = column(tmp_path, ["38", "39", "38", "-", "-"])  # a size for all, perhaps
    assert values.count("-") == 2 and "none" not in note


def test_numbers_of_tables_with_types(tmp_path):
    frame = pl.DataFrame(
        {
            "item_id": pl.Series([Decimal(k) for k in range(14)], dtype=pl.Decimal(9, 2)),
            "weight": [float("nan"), float("inf"), *(k / 4 for k in range(12))],
            "deep": [[["a"], ["b"]]] * 14,
            "raw": [b"a"] * 14,
        }
    )
    frame.write_parquet(path := tmp_path / "i.parquet")
    items = read_items(path, ItemColumns())
    assert items.link["item_id"].to_list() == [str(k) for k in range(14)]
    counts = items.facts["relation_id"].value_counts().iter_rows()
    assert dict(counts) == {"weight": 12, "deep": 28, "raw": 14}


def test_json_of_every_form_is_the_same_table(tmp_path):
    table = [{"item_id": k, "x": ["a", k % 2] if k % 3 else "a"} for k in range(6)]
    lines = "".join(f"{json.dumps(row)}\r\n" for row in table)
    text = "\ufeff" + lines.replace("[", "  [")
    forms = {"a.json": json.dumps(table, indent=1), "b.jsonl": lines, "c.ndjson": text}
    found = []
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content.encode())
        found.append(read_items(tmp_path / name, ItemColumns()))
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    found.append(read_items(tmp_path / "d.jsonl.gz", ItemColumns()))
    for items in found:
        assert items.notes == ("x: lists in JSON and text, 3 values",)
        assert items.facts.equals(found[0].facts) and items.facts.height == 10


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"item_id": 1}\n{"item_id":\n', "line 2 cannot be read as JSON"),
        ('{"item_id": 1, "x": [1]}\n{"item_id": 2, "x": 1}\n3\n', "line 3: 3 is no object"),
        ('[{"item_id": 1}, 2]', "element 2 of the list"),
        ('{"item_id": {"0": 1}, "x": {"0": 2}}', "'item_id' holds lists or objects"),
        ('{"item_id": 1, "x": 2}\n{"x": 2}\n', "item 2 of the table has no id"),
        ("\n\n", "is empty"),
        ("[]", "has no rows"),
    ],
)
def test_json_that_is_no_table(tmp_path, content, expected):
    (tmp_path / "i.jsonl").write_text(content)
    assert expected in complaint(tmp_path / "i.jsonl")


def test_line_ends_of_old_macs_are_one_sentence_in_every_file(tmp_path):
    """Every reader of raw files: with and without header, of fields and of JSON."""
    expected = "line 1: a carriage return stands where no line ends"
    readers = {
        "item_id,brand\r1,a\r2,a\r": lambda path: read_items(path, ItemColumns()),
        '{"item_id": 1}\r{"item_id": 2}\r': lambda path: read_typed(path.rename(f"{path}.json")),
        "1\tm.1\r2\tm.2\r": read_links,
        "m.1\tA\rm.2\tB\r": read_names,
        "m.1\tr\tm.2\rm.2\tr\tm.1\r": lambda path: scan_triples([path], pl.Series(["m.1"])),
        "<a> <b> <c> .\r<a> <b> <d> .\r": lambda path: scan_triples([path], pl.Series(["a"])),
        "1::Alien (1979)::Horror\r2::Big (1988)::Comedy\r": lambda path: read_table(
            path, _movies("::")
        ),
        "user_id,item_id,timestamp\r1,2,3\r": lambda path: read_table(path, _sales(",")),
    }
    for k, (content, reader) in enumerate(readers.items()):
        (tmp_path / f"{k}").write_bytes(content.encode())
        with pytest.raises(UserError, match=expected):
            reader(tmp_path / f"{k}")
    (tmp_path / "i.csv").write_bytes(b'item_id,brand\r\n1,"a\rb"\r\n2,"a\rb"\r\n')
    assert read_items(tmp_path / "i.csv", ItemColumns()).facts["name"].to_list() == ["a b"] * 2


def _movies(separator: str) -> TextFormat:
    return TextFormat(("item_id", "title", "genre"), separator)


def _sales(separator: str) -> TextFormat:
    names = {name: name for name in ("user_id", "item_id", "timestamp")}
    return TextFormat(names, separator, quoted=True, header=True)


def test_a_column_without_a_name_and_a_table_without_a_line(tmp_path):
    path = tmp_path / "i.csv"
    path.write_text(",item_id,brand\n0,1,a\n1,2,a\n")  # as pandas writes its index
    notes = read_items(path, ItemColumns()).notes
    assert notes[0].startswith("a column without a name: left out") and "1 value" in notes[1]
    path.write_text("")
    assert "i.csv is empty" in complaint(path)
    path.write_text("item_id;brand\n1;a\n")
    assert "the separator with --separator" in complaint(path)


@pytest.mark.parametrize(
    ("begin", "expected"),
    [(b"PK\x03\x04", "save the table as CSV"), (b"PAR1", ".parquet"), (b"BZh9", "bzip2")],
)
def test_files_of_other_kinds_are_named(tmp_path, begin, expected):
    path = tmp_path / "i.csv"
    path.write_bytes(begin + b"\x01\xff\n" * 3)
    assert expected in complaint(path)
    with pytest.raises(UserError, match=r"is not a text file\. It is "):
        read_table(path, _sales(","))


def test_quoted_headers_and_other_encodings(tmp_path):
    path = tmp_path / "i.csv"
    path.write_text('item_id,"brand, main"\n1,a\n2,a\n')
    assert set(read_items(path, ItemColumns()).facts["relation_id"]) == {"brand, main"}
    path.write_text('item_id, "made ""by""",weird ""col"" ,"""all"""\n1,a,b,c\n2,a,b,c\n')
    relations = set(read_items(path, ItemColumns()).facts["relation_id"])
    assert relations == {"made 'by'", "weird ''col''", "'all'"}  # the writer turns the quotes
    path.write_bytes("item_id,brand\n1,a\n".encode("utf-16"))
    assert "UTF-16; save it as UTF-8" in complaint(path)
