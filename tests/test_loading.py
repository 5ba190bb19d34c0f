"""Reading atomic files with Polars, and the cache of loaded datasets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ksr_recbole.dataset import loading
from ksr_recbole.dataset.linked_dataset import LinkedDataset
from ksr_recbole.dataset.repaired_loading import strings_as_objects
from ksr_recbole.dataset.sequence_datasets import KGSequenceDataset

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
