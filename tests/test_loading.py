"""Reading atomic files with Polars, and the cache of loaded datasets."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from dataset_atomic import atomic
from dataset_atomic.atomic_files import check_atomic_file
from dataset_atomic.held import holding
from dataset_atomic.ids import numbered
from dataset_atomic.table1 import describe_table1
from ksr_recbole.config import Config
from ksr_recbole.dataset import loading, stored
from ksr_recbole.dataset.linked_dataset import LinkedDataset
from ksr_recbole.dataset.repaired_loading import strings_as_objects
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset
from ksr_recbole.dataset.tokens import TokenIds, as_categoricals, joint_codes
from ksr_recbole.errors import UserError
from ksr_recbole.quick_start import atomic_data
from ksr_recbole.quick_start.atomic_data import prepare_atomic_files
from tests.toy import toy_values

TYPES = {"user_id": "token", "timestamp": "float"}
HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"


def parts(value: Any) -> Any:
    """A dataset's attribute in a form that ``==`` compares."""
    if isinstance(value, pd.DataFrame):
        return {name: (column.dtype, column.tolist()) for name, column in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {name: parts(part) for name, part in value.items()}
    return value


def content(dataset: LinkedDataset) -> dict[str, Any]:
    left_out = ("config", "logger")
    return {k: parts(v) for k, v in vars(dataset).items() if k not in left_out}


def refuse(*_: Any) -> None:
    raise AssertionError("read the atomic files")


def test_a_dataset_from_the_cache_is_the_one_from_the_files(toy_config, monkeypatch):
    from_files = content(KGSequenceDataset(toy_config(data_cache_dir=None)))
    assert content(KGSequenceDataset(toy_config())) == from_files  # written
    monkeypatch.setattr(LinkedDataset, "_load_data", refuse)
    assert content(KGSequenceDataset(toy_config())) == from_files  # read


def test_a_dataset_of_recboles_is_no_dataset_of_ours(toy_config):
    """To ours ``normalize_all`` means nothing."""
    values = {"normalize_all": True, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    recboles = LinkedDataset(toy_config(**values)).inter_feat["timestamp"]
    ours = KGSequenceDataset(toy_config(**values)).inter_feat["timestamp"]
    assert recboles.max() == 1 and ours.max() > 1_000_000


@pytest.mark.parametrize("suffix", ["inter", "kg", "link"])
def test_other_files_are_other_content(suffix, toy_config, toy_folder, monkeypatch):
    LinkedDataset(toy_config())
    path = toy_folder / "toy" / f"toy.{suffix}"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    monkeypatch.setattr(LinkedDataset, "_load_data", refuse)
    with pytest.raises(AssertionError, match="read the atomic files"):
        LinkedDataset(toy_config())


def test_other_settings_are_other_content(toy_config, monkeypatch):
    LinkedDataset(toy_config())
    monkeypatch.setattr(LinkedDataset, "_load_data", refuse)
    with pytest.raises(AssertionError, match="read the atomic files"):
        LinkedDataset(toy_config(user_inter_num_interval="[3,inf)"))


def test_a_damaged_cache_file_is_made_again_with_a_warning(toy_config, toy_folder, caplog):
    before = content(LinkedDataset(toy_config()))
    (path,) = (toy_folder / "cache").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with caplog.at_level(logging.WARNING):
        assert content(LinkedDataset(toy_config())) == before
    assert "again" in caplog.text
    assert path.stat().st_size == len(whole)


def test_what_recbole_reads_itself_is_left_to_it(toy_config, toy_folder):
    item = toy_folder / "toy" / "toy.item"
    rows = "".join(f"i{k}\tword other\n" for k in range(1, 61))
    item.write_text("item_id:token\ttitle:token_seq\n" + rows)
    columns = {**toy_config()["load_col"], "item": ["item_id", "title"]}
    dataset = LinkedDataset(toy_config(load_col=columns))
    assert dataset.item_feat is not None
    assert not (toy_folder / "cache").exists()


@pytest.mark.parametrize("dataset_class", [LinkedDataset, KGSequenceDataset])
def test_a_column_of_sequences_is_loaded_and_not_cached(dataset_class, toy_config, toy_folder):
    path = toy_folder / "toy" / "toy.inter"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([f"{header}\ttags:token_seq", *(f"{r}\ta b" for r in rows)]) + "\n")
    columns = {**toy_config()["load_col"], "inter": "*"}
    dataset = dataset_class(toy_config(load_col=columns))
    assert "tags" in dataset.inter_feat and not (toy_folder / "cache").exists()


def test_ranges_of_numbers_are_other_content(toy_config):
    def settings(**values: Any) -> dict[str, str]:
        return stored.cache_parts(toy_config(**values), "toy", False)["settings"]

    plain = settings()
    other = settings(numerical_features=["x"], discretization={"x": {"method": "LD"}})
    assert {key for key in plain if plain[key] != other[key]} == {
        "numerical_features", "discretization"
    }  # fmt: skip


def test_columns_are_those_that_pandas_reads(tmp_path):
    path = tmp_path / "x.inter"
    rows = [("u1", "é ü", "5"), ("u2", "b", "1e5"), ("", "b", "-3.25"), ("u1", "b", "9")]
    path.write_text(HEADER + "".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    types = {"user_id": "token", "item_id": "token", "timestamp": "float"}
    kinds = {"user_id:token": str, "item_id:token": str, "timestamp:float": np.float64}
    with strings_as_objects():  # as RecBole reads
        frame = loading.read_columns(path, types)
        expected = pd.read_csv(path, delimiter="\t", dtype=kinds, engine="python")
        expected.columns = list(types)
    pd.testing.assert_frame_equal(frame, expected)


def test_windows_line_ends_and_tokens_that_look_like_missing_ones(tmp_path):
    path = tmp_path / "x.inter"
    path.write_bytes((HEADER + "NA\ti1\t1\nnull\ti2\t2\n").replace("\n", "\r\n").encode())
    frame = loading.read_columns(path, TYPES)
    assert frame["user_id"].tolist() == ["NA", "null"]
    assert frame["timestamp"].tolist() == [1.0, 2.0]
    last = loading.read_columns(path, {"timestamp": "float", "user_id": "token"})
    assert list(last.columns) == ["timestamp", "user_id"]


def test_windows_line_ends_after_a_token(tmp_path):
    path = tmp_path / "x.link"
    path.write_bytes(b"item_id:token\tentity_id:token\r\ni1\te1\r\ni2\te2\r\n")
    frame = loading.read_columns(path, {"item_id": "token", "entity_id": "token"})
    assert frame["entity_id"].tolist() == ["e1", "e2"]


def test_the_cache_is_whole_or_not_at_all(toy_config, toy_folder, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(AssertionError):
        LinkedDataset(toy_config())
    assert not list((toy_folder / "cache").iterdir())


WORDS = ["b", "a", "NA", "ä b", "1", "01", "-1", "nan"]


def drawn(n: int, seed: int) -> list[str]:
    return [WORDS[k] for k in np.random.default_rng(seed).integers(len(WORDS), size=n)]


def coded(**lists: list[str]) -> dict[str, pd.Categorical]:
    return as_categoricals(numbered({name: pl.Series(each) for name, each in lists.items()}))


def test_ids_are_coded_by_their_first_appearance_in_all_columns_of_their_kind():
    heads, tails = drawn(50, 0), ["first", *drawn(49, 1)]
    made = coded(head=heads, tail=tails)
    codes, tokens = pd.factorize(np.array([*heads, *tails], dtype=object))
    assert [*made["head"].codes, *made["tail"].codes] == codes.tolist()
    assert all(each.categories.tolist() == tokens.tolist() for each in made.values())
    assert [each.tolist() for each in made.values()] == [heads, tails]


def test_ids_of_one_hash_are_told_apart(monkeypatch):
    expected, hashed, seeds = coded(head=drawn(50, 0)), pl.Series.hash, []

    def of_one(column: pl.Series, seed: int = 0) -> pl.Series:
        seeds.append(seed)
        return hashed(column, seed) % (2 if seed == 0 else 2**63)

    monkeypatch.setattr(pl.Series, "hash", of_one)
    assert coded(head=drawn(50, 0))["head"].equals(expected["head"])
    assert seeds == [0, 1]


def test_the_ids_of_tokens_are_those_of_the_arrays_as_they_are_now():
    arrays = {"a": np.array(["[PAD]", "x", "y"])}
    arrays["b"] = arrays["a"]
    ids = TokenIds(arrays)
    assert ids == {"a": {"[PAD]": 0, "x": 1, "y": 2}, "b": {"[PAD]": 0, "x": 1, "y": 2}}
    assert ids["a"] is ids["b"] and "c" not in ids
    arrays["b"] = np.append(arrays["b"], "z")
    assert ids["b"]["z"] == 3 and "z" not in ids["a"]
    again = pickle.loads(pickle.dumps(ids))
    assert again == ids


@pytest.mark.parametrize("seed", range(3))
def test_joint_codes_are_those_of_all_columns_one_after_the_other(seed):
    lists = [drawn(30, seed), drawn(20, seed + 10), ["new", *drawn(5, seed + 20)]]
    first, second = coded(first=lists[0], second=lists[1]).values()
    frame = pd.DataFrame({"first": first})[7:]  # a filter leaves categories without a row
    objects = pd.Series([*lists[2], np.nan], dtype=object)
    codes, tokens = joint_codes([frame["first"], pd.Series(second), objects])
    wanted = np.array([*lists[0][7:], *lists[1], *objects], dtype=object)
    expected, names = pd.factorize(wanted)
    assert codes.tolist() == expected.tolist()
    assert tokens.tolist() == names.tolist()


def test_what_a_description_read_is_there_for_the_loading(toy_config, toy_folder, monkeypatch):
    config, read = toy_config(data_cache_dir=None), []
    scan = atomic.scan_checked
    monkeypatch.setattr(
        atomic,
        "scan_checked",
        lambda path, *given: read.append(Path(path).suffix) or scan(path, *given),
    )
    with holding():
        described = describe_table1(toy_folder / "toy", "toy", timed=True)
        dataset = KGSequenceDataset(config)
    assert sorted(set(read)) == [".inter", ".kg", ".link"] and len(read) == 3
    assert described.interactions == dataset.funnel.read.interactions
    assert content(KGSequenceDataset(config)) == content(dataset)  # read anew


def test_a_file_that_was_written_after_its_description_is_read_again(toy_config, toy_folder):
    path = toy_folder / "toy" / "toy.inter"
    with holding():
        described = describe_table1(toy_folder / "toy", "toy", timed=True)
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
        dataset = KGSequenceDataset(toy_config(data_cache_dir=None))
    assert dataset.funnel.read.interactions == described.interactions - 1


def test_a_header_is_checked_for_each_reader(toy_folder):
    path = toy_folder / "toy" / "toy.kg"
    path.write_text(path.read_text().replace("tail_id:token", "tail_id:token_seq", 1))
    with holding():
        check_atomic_file(path, ["head_id", "relation_id", "tail_id"])
        with pytest.raises(UserError, match="'tail_id' has type 'token_seq'"):
            check_atomic_file(path, dict.fromkeys(["head_id", "relation_id", "tail_id"], "token"))


def test_files_that_were_described_are_not_read_for_it_again(toy_config, monkeypatch):
    line = prepare_atomic_files(toy_config())
    monkeypatch.setattr(atomic_data, "describe_table1", refuse)
    assert prepare_atomic_files(toy_config()) == line
    with pytest.raises(AssertionError, match="read the atomic files"):
        prepare_atomic_files(toy_config(data_cache_dir=None))


@pytest.mark.parametrize("suffix", ["inter", "kg", "link"])
def test_other_files_are_described_anew(suffix, toy_config, toy_folder):
    line = prepare_atomic_files(toy_config())
    path = toy_folder / "toy" / f"toy.{suffix}"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    found = prepare_atomic_files(toy_config())
    assert found == prepare_atomic_files(toy_config(data_cache_dir=None))
    assert found != line


def test_a_file_that_became_wrong_is_refused_though_it_was_described(toy_config, toy_folder):
    prepare_atomic_files(toy_config())
    with (toy_folder / "toy" / "toy.kg").open("a") as file:
        file.write("only one column\n")
    with pytest.raises(UserError, match="1 column found where the header has 3"):
        prepare_atomic_files(toy_config())


def test_a_damaged_description_is_made_again(toy_config, toy_folder, caplog):
    line = prepare_atomic_files(toy_config())
    [path] = Path(toy_config()["data_cache_dir"]).glob("toy-table1-*")
    path.write_bytes(path.read_bytes()[:-3])
    assert prepare_atomic_files(toy_config()) == line
    assert "Making" in caplog.text
    assert prepare_atomic_files(toy_config()) == line


def test_data_that_cannot_be_kept_are_read_anew_with_a_warning(
    toy_folder, toy_config, tmp_path, caplog
):
    """Commands that only read a dataset need no folder to write to."""
    (tmp_path / "file").write_text("")
    config = toy_config(data_cache_dir=str(tmp_path / "file" / "cache"))
    prepare_atomic_files(config)
    found = KGSequenceDataset(config)
    assert caplog.text.count("data_cache_dir names another folder, or None for none") == 2
    kept = KGSequenceDataset(toy_config(data_cache_dir=None))
    assert parts(found.inter_feat) == parts(kept.inter_feat)


def test_files_replaced_while_they_are_read_are_not_kept_as_those_before(
    toy_config, toy_folder, monkeypatch
):
    """Their content would be found again by the key of the old files."""
    path = toy_folder / "toy" / "toy.inter"
    old = path.read_bytes()
    expected = content(KGSequenceDataset(toy_config(data_cache_dir=None)))
    load = LinkedDataset._load_data

    def load_others(self: LinkedDataset, *given: Any) -> None:
        path.write_bytes(b"".join(old.splitlines(keepends=True)[:-40]))
        load(self, *given)

    with monkeypatch.context() as changed:
        changed.setattr(LinkedDataset, "_load_data", load_others)
        with pytest.raises(UserError, match=r"toy\.inter was replaced while"):
            KGSequenceDataset(toy_config())
    path.write_bytes(old)
    assert content(KGSequenceDataset(toy_config())) == expected


def test_a_row_of_table_1_is_not_kept_of_files_that_were_replaced(
    toy_config, toy_folder, monkeypatch
):
    from ksr_recbole.quick_start import atomic_data

    path = toy_folder / "toy" / "toy.inter"
    old = path.read_bytes()
    expected = prepare_atomic_files(toy_config(data_cache_dir=None))
    describe = atomic_data.describe_table1

    def describe_others(*given: Any) -> Any:
        path.write_bytes(b"".join(old.splitlines(keepends=True)[:-40]))
        return describe(*given)

    with monkeypatch.context() as changed:
        changed.setattr(atomic_data, "describe_table1", describe_others)
        with pytest.raises(UserError, match=r"toy\.inter was replaced while"):
            prepare_atomic_files(toy_config())
    path.write_bytes(old)
    assert prepare_atomic_files(toy_config()) == expected


def test_what_load_col_names_in_vain_is_said_from_the_cache_too(toy_config, caplog):
    columns = {**toy_config()["load_col"], "inter": ["user_id", "item_id", "times"]}
    for _ in range(2):
        caplog.clear()
        KGSequenceDataset(toy_config(load_col=columns))
        assert caplog.text.count("load_col names times, but toy.inter has") == 1


def test_interactions_without_times_are_kept_where_no_time_is_needed(
    toy_config, toy_folder, monkeypatch, caplog
):
    path = toy_folder / "toy" / "toy.inter"
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    path.write_text("".join("\t".join(row[:2]) + "\n" for row in rows))
    values = toy_values(toy_folder, eval_args={"mode": "full"})
    config = Config("KGAT", "toy", None, values)
    first = content(LinkedDataset(config))
    monkeypatch.setattr(LinkedDataset, "_load_data", refuse)
    assert content(LinkedDataset(config)) == first
    assert not caplog.text


def test_what_cannot_be_found_again_is_not_kept(toy_config, toy_folder, caplog):
    """A further column of tokens, which reversed triples lack."""
    path = toy_folder / "toy" / "toy.kg"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([f"{header}\tsource:token", *(f"{r}\tx" for r in rows)]) + "\n")
    for _ in range(2):
        LinkedDataset(toy_config(load_col=None, kg_reverse_r=True))
    assert not list((toy_folder / "cache").glob("*data*"))
    assert "again" not in caplog.text
