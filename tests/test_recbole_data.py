"""What RecBole's users bring: their own splits, column names, filters, times and vectors."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_atomic.cli import main
from ksr_recbole.config import Config
from ksr_recbole.config.literals import literals
from ksr_recbole.dataset.dataloader import data_preparation
from ksr_recbole.dataset.linked_dataset import NO_LINK
from ksr_recbole.dataset.recbole_dataset import recbole_dataset
from ksr_recbole.dataset.recbole_views import load_views
from ksr_recbole.dataset.sequence_datasets import WithSequences, load_dataset
from ksr_recbole.errors import UserError
from ksr_recbole.pretraining.pretrain import pretrained_vectors
from ksr_recbole.quick_start import run
from ksr_recbole.quick_start.atomic_data import prepare_atomic_files
from ksr_recbole.quick_start.prepare import find_vectors, load_recboles_data, make_trainer
from tests.toy import toy_values, write_toy

PARTS = ["learn", "choose", "judge"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "data")


def config_of(folder: Path, model: str = "KSR-paper", **values: Any) -> Config:
    return Config(model, "toy", None, toy_values(folder, data_cache_dir=None, **values))


def dataset_of(folder: Path, model: str = "KSR-paper", **values: Any) -> WithSequences:
    dataset = load_dataset(config_of(folder, model, **values))
    dataset.build()
    return dataset


RANDOM_ORDER = {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "mode": "full"}}
IN_ORDER = {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}}
NO_NEGATIVES: dict[str, dict[str, Any]] = {
    "SASRec": {"train_neg_sample_args": None},
    "LightGCN": {},
}


def rows_of(folder: Path, suffix: str = "inter") -> list[list[str]]:
    lines = (folder / "toy" / f"toy.{suffix}").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines]


def write_rows(
    folder: Path, rows: list[list[str]], suffix: str = "inter", sep: str = "\t", enc: str = "utf-8"
) -> None:
    text = "".join(sep.join(row) + "\n" for row in rows)
    (folder / "toy" / f"toy.{suffix}").write_text(text, encoding=enc)


def sequences_of(dataset: WithSequences) -> dict[str, list[str]]:
    """Items by user, in the order in which they are read."""
    users, items = (dataset.field2id_token[f] for f in (dataset.uid_field, dataset.iid_field))
    bounds, flat = dataset.sequences.offsets, dataset.sequences.items
    return {
        str(users[u]): [str(items[i]) for i in flat[bounds[u] : bounds[u + 1]]]
        for u in range(1, len(users))
    }


# The users' own split ---------------------------------------------------------------------------


def split_by_hand(folder: Path, keep_whole: bool = False) -> dict[str, list[list[str]]]:
    """Write three files that no rule would make: of each user the odd rows are the test."""
    header, *rows = rows_of(folder)
    parts: dict[str, list[list[str]]] = {part: [] for part in PARTS}
    seen: dict[str, int] = {}
    for row in rows:
        n = seen[row[0]] = seen.get(row[0], -1) + 1
        parts["judge" if n % 2 else "choose" if n == 4 else "learn"].append(row)
    for part, chosen in parts.items():
        write_rows(folder, [header, *chosen], f"{part}.inter")
    if not keep_whole:
        (folder / "toy" / "toy.inter").unlink()
    return parts


@pytest.mark.parametrize("task", ["next-item", "next-session"])
@pytest.mark.parametrize("keep_whole", [True, False])
@pytest.mark.parametrize("graph", [True, False])
def test_the_users_own_files_are_the_split(folder, task, keep_whole, graph):
    parts = split_by_hand(folder, keep_whole)
    if not graph:
        for suffix in ("kg", "link"):
            (folder / "toy" / f"toy.{suffix}").unlink()
    config = config_of(folder, "KSR-paper" if graph else "GRU", benchmark_filename=PARTS, task=task)
    assert f"{sum(map(len, parts.values())):,} interactions" in prepare_atomic_files(config)
    dataset = load_dataset(config)
    views = dataset.build()
    assert [len(view.inter_feat) for view in views] == [len(rows) for rows in parts.values()]
    users, items = (dataset.field2id_token[f] for f in ("user_id", "item_id"))
    for view, rows in zip(views, parts.values(), strict=True):
        found = zip(
            users[view.inter_feat["user_id"]], items[view.inter_feat["item_id"]], strict=True
        )
        assert sorted(found) == sorted((row[0], row[1]) for row in rows)


def test_own_files_are_trained_and_tested_on(folder):
    parts = split_by_hand(folder)
    config = config_of(folder, "GRU", benchmark_filename=PARTS, loss_type="BPR")
    train, valid, test = data_preparation(config, load_dataset(config))
    learned = {(row[0], row[1]) for row in parts["learn"]}
    users, items = (train.dataset.field2id_token[f] for f in ("user_id", "item_id"))
    for batch in train:
        for user, read in zip(
            batch["user_id"].tolist(), batch["item_id_list"].tolist(), strict=True
        ):
            assert {(users[user], items[i]) for i in read if i} <= learned
    assert len(valid) == len({row[0] for row in parts["choose"]})
    assert len(test) == len({row[0] for row in parts["judge"]})


def test_links_that_are_missing_are_left_out_of_every_part(folder):
    parts = split_by_hand(folder)
    write_rows(folder, rows_of(folder, "link")[:40], "link")
    linked = {row[0] for row in rows_of(folder, "link")[1:]}
    views = load_dataset(config_of(folder, benchmark_filename=PARTS)).build()
    wanted = [sum(row[1] in linked for row in rows) for rows in parts.values()]
    assert [len(view.inter_feat) for view in views] == wanted
    assert "without a link" in views[0].funnel.line()


def test_an_item_whose_entity_is_only_a_tail_is_linked(folder):
    kept = [row for row in rows_of(folder, "kg") if row[0] != "e5"]
    assert any(row[2] == "e5" for row in kept) and ["i6", "e5"] in rows_of(folder, "link")
    write_rows(folder, kept, "kg")
    dataset = dataset_of(folder)
    assert "i6" in dataset.field2id_token["item_id"]
    assert dataset.funnel.dropped == {}


def test_a_user_without_a_history_is_one_sentence(folder):
    parts = split_by_hand(folder)
    header = ["user_id:token", "item_id:token", "timestamp:float"]
    write_rows(folder, [header, *parts["judge"], ["new", "i5", "7"]], "judge.inter")
    with pytest.raises(UserError, match=r"toy.judge.inter has 1 user without .* such as new"):
        dataset_of(folder, benchmark_filename=PARTS)


@pytest.mark.parametrize("names", [["learn"], ["learn", "judge"], [*PARTS, "learn"]])
def test_other_than_three_files_are_refused(folder, names):
    split_by_hand(folder)
    with pytest.raises(UserError, match="must name three files"):
        dataset_of(folder, benchmark_filename=names)


def test_a_part_that_is_named_twice_is_refused(folder, capsys):
    split_by_hand(folder)
    names = ["learn", "judge", "judge"]
    with pytest.raises(UserError, match="must name three different files"):
        dataset_of(folder, benchmark_filename=names)
    assert main(["describe", str(folder / "toy"), f"--benchmark_filename={names}"]) == 2
    assert "name each of them once" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["GRU", "SASRec"])
def test_a_history_in_every_row_is_refused(folder, model):
    for part, rows in split_by_hand(folder).items():
        header = ["user_id:token", "item_id_list:token_seq", "item_id:token", "timestamp:float"]
        told = [[user, "i1 i2", item, time] for user, item, time in rows]
        write_rows(folder, [header, *told], f"{part}.inter")
    config = config_of(folder, model, benchmark_filename=PARTS, protocol="paper")
    load = load_dataset if model == "GRU" else load_views
    with pytest.raises(UserError, match=r"toy.learn.inter has the column item_id_list, a history"):
        load(config)


def test_rows_without_a_history_are_refused_where_recbole_would_read_one(folder):
    split_by_hand(folder)
    given = {"benchmark_filename": PARTS, "eval_args": {"mode": "full"}}
    given |= {"train_neg_sample_args": None}
    told = r"toy.learn.inter has no column item_id_list with a history .*--protocol=paper"
    with pytest.raises(UserError, match=told):
        load_recboles_data(config_of(folder, "SASRec", **given))


@pytest.mark.parametrize("graph", [True, False])
def test_items_without_interactions_in_own_files_get_no_id(folder, graph):
    split_by_hand(folder)
    if not graph:
        for suffix in ("kg", "link"):
            (folder / "toy" / f"toy.{suffix}").unlink()
    write_rows(folder, [["item_id:token"], *([f"i{k}"] for k in range(1, 500))], "item")
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]}
    dataset = dataset_of(folder, "GRU", benchmark_filename=PARTS, load_col=columns)
    assert dataset.item_num == 1 + len(np.unique(dataset.sequences.items)) < 100


def test_a_part_that_is_missing_is_named(folder):
    split_by_hand(folder)
    (folder / "toy" / "toy.choose.inter").unlink()
    with pytest.raises(UserError, match=r"toy.choose.inter does not exist"):
        prepare_atomic_files(config_of(folder, benchmark_filename=PARTS))


# Names and writing ------------------------------------------------------------------------------

FIELDS = {
    "USER_ID_FIELD": "session", "ITEM_ID_FIELD": "product", "TIME_FIELD": "when",
    "HEAD_ENTITY_ID_FIELD": "subject", "RELATION_ID_FIELD": "predicate",
    "TAIL_ENTITY_ID_FIELD": "object", "ENTITY_ID_FIELD": "thing",
}  # fmt: skip
_NEW = {
    "user_id": "session", "item_id": "product", "timestamp": "when", "head_id": "subject",
    "relation_id": "predicate", "tail_id": "object", "entity_id": "thing",
}  # fmt: skip


def rename(folder: Path, sep: str = ";", enc: str = "utf-16") -> None:
    for suffix in ("inter", "kg", "link"):
        header, *rows = rows_of(folder, suffix)
        named = [":".join([_NEW[c.split(":")[0]], c.split(":")[1]]) for c in header]
        write_rows(folder, [named, *rows], suffix, sep, enc)


@pytest.mark.parametrize(("sep", "enc"), [("\t", "utf-8"), (",", "latin-1"), (";", "utf-16")])
def test_names_and_separators_change_nothing(folder, capsys, sep, enc):
    expected = dataset_of(folder)
    assert main(["describe", str(folder / "toy")]) == 0
    described = capsys.readouterr().out
    rename(folder, sep, enc)
    given = {**FIELDS, "field_separator": sep, "encoding": enc}
    assert prepare_atomic_files(config_of(folder, **given)) == expected.table1().line()
    dataset = dataset_of(folder, **given)
    assert sequences_of(dataset) == sequences_of(expected)
    assert np.array_equal(dataset.triples, expected.triples)
    words = [f"--{key}={value}" for key, value in given.items()]
    assert main(["describe", str(folder / "toy"), *words]) == 0
    assert capsys.readouterr().out == described


def test_a_file_of_another_encoding_is_one_sentence(folder):
    rename(folder, enc="latin-1")
    path = folder / "toy" / "toy.inter"
    path.write_bytes(path.read_bytes() + "u1;ü;5\n".encode("latin-1"))
    given = {**FIELDS, "field_separator": ";", "encoding": "utf-8"}
    with pytest.raises(UserError, match="not UTF-8"):
        prepare_atomic_files(config_of(folder, **given))
    with pytest.raises(UserError, match=r"toy.inter is not written in ascii .*encoding"):
        prepare_atomic_files(config_of(folder, **{**given, "encoding": "ascii"}))


def test_a_conversion_writes_the_names_it_is_given(tmp_path, capsys):
    raw = tmp_path / "raw.csv"
    rows = [f"u{u},i{i},{u * 100 + i}" for u in range(5) for i in range(6)]
    raw.write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    (tmp_path / "link").write_text("".join(f"i{i}\te{i}\n" for i in range(6)))
    (tmp_path / "kg").write_text("".join(f"e{i}\tgenre\tg{i % 2}\n" for i in range(6)))
    words = [f"--{key}={value}" for key, value in FIELDS.items()] + ["--field_separator=;"]
    command = ["convert", "csv", f"--raw={raw}", "--dataset=shop", "--k-core=1", "--min-triples=1"]
    files = [f"--{name}={tmp_path / name}" for name in ("link", "kg")]
    assert main([*command, *files, f"--out={tmp_path / 'shop'}", *words]) == 0
    heads = {p.suffix: p.read_text().splitlines()[0] for p in (tmp_path / "shop").iterdir()}
    assert heads[".inter"] == "session:token;product:token;when:float"
    assert heads[".kg"] == "subject:token;predicate:token;object:token"
    assert heads[".link"] == "product:token;thing:token"
    assert main(["describe", str(tmp_path / "shop"), *words]) == 0
    assert "shop: 30 interactions, 6 linked items, 5 users" in capsys.readouterr().out


# Columns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"load_col": None},
        {"load_col": {"inter": ["user_id", "item_id"]}},
        {"load_col": {"inter": "*"}},
        {"load_col": {"inter": None}},
        {"load_col": {"inter": []}},
        {"load_col": {"kg": ["head_id"], "item": ["item_id", "year"]}},
        {"unload_col": {"inter": ["rating"]}},
        {"unload_col": {"item": ["year"]}},
    ],
)
def test_every_form_of_load_col_reads_the_same(folder, values):
    header, *rows = rows_of(folder)
    rated = [[*header, "rating:float"], *([*row, str(n % 5)] for n, row in enumerate(rows))]
    expected = dataset_of(folder)
    write_rows(folder, rated)
    more = [[f"i{k}", str(1900 + k)] for k in range(1, 200)]
    write_rows(folder, [["item_id:token", "year:float"], *more], "item")
    dataset = dataset_of(folder, **values)
    assert sequences_of(dataset) == sequences_of(expected)
    assert dataset.item_num == expected.item_num
    assert dataset.fingerprint == expected.fingerprint


def test_what_is_read_does_not_depend_on_other_columns(folder):
    header, *rows = rows_of(folder)
    rows[3][0], rows[4][1] = "NA", "null"
    write_rows(folder, [header, *rows])
    links = rows_of(folder, "link")
    write_rows(folder, [*links, ["null", "e2"]], "link")
    expected = dataset_of(folder)
    assert {"NA"} <= sequences_of(expected).keys()
    told = [
        [*header, "tags:token_seq"],
        *([*row, "a b" if n else ""] for n, row in enumerate(rows)),
    ]
    write_rows(folder, told)
    dataset = dataset_of(folder, load_col={"inter": "*"})
    assert sequences_of(dataset) == sequences_of(expected)
    assert dataset.fingerprint == expected.fingerprint


def test_a_needed_column_that_is_not_to_be_read_is_one_sentence(folder):
    with pytest.raises(UserError, match=r"unload_col leaves out timestamp of toy.inter"):
        dataset_of(folder, unload_col={"inter": ["timestamp"]})
    both = {"load_col": {"inter": ["user_id"]}, "unload_col": {"inter": ["item_id"]}}
    with pytest.raises(UserError, match="load_col and unload_col both"):
        dataset_of(folder, **both)


def test_a_column_that_is_not_there_is_said(folder, caplog):
    with caplog.at_level(logging.INFO):
        dataset_of(folder, load_col={"inter": ["user_id", "item_id", "stars"]})
    assert "load_col names stars, but toy.inter has user_id, item_id, timestamp" in caplog.text
    assert "Read from toy.inter too, since it is needed: timestamp" in caplog.text


# Filters ----------------------------------------------------------------------------------------


def test_filters_and_links_lead_to_one_fixed_point(folder):
    write_rows(folder, rows_of(folder, "link")[:45], "link")
    bounds = {"user_inter_num_interval": "[5,inf)", "item_inter_num_interval": "[4,inf)"}
    dataset = dataset_of(folder, **bounds)
    linked = {row[0] for row in rows_of(folder, "link")[1:]}
    left = [row for row in rows_of(folder)[1:] if row[1] in linked]
    while True:
        users = [row[0] for row in left]
        items = [row[1] for row in left]
        kept = [r for r in left if users.count(r[0]) >= 5 and items.count(r[1]) >= 4]
        if len(kept) == len(left):
            break
        left = kept
    assert 0 < len(left) < len(rows_of(folder)) - 1
    assert dataset.table1().interactions == dataset.funnel.kept.interactions == len(left)
    assert dataset.sequences.lengths[1:].min() >= 5
    lost = sum(counts.interactions for counts in dataset.funnel.dropped.values())
    assert dataset.funnel.read.interactions - lost == len(left)


@pytest.mark.parametrize(("keep", "kept"), [("first", "1"), ("last", "9")])
def test_of_repeats_the_first_or_last_in_time_is_kept_and_ties_keep_the_files_order(
    folder, keep, kept
):
    header, *rows = rows_of(folder)
    early, late = ([[user, item, time] for user, item, _ in rows] for time in ("1", "9"))
    write_rows(folder, [header, *late, *early])
    expected: dict[str, list[str]] = {}
    for user, item, _ in rows:
        expected.setdefault(user, []).append(item)
    dataset = dataset_of(folder, rm_dup_inter=keep)
    assert set(dataset.sequences.timestamps.tolist()) == {float(kept)}
    assert sequences_of(dataset) == expected
    assert dataset.funnel.dropped["the same user and item again: rm_dup_inter"].interactions == len(
        rows
    )


def test_an_open_interval_leaves_out_who_occurs_once(folder):
    header, *rows = rows_of(folder)
    write_rows(folder, [header, *rows, ["once", "i5", "7"]])
    assert "once" in sequences_of(dataset_of(folder, user_inter_num_interval="[1,inf)"))
    assert "once" not in sequences_of(dataset_of(folder, user_inter_num_interval="(1,inf)"))


def test_a_filter_reads_the_column_it_looks_at(folder):
    header, *rows = rows_of(folder)
    write_rows(
        folder,
        [[*header, "rating:float"], *([*row, str(n % 5)] for n, row in enumerate(rows))],
    )
    wanted = sum(n % 5 >= 3 for n in range(len(rows)))
    dataset = dataset_of(folder, "GRU", val_interval={"rating": "[3,inf)"})
    assert dataset.table1().interactions == wanted


def test_items_of_a_catalogue_filter_their_interactions(folder):
    write_rows(
        folder,
        [["item_id:token", "year:float"], *([f"i{k}", str(k)] for k in range(1, 61))],
        "item",
    )
    values = {"val_interval": {"year": "[0,30]"}, "filter_inter_by_user_or_item": True}
    dataset = dataset_of(folder, **values)
    assert {int(i[1:]) for items in sequences_of(dataset).values() for i in items} <= {*range(31)}


@pytest.mark.parametrize("filtering", [True, False])
def test_a_catalogue_s_column_that_leaves_out_no_interaction_is_said(folder, caplog, filtering):
    rows = [["item_id:token", "year:float"], *([f"i{k}", str(k)] for k in range(1, 61))]
    write_rows(folder, rows, "item")
    values = {"val_interval": {"year": "[0,30]"}, "filter_inter_by_user_or_item": filtering}
    dataset_of(folder, **values)
    told = "val_interval.year leaves out no interaction with filter_inter_by_user_or_item False"
    assert (told in caplog.text) == (not filtering)


def test_a_closed_interval_on_the_command_line_is_no_list(folder):
    header, *rows = rows_of(folder)
    kinds = [*header, "rating:float", "kind:token"]
    write_rows(folder, [kinds, *([*row, str(n % 5), str(n % 3)] for n, row in enumerate(rows))])
    for word, wanted in (("[3,4]", 3), ("(2,4]", 3), ("[3,inf)", 3), ("(0,3]", 1)):
        given = literals({"val_interval.rating": word})
        most = 4 if wanted == 3 else 3
        found = dataset_of(folder, "GRU", **given).table1().interactions
        assert found == sum(wanted <= n % 5 <= most for n in range(len(rows)))
    for word in ("[1,2]", "['1','2']", "['1']"):
        given = literals({"val_interval.kind": word})
        found = dataset_of(folder, "GRU", **given).table1().interactions
        left = {1, 2} if "2" in word else {1}
        assert found == sum(n % 3 in left for n in range(len(rows)))


@pytest.mark.parametrize("model", ["KSR-paper", "GRU", "CFKG", "ItemKNN"])
def test_a_catalogue_that_load_col_does_not_name_is_not_read(folder, model):
    (folder / "toy" / "toy.item").write_text("of another program")
    (folder / "toy" / "toy.user").write_text("of another program")
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    config = config_of(
        folder, model, load_col=columns, threshold={"timestamp": 0},
        val_interval={"timestamp": "[0,1003600]"}, filter_inter_by_user_or_item=True,
        eval_args={"mode": "full"},
    )  # fmt: skip
    load = load_dataset if model in ("KSR-paper", "GRU") else recbole_dataset
    assert load(config).item_feat is None


def test_a_filter_of_interactions_leaves_a_catalogue_with_the_same_column_alone(folder):
    header, *rows = rows_of(folder)
    rated = [[*header, "rating:float"], *([*row, "5"] for row in rows)]
    write_rows(folder, rated)
    catalogue = [[f"i{k}", "1"] for k in range(1, 61)]
    write_rows(folder, [["item_id:token", "rating:float"], *catalogue], "item")
    dataset = dataset_of(folder, val_interval={"rating": "[3,inf)"})
    assert dataset.table1().interactions == len(rows) and dataset.item_feat is None


def test_triples_are_filtered_by_value_before_they_are_counted(folder):
    header, *rows = rows_of(folder, "kg")
    years = [[*row, str(n % 2)] for n, row in enumerate(rows)]
    write_rows(folder, [[*header, "year:float"], *years], "kg")
    values = {"val_interval": {"year": "[1,1]"}, "relation_kg_num_interval": "[31,inf)"}
    dataset = load_dataset(config_of(folder, **values))
    left = [row[1] for row in years if row[3] == "1"]
    kept = sum(left.count(relation) >= 31 for relation in left)
    assert 0 < kept < sum([row[1] for row in years].count(r[1]) >= 31 for r in years)
    assert dataset.funnel.triples == (len(rows), kept) == (len(rows), len(dataset.kg_feat))
    assert f"used {kept:,} of {len(rows):,} triples" in dataset.funnel.line()
    with pytest.raises(UserError, match=r"has val_interval.year: '?\[9,9\]'?, so widen"):
        load_dataset(config_of(folder, val_interval={"year": "[9,9]"}))


def test_both_ends_of_a_triple_must_occur_often_enough_among_those_left(folder):
    header, *rows = rows_of(folder, "kg")
    left = rows = [*rows, ["e5", "film.genre", "once"], ["once", "film.genre", "never"]]
    write_rows(folder, [header, *rows], "kg")
    while True:
        ends = [row[0] for row in left] + [row[2] for row in left]
        kept = [row for row in left if min(ends.count(row[0]), ends.count(row[2])) >= 2]
        if len(kept) == len(left):
            break
        left = kept
    dataset = dataset_of(folder, entity_kg_num_interval="[2,inf)")
    assert 0 < len(left) < len(rows) - 2
    assert dataset.funnel.triples == (len(rows), len(left)) == (len(rows), len(dataset.kg_feat))


def test_items_beyond_an_upper_bound_get_no_id(folder):
    header, *rows = rows_of(folder)
    counts = {row[1]: [each[1] for each in rows].count(row[1]) for row in rows}
    most = min(counts.values()) + 1
    catalogue = [*counts, "never"]
    write_rows(folder, [["item_id:token"], *([item] for item in catalogue)], "item")
    columns = {"inter": [name.split(":")[0] for name in header], "item": ["item_id"]}
    bounds = f"[0,{most}]"
    config = config_of(folder, "BPR", load_col=columns, item_inter_num_interval=bounds)
    found = set(recbole_dataset(config).field2id_token["item_id"]) - {"[PAD]"}
    assert found == {item for item in catalogue if counts.get(item, 0) <= most} < {*catalogue}


def test_times_may_be_tokens_for_recboles_own_models(folder):
    header, *rows = rows_of(folder)
    write_rows(folder, [[*header[:2], "timestamp:token"], *rows])
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    dataset = recbole_dataset(config_of(folder, "LightGCN", load_col=columns, **RANDOM_ORDER))
    assert len(dataset.inter_feat) == len(rows)


@pytest.mark.parametrize(
    ("time", "told"),
    [
        ("", "line 3: column 'timestamp' is empty"),
        ("nan", "line 3: 'nan' in column 'timestamp' is not a finite number"),
        ("inf", "line 3: 'inf' in column 'timestamp' is not a finite number"),
        (None, "column 'timestamp' has type 'token'"),
    ],
)
@pytest.mark.parametrize("model", [*NO_NEGATIVES])
def test_times_that_put_rows_in_order_must_be_numbers(folder, model, time, told):
    header, *rows = rows_of(folder)
    if time is None:
        header[2] = "timestamp:token"
    else:
        rows[1][2] = time
    write_rows(folder, [header, *rows])
    with pytest.raises(UserError, match=told):
        recbole_dataset(config_of(folder, model, **IN_ORDER, **NO_NEGATIVES[model]))


@pytest.mark.parametrize("unit", [1, 2**53])
def test_recboles_own_models_have_the_order_of_close_times(folder, unit):
    """Seconds that are the same in ``float32``, which RecBole sorts by."""
    header, *rows = rows_of(folder)
    users = sorted({user for user, _, _ in rows})
    items = sorted({item for _, item, _ in rows})[:5]
    start = 978_300_000 if unit == 1 else 2**54
    assert np.float32(start) == np.float32(start + 4)
    made = [[user, items[k], str(start + k)] for user in users for k in (3, 0, 4, 2, 1)]
    write_rows(folder, [header, *made])
    for model, values in NO_NEGATIVES.items():
        dataset = recbole_dataset(config_of(folder, model, **IN_ORDER, **values))
        test = dataset.build()[2]
        tokens = dataset.id2token("item_id", test.inter_feat["item_id"].numpy())
        assert tokens.tolist() == [items[4]] * len(users)


def test_rows_in_no_order_are_as_in_the_file(folder):
    rows = rows_of(folder)[1:]
    config = config_of(folder, "LightGCN", load_col=None, **RANDOM_ORDER)
    dataset = recbole_dataset(config)
    found = dataset.id2token("item_id", dataset.inter_feat["item_id"].to_numpy())
    assert found.tolist() == [item for _, item, _ in rows]


@pytest.mark.parametrize("load_col", [None, {"inter": ["user_id", "item_id"]}])
def test_times_that_are_not_needed_are_columns_as_others(folder, load_col):
    unload = {"inter": ["timestamp"]} if load_col is None else None
    values = {"load_col": load_col, "unload_col": unload, **RANDOM_ORDER}
    assert "timestamp" not in recbole_dataset(config_of(folder, "LightGCN", **values)).inter_feat
    with pytest.raises(UserError, match=r"unload_col leaves out timestamp of toy\.inter"):
        columns = {"load_col": None, "unload_col": {"inter": ["timestamp"]}}
        recbole_dataset(config_of(folder, "LightGCN", **columns, **IN_ORDER))


def test_of_several_entities_of_an_item_the_first_line_counts(folder, caplog):
    entities = {entity for _, entity in rows_of(folder, "link")[1:]}
    config = config_of(folder)
    before = load_dataset(config)
    with (folder / "toy" / "toy.link").open("a") as file:
        file.write("i3\te9\ni3\te10\n")
    assert {"e2", "e9", "e10"} <= entities
    dataset = load_dataset(config_of(folder))
    assert dataset.item2entity == before.item2entity
    assert "toy.link has 2 lines of an item that an earlier line links, such as i3" in caplog.text
    n_links = len(before.item2entity)
    assert dataset.funnel.links == (n_links + 2, n_links)
    assert f"used {n_links} of {n_links + 2} links" in dataset.funnel.line()


@pytest.mark.parametrize("suffix", ["user", "item"])
def test_of_several_lines_of_a_user_or_an_item_the_first_counts(folder, caplog, suffix):
    ids = sorted({row[suffix == "item"] for row in rows_of(folder)[1:]})
    rows = [[f"{suffix}_id:token", "kind:token"], *([each, "a"] for each in ids)]
    columns = {"inter": ["user_id", "item_id"], suffix: [f"{suffix}_id", "kind"]}
    write_rows(folder, [*rows, [ids[2], "b"], [ids[2], "c"]], suffix)
    dataset = recbole_dataset(config_of(folder, "LightGCN", load_col=columns, **RANDOM_ORDER))
    assert dataset.num("kind") == 2  # with the padding
    assert len(getattr(dataset, f"{suffix}_feat")) == len(ids) + 1
    assert f"toy.{suffix} has 2 lines of a" in caplog.text
    assert f"that an earlier line describes, such as {ids[2]};" in caplog.text


def test_a_split_that_leaves_nothing_to_test_is_said(folder, capsys):
    header, *rows = rows_of(folder)
    write_rows(folder, [header, *{row[0]: row for row in rows}.values()])
    values = toy_values(folder, **RANDOM_ORDER, metrics=["Hit"], valid_metric="Hit@10")
    assert run("LightGCN", "toy", None, values)["test_result"] is None
    told = capsys.readouterr()
    for phase in ("validation", "the test"):
        assert f"leaves no interaction for {phase}." in told.out + told.err


@pytest.mark.parametrize(("mode", "said"), [("uni60", 1), ("pop999", 1), ("uni59", 0), ("full", 0)])
def test_more_negatives_than_other_items_are_said(folder, capsys, mode, said):
    """RecBole draws them with repetition, and its ranks count a repeated one once."""
    values = toy_values(folder, **RANDOM_ORDER)
    values["eval_args"] = {**values["eval_args"], "mode": mode}
    run("LightGCN", "toy", None, values)
    told = "".join(capsys.readouterr())
    assert told.count(f"eval_args.mode is {mode}, but toy has 60 items") == said


def rated(folder: Path) -> dict[str, float]:
    """Give every interaction a rating, and half of the items another; the items' ratings."""
    header, *rows = rows_of(folder)
    stars = ["rating:float", *(str(1 + k % 5) for k in range(len(rows)))]
    write_rows(folder, [[*row, star] for row, star in zip([header, *rows], stars, strict=True)])
    items = sorted({item for _, item, _ in rows})
    ratings = {item: float(1 + k % 5) for k, item in enumerate(items)}
    table = [["item_id:token", "rating:float"], *([i, str(r)] for i, r in ratings.items())]
    write_rows(folder, table, "item")
    return ratings


@pytest.mark.parametrize(
    ("columns", "both"),
    [
        ({}, False),
        ({"load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]}}, False),
        ({"load_col": None, "unload_col": {"item": ["rating"]}}, False),
        ({"load_col": None}, True),
    ],
)
def test_a_filter_looks_at_a_column_of_items_only_where_it_is_loaded(folder, columns, both):
    ratings = rated(folder)
    rows = rows_of(folder)[1:]
    kept = [row for row in rows if float(row[3]) >= 3 and (not both or ratings[row[1]] >= 3)]
    for model in ("GRU", "LightGCN"):
        more = IN_ORDER if model == "LightGCN" else {}
        config = config_of(folder, model, val_interval={"rating": "[3,inf)"}, **columns, **more)
        load = load_dataset if model == "GRU" else recbole_dataset
        assert load(config).funnel.kept.interactions == len(kept)


def test_a_column_that_a_filter_looks_at_cannot_be_unloaded(folder):
    rated(folder)
    values = {"load_col": None, "unload_col": {"inter": ["rating"]}}
    with pytest.raises(UserError, match=r"unload_col leaves out rating of toy\.inter"):
        load_dataset(config_of(folder, "GRU", val_interval={"rating": "[3,inf)"}, **values))


@pytest.mark.parametrize("suffix", ["user", "item"])
@pytest.mark.parametrize("model", ["KSR", "LightGCN"])
def test_a_file_of_which_no_column_is_loaded_leaves_out_nothing(folder, model, suffix):
    rows = rows_of(folder)[1:]
    one = rows[0][0 if suffix == "user" else 1]
    write_rows(folder, [[f"{suffix}_id:token"], [one]], suffix)
    inter = ["user_id", "item_id", "timestamp"]
    for columns, n in (([], len(rows)), ([f"{suffix}_id"], sum(one in row for row in rows))):
        load_col = {
            "inter": inter, "kg": "*", "link": "*", suffix: columns
        }  # fmt: skip
        more = IN_ORDER if model == "LightGCN" else {}
        config = config_of(folder, model, load_col=load_col, **more)
        load = load_dataset if model == "KSR" else recbole_dataset
        assert load(config).funnel.kept.interactions == n


def test_what_a_value_of_an_item_leaves_out_is_not_said_to_be_missing(folder):
    ratings = rated(folder)
    write_rows(folder, [row[:3] for row in rows_of(folder)])
    gone = sorted(ratings)[0]
    table = [row for row in rows_of(folder, "item") if row[0] != gone]
    write_rows(folder, table, "item")
    columns = {"load_col": None, "val_interval": {"rating": "[3,inf)"}}
    dropped = load_dataset(config_of(folder, "GRU", **columns)).funnel.dropped
    rows = rows_of(folder)[1:]
    assert {why.split(":")[0]: counts.interactions for why, counts in dropped.items()} == {
        "not in .user or .item": sum(item == gone for _, item, _ in rows),
        "value outside val_interval": sum(
            item != gone and ratings[item] < 3 for _, item, _ in rows
        ),
    }


def test_recboles_knowledge_models_filter_links_once_and_last(folder):
    """As RecBole does: who then has too few interactions stays."""
    links = rows_of(folder, "link")
    write_rows(folder, [*links[:31]], "link")
    values = {"user_inter_num_interval": "[9,inf)", **RANDOM_ORDER}
    rows = rows_of(folder)[1:]
    counts = Counter(user for user, _, _ in rows)
    linked = {item for item, _ in links[1:31]}
    kept = [row for row in rows if counts[row[0]] >= 9 and row[1] in linked]
    dataset = recbole_dataset(config_of(folder, "KGAT", **values))
    assert dataset.funnel.kept.interactions == len(kept)
    assert min(Counter(user for user, _, _ in kept).values()) < 9


def test_recboles_knowledge_models_have_all_rows_of_given_files(folder):
    parts = split_by_hand(folder)
    write_rows(folder, rows_of(folder, "link")[:31], "link")
    config = config_of(folder, "KGAT", benchmark_filename=PARTS, eval_args={"mode": "full"})
    dataset = recbole_dataset(config)
    assert [len(view.inter_feat) for view in dataset.build()] == [len(parts[p]) for p in PARTS]
    assert dataset.funnel.complete and dataset.funnel.links == (30, 30)


def test_a_user_without_linked_history_is_told_the_reason(folder):
    split_by_hand(folder)
    first = rows_of(folder, "learn.inter")[1][0]
    his = {row[1] for row in rows_of(folder, "learn.inter") if row[0] == first}
    links = [row for row in rows_of(folder, "link") if row[0] not in his]
    write_rows(folder, links, "link")
    with pytest.raises(UserError, match=rf"once \d+ interactions are left out \({NO_LINK}\)"):
        dataset_of(folder, benchmark_filename=PARTS)


@pytest.mark.parametrize("mode", ["uni0", "uni", "uni-5", "pop-3", "uni5pop5", "Full", "uni5 "])
def test_modes_that_recbole_does_not_have_are_refused_before_anything_is_read(folder, mode):
    for modes in (mode, {"valid": "full", "test": mode}):
        with pytest.raises(UserError, match=r"Config key eval_args\.mode is .* labeled"):
            config_of(folder, "LightGCN", eval_args={"mode": modes})


def test_recboles_split_by_time(folder):
    by_time = {"split": {"TS": [0.8, 0.1, 0.1]}, "order": "TO", "mode": "full"}
    dataset = recbole_dataset(config_of(folder, "LightGCN", eval_args=by_time))
    train, valid, test = (view.inter_feat["timestamp"] for view in dataset.build())
    assert len(train) and len(valid) and max(train.max(), valid.max()) < test.min()
    with pytest.raises(UserError, match="give the order TO"):
        config_of(folder, "LightGCN", eval_args=by_time | {"order": "RO"})
    with pytest.raises(UserError, match="TS"):
        config_of(folder, "LightGCN", eval_args=by_time | {"split": {"TS": [0, 0, 1]}})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"val_interval": {"stars": "[3,inf)"}}, "names the column stars, which is in no file"),
        ({"val_interval": {"user_id": "[3,inf)"}}, "val_interval.user_id is .* a list of tokens"),
        ({"val_interval": {"timestamp": ["5"]}}, "val_interval.timestamp is .* an interval"),
        ({"val_interval": {"entity_id": ["e1"]}}, "entity_id, which is in none of the files whose"),
        ({"user_inter_num_interval": "[999,inf)"}, "No interaction of toy .*user_inter_num_inter"),
        ({"entity_kg_num_interval": "[999,inf)"}, "entity_kg_num_interval"),
    ],
)
def test_filters_that_cannot_be_are_one_sentence(folder, values, told):
    with pytest.raises(UserError, match=told):
        dataset_of(folder, **values)


# Times ------------------------------------------------------------------------------------------


def retimed(folder: Path, *, scale: int, start: int = 0, step: int = 1) -> None:
    """Give every row another time, in a shuffled file."""
    header, *rows = rows_of(folder)
    timed = [[u, i, str(start + n * step * scale)] for n, (u, i, _) in enumerate(rows)]
    order = np.random.default_rng(1).permutation(len(timed))
    write_rows(folder, [header, *(timed[k] for k in order)])


@pytest.mark.parametrize(
    ("scale", "start"), [(1, 0), (1, 1_600_000_000_000), (100, 1_600_000_000_000_000_000)]
)
def test_the_order_of_times_survives_whatever_their_unit(folder, scale, start):
    expected: dict[str, list[str]] = {}
    for user, item, _ in rows_of(folder)[1:]:
        expected.setdefault(user, []).append(item)
    retimed(folder, scale=scale, start=start)
    assert sequences_of(dataset_of(folder)) == expected


@pytest.mark.parametrize(
    ("scale", "start", "told"),
    [
        (1000, 1_600_000_000_000, "look like milliseconds: give --session_length=86400000"),
        (1, 0, "all within one session of session_length 86400"),
    ],
)
def test_times_that_make_no_sessions_are_one_sentence(folder, scale, start, told):
    retimed(folder, scale=scale, start=start, step=90 if start else 1)
    with pytest.raises(UserError, match=told):
        dataset_of(folder, task="next-session")


def test_times_as_far_apart_as_a_session_is_long_are_two_sessions(folder):
    retimed(folder, scale=1)
    length = len(rows_of(folder)) - 2  # from the first to the last
    dataset = dataset_of(folder, task="next-session", session_length=length)
    assert dataset.sequences.timestamps.max() == length
    with pytest.raises(UserError, match="all within one session"):
        dataset_of(folder, task="next-session", session_length=length + 1)


def test_milliseconds_have_sessions_of_milliseconds(folder):
    retimed(folder, scale=1, start=1_600_000_000, step=7200)
    expected = dataset_of(folder, task="next-session")
    header, *rows = rows_of(folder)
    write_rows(folder, [header, *([user, item, f"{time}000"] for user, item, time in rows)])
    dataset = dataset_of(folder, task="next-session", session_length=86_400_000)
    assert np.array_equal(dataset.split.train_end, expected.split.train_end)
    assert np.array_equal(dataset.split.valid_end, expected.split.valid_end)


@pytest.mark.parametrize("values", [{"normalize_all": True}, {"normalize_field": ["timestamp"]}])
def test_normalized_times_have_no_sessions(folder, values):
    with pytest.raises(UserError, match=f"Config key {next(iter(values))} is .*next-item"):
        dataset_of(folder, task="next-session", **values)
    assert dataset_of(folder, **values).fingerprint == dataset_of(folder).fingerprint


@pytest.mark.parametrize("form", ["ms", "fraction", "iso"])
def test_a_conversion_keeps_what_comes_within_a_second(tmp_path, form):
    begin, rows = 1_600_000_000_000, []
    for n in range(120):
        ms = begin + n * 100
        iso = np.datetime64(ms, "ms").item().isoformat(timespec="milliseconds") + "Z"
        time = {"ms": str(ms), "fraction": f"{ms / 1000:.3f}", "iso": iso}[form]
        rows.append(f"u{n % 10},i{n // 10},{time}")
    order = np.random.default_rng(2).permutation(len(rows))
    raw = tmp_path / "raw.csv"
    lines = ["user_id,item_id,timestamp", *(rows[k] for k in order)]
    raw.write_text("\n".join(lines) + "\n")
    (tmp_path / "link").write_text("".join(f"i{i}\te{i}\n" for i in range(12)))
    (tmp_path / "kg").write_text("".join(f"e{i}\tgenre\tg{i % 2}\n" for i in range(12)))
    command = ["convert", "csv", f"--raw={raw}", "--dataset=toy", "--k-core=1", "--min-triples=1"]
    files = [f"--{name}={tmp_path / name}" for name in ("link", "kg")]
    assert main([*command, *files, f"--out={tmp_path / 'toy'}"]) == 0
    times = [float(row[-1]) for row in rows_of(tmp_path)[1:]]
    assert times == [(begin + n * 100) / 1000 for n in range(120)]
    found = sequences_of(dataset_of(tmp_path))
    assert set(map(tuple, found.values())) == {tuple(f"i{i}" for i in range(12))}


# Vectors ----------------------------------------------------------------------------------------


def write_vectors(folder: Path, keyed_by: str, size: int = 4, sep: str = "\t") -> dict[str, Any]:
    """Vectors of entities (or of items) and relations, and the configuration of RecBole's KSR."""
    rng = np.random.default_rng(0)
    kg = rows_of(folder, "kg")[1:]
    ids = {
        "entities": sorted({row[k] for row in kg for k in (0, 2)}),
        "items": [row[0] for row in rows_of(folder, "link")[1:]],
    }[keyed_by]
    for suffix, field, tokens in (("ent", "ent", ids), ("rel", "rel", sorted({r[1] for r in kg}))):
        rows = [[t, " ".join(f"{x:.3f}" for x in rng.normal(size=size))] for t in tokens]
        head = [f"{field}_id:token", f"{field}_emb:float_seq"]
        write_rows(folder, [head, *rows], f"{suffix}_feature", sep)
    return {
        "additional_feat_suffix": ["ent_feature", "rel_feature"],
        "preload_weight": {"ent_id": "ent_emb", "rel_id": "rel_emb"},
    }


@pytest.mark.parametrize("keyed_by", ["entities", "items"])
@pytest.mark.parametrize("aliased", [True, False])
def test_vectors_of_recboles_ksr_are_used(folder, keyed_by, aliased):
    values = write_vectors(folder, keyed_by)
    if aliased:
        kind = "entity" if keyed_by == "entities" else "item"
        values |= {f"alias_of_{kind}_id": ["ent_id"], "alias_of_relation_id": ["rel_id"]}
    config = config_of(folder, "KSR-paper", **values)
    dataset = load_dataset(config)
    dataset.build()
    assert dataset.item_num == dataset_of(folder).item_num
    vectors = pretrained_vectors(config, dataset)
    assert any("ent_feature" in note for note in vectors.notes)
    rows = dict(rows_of(folder, "ent_feature")[1:])
    tokens = dataset.field2id_token["item_id" if keyed_by == "items" else "entity_id"]
    row = dataset.item_entities[5]
    token = tokens[5] if keyed_by == "items" else tokens[row]
    assert vectors.entities[row] == pytest.approx([float(x) for x in rows[token].split()])


def number_the_ids(folder: Path, first_entity: int, n_relations: int = 4) -> Any:
    """Call items 1, 2, ... and their entities and the other ones ``first_entity``, ...

    Returns:
        A function that writes vectors, of which each holds its token's number, and loads the data.
    """
    links = rows_of(folder, "link")
    others = sorted({row[k] for row in rows_of(folder, "kg")[1:] for k in (0, 2)})
    entities = list(dict.fromkeys([*(row[1] for row in links[1:]), *others]))
    number = {e: str(first_entity + n) for n, e in enumerate(entities)}
    relations = sorted({row[1] for row in rows_of(folder, "kg")[1:]})
    number |= {r: str(1 + n) for n, r in enumerate(relations)}
    number |= {row[0]: row[0][1:] for row in links[1:]}
    for suffix in ("inter", "kg", "link"):
        head, *rows = rows_of(folder, suffix)
        write_rows(folder, [head, *([number.get(c, c) for c in row] for row in rows)], suffix)

    def load(tokens: Any, relations: Any = range(1, n_relations + 1), **values: Any) -> Any:
        for name, given in (("ent", tokens), ("rel", relations)):
            rows = [[str(t), " ".join([str(t)] * 4)] for t in given]
            write_rows(folder, [[f"{name}_id:token", f"{name}_emb:float_seq"], *rows], name)
        if "preload_weight" not in values:
            values["pretrain_path"] = str(folder / "toy")
        config = config_of(folder, "KSR-paper", **values)
        dataset = load_dataset(config)
        dataset.build()
        return dataset, pretrained_vectors(config, dataset)

    return load


def numbers_of_items(dataset: Any, vectors: Any) -> np.ndarray:
    """The number that each item's entity has as a vector, and the item's and entity's names."""
    tokens = dataset.field2id_token
    entities = tokens[dataset.entity_field][dataset.item_entities[1:]].astype(int)
    first = vectors.entities[dataset.item_entities[1:], 0]
    return np.stack([first, tokens[dataset.iid_field][1:].astype(int), entities]).astype(int)


PRELOADED = {
    "additional_feat_suffix": ["ent", "rel"],
    "preload_weight": {"ent_id": "ent_emb", "rel_id": "rel_emb"},
}


@pytest.mark.parametrize("more", [{}, PRELOADED])
@pytest.mark.parametrize("tokens", [range(1, 301), sorted({*range(1, 301)} - {170})])
def test_numbers_that_may_be_items_or_entities_are_asked_about(folder, tokens, more):
    load = number_the_ids(folder, 151)
    with pytest.raises(
        UserError, match=r"items or of entities; .*--alias_of_entity_id=\['ent_id'\]"
    ):
        load(tokens, **more)


@pytest.mark.parametrize("more", [{}, PRELOADED])
@pytest.mark.parametrize("kind", ["item", "entity"])
def test_an_alias_says_what_the_ids_are(folder, kind, more):
    load = number_the_ids(folder, 151)
    dataset, vectors = load(range(1, 301), **{f"alias_of_{kind}_id": ["ent_id"]}, **more)
    found, items, entities = numbers_of_items(dataset, vectors)
    if kind == "entity":
        assert found.tolist() == entities.tolist()
        assert vectors.entities[np.unique(dataset.triples[:, [0, 2]])].any(axis=1).all()
    else:
        alone = items > 2  # items 1 and 2 have one entity
        assert found[alone].tolist() == items[alone].tolist()


@pytest.mark.parametrize(("tokens", "keyed_by"), [(range(1, 61), 1), (range(151, 301), 2)])
def test_numbers_that_fit_one_kind_are_read_as_it(folder, tokens, keyed_by, caplog):
    dataset, vectors = number_the_ids(folder, 151)(tokens)
    numbers = numbers_of_items(dataset, vectors)
    alone = numbers[1] > 2  # items 1 and 2 have one entity
    assert numbers[0][alone].tolist() == numbers[keyed_by][alone].tolist()
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    if keyed_by == 1:
        assert any("none of them an item's; theirs are zeros" in line for line in told)
        assert any("the vector of 1 item is not that of" in line for line in told)
    else:
        assert not told


def test_items_named_as_their_entities_bring_the_other_entities_too(folder):
    """As in the files of KGAT: item 7 is entity 7, and the vectors are those of all entities."""
    rows = rows_of(folder, "link")
    write_rows(folder, [rows[0], *([row[0], f"e{row[0][1:]}"] for row in rows[1:])], "link")
    load = number_the_ids(folder, 1)
    dataset, vectors = load(range(1, 301))
    found, items, entities = numbers_of_items(dataset, vectors)
    assert items.tolist() == entities.tolist() == found.tolist()
    assert vectors.entities[np.unique(dataset.triples[:, [0, 2]])].any(axis=1).all()


def test_numbered_relations_are_told_from_numbered_entities(folder):
    """Of a file with more tokens than relations the first ones may all be relations' numbers."""
    load = number_the_ids(folder, 3)
    with pytest.raises(UserError, match="items or of entities"):
        load(range(1, 101), **PRELOADED)
    values = {**PRELOADED, "alias_of_entity_id": ["ent_id"]}
    dataset, vectors = load(range(1, 101), range(1, 100), **values, alias_of_relation_id=["rel_id"])
    used = np.unique(dataset.triples[:, 1])
    tokens = dataset.field2id_token[dataset.relation_field][used].astype(float)
    assert vectors.relations[used, 0].tolist() == tokens.tolist()
    with pytest.raises(UserError, match="both seem to hold vectors of entities; say what each"):
        load(range(1, 101), range(1, 100), **PRELOADED)


def test_an_export_says_that_it_leaves_out_entities_and_so_does_reading_it(folder, caplog):
    out = str(folder / "vectors")
    for key in ("pretrain_export_path", "pretrain_path"):
        caplog.clear()
        config = config_of(folder, "KSR-paper", **{key: out})
        dataset = load_dataset(config)
        dataset.build()
        with caplog.at_level(logging.WARNING):
            pretrained_vectors(config, dataset)
        assert "zero" in caplog.text, key


def test_vectors_that_do_not_fit_are_one_sentence(folder):
    values = write_vectors(folder, "entities", size=3)
    config = config_of(folder, "KSR-paper", **values)
    dataset = load_dataset(config)
    dataset.build()
    with pytest.raises(UserError, match="have 3 numbers but kg_embedding_size is 4"):
        pretrained_vectors(config, dataset)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"preload_weight": {"ent_id": "ent_emb"}}, "relation vectors is given"),
        ({"preload_weight": {"ent_id": "vector"}}, "names the columns ent_id and vector"),
        ({"additional_feat_suffix": ["gone"]}, "toy.gone does not exist"),
        ({"additional_feat_suffix": None}, "none is named"),
    ],
)
def test_vectors_that_are_named_wrongly_are_one_sentence(folder, change, told):
    config = config_of(folder, "KSR-paper", **{**write_vectors(folder, "entities"), **change})
    dataset = load_dataset(config)
    dataset.build()
    with pytest.raises(UserError, match=told):
        pretrained_vectors(config, dataset)


def test_given_vectors_are_read_before_others_are_trained(folder):
    values = write_vectors(folder, "entities", size=3)
    config = config_of(folder, "KSR", **values)
    dataset = load_dataset(config)
    dataset.build()
    with pytest.raises(UserError, match="have 3 numbers but kg_embedding_size is 4"):
        pretrained_vectors(config, dataset)
    assert dataset.pretrained is not None and dataset.pretrained.items is None


def test_a_loss_without_negatives_is_one_sentence(folder):
    config = config_of(folder, "GRU", loss_type="BPR", train_neg_sample_args=None)
    with pytest.raises(UserError, match="train_neg_sample_args is None, but the loss of GRU needs"):
        data_preparation(config, load_dataset(config))


# RecBole's own models ---------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["SASRec", "LightGCN", "KGAT"])
def test_recboles_own_models_read_the_same_columns(folder, model):
    header, *rows = rows_of(folder)
    rows[0][0] = "NA"
    write_rows(folder, [[*header, "tags:token_seq"], *([*row, "a b"] for row in rows)])
    values: dict[str, Any] = {
        "load_col": {"inter": ["user_id", "item_id"]},
        "eval_args": {"mode": "full"},
    }
    if model == "SASRec":
        values["train_neg_sample_args"] = None
    dataset = recbole_dataset(config_of(folder, model, **values))
    assert len(dataset.inter_feat) == dataset.funnel.kept.interactions == len(rows)
    assert "NA" in dataset.field2token_id["user_id"]
    times = ["timestamp"] if model == "SASRec" else []
    assert list(dataset.inter_feat.columns) == ["user_id", "item_id", *times]


@pytest.mark.parametrize("word", ["\t", "\\t"])
def test_a_tab_can_be_written_as_on_a_command_line(folder, word):
    assert config_of(folder, field_separator=word)["field_separator"] == "\t"


def test_vectors_of_items_entities_are_enough(folder, caplog):
    values = write_vectors(folder, "entities")
    header, *rows = rows_of(folder, "ent_feature")
    items = {row[1] for row in rows_of(folder, "link")[1:]}
    write_rows(folder, [header, *(row for row in rows if row[0] in items)], "ent_feature")
    config = config_of(folder, "KSR-paper", **values)
    dataset = load_dataset(config)
    dataset.build()
    with caplog.at_level(logging.WARNING):
        vectors = pretrained_vectors(config, dataset)
    assert vectors.entities[np.unique(dataset.item_entities[1:])].any(axis=1).all()
    assert "none of them an item's; theirs are zeros" in caplog.text
    write_rows(folder, [header, *(row for row in rows if row[0] != "e5")], "ent_feature")
    with pytest.raises(UserError, match=r"no vector for 1 of .* for example e5"):
        pretrained_vectors(config, dataset)


def test_recboles_gru4reckg_takes_the_vectors(folder):
    values = {**write_vectors(folder, "entities"), "alias_of_entity_id": ["ent_id"]}
    values |= {"alias_of_relation_id": ["rel_id"], "train_neg_sample_args": None}
    values["load_col"] = {
        "ent_feature": ["ent_id", "ent_emb"],
        "rel_feature": ["rel_id", "rel_emb"],
    }
    values["eval_args"] = {"mode": "full"}
    write_rows(folder, rows_of(folder, "link")[:40], "link")
    dataset = recbole_dataset(config_of(folder, "GRU4RecKG", **values))
    weights = dataset.get_preload_weight("ent_id")
    rows = dict(rows_of(folder, "ent_feature")[1:])
    row = dataset.field2token_id["ent_id"]["e7"]
    assert weights[row] == pytest.approx([float(x) for x in rows["e7"].split()])
    assert dataset.item_num - 1 == 39


# What is no data for these models ---------------------------------------------------------------


@pytest.mark.parametrize("protocol", [None, "paper"])
def test_histories_in_rows_are_the_first_thing_said(folder, protocol):
    """RecBole's benchmark files have no time, which is not what is wrong with them here."""
    for part in ("train", "valid", "test"):
        lines = ["user_id:token\titem_id_list:token_seq\titem_id:token", "u1\ti1 i2\ti3"]
        (folder / "toy" / f"toy.{part}.inter").write_text("\n".join(lines) + "\n")
    given = {"benchmark_filename": ["train", "valid", "test"]}
    given |= {"protocol": protocol} if protocol else {}
    config = config_of(folder, "SASRec" if protocol else "GRU", **given)
    with pytest.raises(UserError, match="has the column item_id_list, a history in") as caught:
        prepare_atomic_files(config)
    assert ("leave out --protocol=paper" in str(caught.value)) == (protocol == "paper")
    assert ("such as --model=GRU4Rec" in str(caught.value)) == (protocol is None)


def test_a_phase_is_no_loader_and_training_data_are_no_phase(folder):
    config = config_of(folder, "GRU")
    dataset = load_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    with pytest.raises(UserError, match="validation and test have no batches"):
        next(iter(valid))
    find_vectors(config, dataset)
    with pytest.raises(UserError, match="evaluate was given a SequenceTrainLoader; it takes"):
        make_trainer(config, dataset).evaluate(train)


@pytest.mark.parametrize("model", ["BPR", "GRU"])
def test_another_split_is_refused_with_the_model_s_name(folder, model):
    with pytest.raises(UserError, match=f"protocol, in which {model} runs here, they are"):
        dataset_of(folder, model, eval_args={"split": {"RS": [8, 1, 1]}, "order": "RO"})


def test_default_columns_of_recboles_models_have_the_user_s_names(folder):
    names = {"USER_ID_FIELD": "u", "ITEM_ID_FIELD": "i", "TIME_FIELD": "t"}
    names |= {"eval_args": {"mode": "full"}}
    config = Config("SASRec", "toy", None, toy_values(folder, **names))
    assert sorted(config["load_col"]["inter"]) == ["i", "t", "u"]
    given = {"inter": ["user_id", "item_id"]}
    config = Config("SASRec", "toy", None, toy_values(folder, load_col=given, **names))
    assert config["load_col"] == given
