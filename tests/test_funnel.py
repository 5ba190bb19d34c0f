"""What is used of the files, and why the rest is not, is said and kept by every run."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from ksr_recbole.config import Config
from ksr_recbole.dataset.funnel import Counts, DataFunnel
from ksr_recbole.dataset.sequence_datasets import load_dataset
from ksr_recbole.errors import UserError
from ksr_recbole.quick_start import run
from tests.toy import SMALL, write_toy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "data")


def _dataset(folder: Path, tmp_path: Path, **values):
    settings = {**SMALL, "data_path": str(folder), "data_cache_dir": str(tmp_path / "cache")}
    dataset = load_dataset(Config("KSR", "toy", None, {**settings, **values}))
    dataset.build()
    return dataset


def _rows(folder: Path, suffix: str = "inter") -> list[list[str]]:
    lines = (folder / "toy" / f"toy.{suffix}").read_text().splitlines()[1:]
    return [line.split("\t") for line in lines]


def _counts(rows: list[list[str]]) -> Counts:
    return Counts(len(rows), len({row[0] for row in rows}), len({row[1] for row in rows}))


def _cut_links(folder: Path, n: int) -> None:
    path = folder / "toy" / "toy.link"
    path.write_text("\n".join(path.read_text().splitlines()[: n + 1]) + "\n")


def test_everything_used_is_said(folder, tmp_path):
    funnel = _dataset(folder, tmp_path).funnel
    counts = _counts(_rows(folder))
    assert (funnel.read, funnel.kept, funnel.dropped) == (counts, counts, {})
    assert funnel.complete and funnel.line().startswith(f"Used: all {counts}")


@pytest.mark.parametrize("model", ["KSR", "GRU"])
def test_items_that_no_interaction_has_are_counted_for_recbole_ranks_them(folder, tmp_path, model):
    path = folder / "toy" / "toy.item"
    known = sorted({row[1] for row in _rows(folder)})
    lines = [f"{item}\tx\n" for item in [*known, "new1", "new2", "new2"]]
    path.write_text("item_id:token\tkind:token\n" + "".join(lines))
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "kind"]}
    if model == "KSR":
        columns |= {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
    for _ in range(2):  # the second is read from the cache
        values = {"load_col": columns, "data_cache_dir": str(tmp_path / "cache")}
        config = Config(model, "toy", None, {**SMALL, "data_path": str(folder), **values})
        dataset = load_dataset(config)
        assert dataset.item_num == len(known) + 1 and dataset.funnel.unused_items == 2
        told = "; not ranked, unlike in RecBole: 2 items of .item without any interaction."
        assert dataset.funnel.line().endswith(told)
    plain = _dataset(folder, tmp_path)
    assert plain.funnel.unused_items == 0 and "not ranked" not in plain.funnel.line()


def test_a_link_file_cut_short_is_said_with_its_cause(folder, tmp_path, caplog):
    _cut_links(folder, 24)
    with caplog.at_level(logging.INFO):
        dataset = _dataset(folder, tmp_path)
    linked = {row[0] for row in _rows(folder, "link")}
    rows = _rows(folder)
    left = [row for row in rows if row[1] in linked]
    assert 0 < len(left) < len(rows)
    assert (dataset.funnel.read, dataset.funnel.kept) == (_counts(rows), _counts(left))
    warned = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    (line,) = [message for message in warned if message.startswith("Used: ")]
    assert f"Used: {len(left):,} of {len(rows):,} interactions" in line
    assert "item without a link to an entity with triples" in line
    assert dataset.table1().interactions == len(left)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"val_interval": {"timestamp": "[0,1003600]"}}, "val_interval"),
        ({"user_inter_num_interval": "[12,inf)"}, "user_inter_num_interval"),
        ({"item_inter_num_interval": "[9,inf)"}, "item_inter_num_interval"),
    ],
)
def test_every_filter_is_named_and_the_counts_add_up(folder, tmp_path, values, reason):
    dataset = _dataset(folder, tmp_path, **values)
    funnel = dataset.funnel
    assert any(reason in why for why in funnel.dropped)
    lost = sum(counts.interactions for counts in funnel.dropped.values())
    assert 0 < lost == funnel.read.interactions - funnel.kept.interactions
    assert funnel.kept.interactions == len(dataset.sequences.items)
    assert not funnel.complete and reason in funnel.line()


def test_repeats_left_out_are_counted(folder, tmp_path):
    path = folder / "toy" / "toy.inter"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, *lines[1:4]]) + "\n")
    assert _dataset(folder, tmp_path).funnel.complete
    funnel = _dataset(folder, tmp_path, rm_dup_inter="first").funnel
    assert funnel.dropped == {"the same user and item again: rm_dup_inter": Counts(3, 0, 0)}


def test_a_loaded_cache_says_the_same(folder, tmp_path):
    _cut_links(folder, 24)
    first = _dataset(folder, tmp_path).funnel
    assert list((tmp_path / "cache").glob("toy-data-*"))
    assert _dataset(folder, tmp_path).funnel == first
    assert first == DataFunnel.from_json(json.loads(json.dumps(vars(first), default=vars)))


def test_triples_left_out_are_no_complete_use_and_a_warning(folder, tmp_path, caplog):
    with (folder / "toy" / "toy.kg").open("a") as file:
        file.write("e5\tfilm.rare\tx\n")
    with caplog.at_level(logging.INFO):
        funnel = _dataset(folder, tmp_path, relation_kg_num_interval="[2,inf)").funnel
    n = len(_rows(folder, "kg"))
    assert funnel.read == funnel.kept and funnel.triples == (n, n - 1) and not funnel.complete
    (record,) = [r for r in caplog.records if r.message.startswith("Used: all")]
    assert record.levelno == logging.WARNING
    assert f"used {n - 1:,} of {n:,} triples" in record.message


def test_an_interval_that_leaves_no_triple_is_named(folder, tmp_path):
    with pytest.raises(UserError, match=r"entity_kg_num_interval: \[1000,inf\)"):
        _dataset(folder, tmp_path, entity_kg_num_interval="[1000,inf)")


def test_an_interval_that_leaves_no_interaction_is_named(folder, tmp_path):
    with pytest.raises(UserError, match="user_inter_num_interval"):
        _dataset(folder, tmp_path, user_inter_num_interval="[1000,inf)")


def test_the_result_counts_what_was_trained_on(folder, tmp_path):
    _cut_links(folder, 40)
    folders = {
        f"{name}_dir": str(tmp_path / name) for name in ("checkpoint", "results", "pretrain")
    }
    values = {
        **SMALL,
        **folders,
        "data_path": str(folder),
        "epochs": 1,
        "eval_args": {"mode": "full"},
    }
    result = run("KSR", "toy", config_dict={**values, "report_modes": ["full"]})
    linked = {row[0] for row in _rows(folder, "link")}
    left = _counts([row for row in _rows(folder) if row[1] in linked])
    stored = json.loads(Path(result["result_file"]).read_text())
    assert stored["data"]["kept"] == vars(left)
    assert stored["table1"].startswith(
        f"toy: {left.interactions:,} interactions, {left.items:,} linked"
    )


def test_one_of_a_kind_is_singular():
    assert str(Counts(1, 1, 6)) == "1 interaction, 1 user, 6 items"
    assert str(Counts(1_000, 2, 1)) == "1,000 interactions, 2 users, 1 item"
