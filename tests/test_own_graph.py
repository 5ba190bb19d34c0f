"""``run_recbole.py --kg=... --link=...``: another graph, which is never mixed with the first."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dataset_atomic import obtain, own_graph
from dataset_atomic.atomic import read_atomic
from dataset_atomic.describe import describe
from ksr_recbole.config import Config
from ksr_recbole.config import config as config_module
from ksr_recbole.errors import UserError
from ksr_recbole.explanation.trained import load_trained
from ksr_recbole.quick_start import atomic_data, run
from tests.raw_samples import write
from tests.test_obtain import FILMS, archive

MOODS = ("calm", "loud")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with ml-1m's raw files and nothing else; the folder of its datasets."""
    datasets = tmp_path / "dataset_atomic"
    for module in (obtain, own_graph, config_module, atomic_data):
        monkeypatch.setattr(module, "DATASETS", datasets)
    monkeypatch.chdir(tmp_path)
    zipfile.ZipFile(io.BytesIO(archive("ml-1m"))).extractall("raw/ml-1m")
    return datasets


def write_graph(folder: str, relation: str = "mood", items: list[str] = FILMS) -> dict[str, Any]:
    """Files of a graph of the films, and the config values that choose it."""
    files = {key: Path(folder) / f"{key}.tsv" for key in ("kg", "link", "names")}
    write(files["link"], [f"{item}\te{item}" for item in items])
    tails = [f"e{item}\t{relation}\tm{k % 2}" for k, item in enumerate(items)]
    write(files["kg"], tails)
    write(files["names"], [f"m{k}\t{mood}" for k, mood in enumerate(MOODS)])
    return {key: str(path) for key, path in files.items()}


def prepare(dataset: str = "ml-1m", **values: Any) -> Path:
    """The folder in which the dataset of a configuration is, once it is made."""
    config = Config("KSR", dataset, None, {"download": False, **values})
    atomic_data.prepare_atomic_files(config)
    return Path(config["data_path"])


def relations(folder: Path) -> set[str]:
    return set(read_atomic(folder / "ml-1m.kg", []).frame["relation_id"])


def test_each_graph_has_its_own_folder(machine):
    first, second = write_graph("a"), write_graph("b", "pace")
    usual = prepare()
    folders = [prepare(**first), prepare(**second)]
    assert usual == machine / "ml-1m" and len({usual, *folders}) == 3
    assert [relations(folder) for folder in folders] == [{"mood"}, {"pace"}]
    assert "dbo:director" in relations(usual)
    before = (folders[0] / "ml-1m.inter").stat().st_mtime_ns
    assert prepare(**first) == folders[0]
    assert (folders[0] / "ml-1m.inter").stat().st_mtime_ns == before  # found, not made again
    told = "\n".join(describe(folders[0]))
    assert "graph: kg.tsv, links: link.tsv" in told
    assert f"entities without a name: {len(FILMS)} of {len(FILMS) + 2}" in told


def test_a_file_that_changed_is_another_graph():
    values = write_graph("a")
    first = prepare(**values)
    write_graph("a", "pace")
    second = prepare(**values)
    assert first != second
    assert [relations(first), relations(second)] == [{"mood"}, {"pace"}]
    write_graph("a", "pace", FILMS[:12])
    third = prepare(**values)
    assert read_atomic(third / "ml-1m.link", []).frame.height == 12


def test_other_links_into_the_graph_that_ships():
    values = write_graph("a")
    write(Path("link"), [f"{item}\tdbr:Pulp_Fiction" for item in FILMS[:12]])
    folder = prepare(link="link")
    assert set(read_atomic(folder / "ml-1m.link", []).frame["entity_id"]) == {"dbr:Pulp_Fiction"}
    assert "dbo:director" in relations(folder)
    assert prepare(link=values["link"], kg=values["kg"]) != folder


def test_what_was_converted_with_one_graph_is_no_raw_file_for_another(machine):
    values = write_graph("a", items=FILMS[:12])
    prepare()
    for path in Path("raw/ml-1m/ml-1m").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="ml-1m is not here, and not downloaded"):
        prepare(**values)
    assert sorted(path.name for path in machine.iterdir()) == ["ml-1m"]


def test_recboles_files_under_data_path_are_raw_files():
    values = write_graph("a")
    rows = [f"{u}\t{i}\t4\t{9 * u + k}" for u in range(12) for k, i in enumerate(FILMS[:11])]
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    write(Path("mine/ml-1m/ml-1m.inter"), [header, *rows])
    folder = prepare(data_path="mine", **values)
    assert read_atomic(folder / "ml-1m.link", []).frame.height == 11
    assert prepare(**values) != folder
    assert sorted(path.name for path in Path("mine/ml-1m").iterdir()) == ["ml-1m.inter"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"kg": "no.tsv"}, "Config key kg is no.tsv, which cannot be read"),
        ({"names": "a"}, "Config key names is a, which cannot be read"),
        ({"kg": "a/kg.tsv"}, "no link file for ml-1m"),
        ({"kg": 3.5}, "Config key kg"),
        ({"kg": "a/kg.tsv", "link": "a/kg.tsv"}, "a/kg.tsv, line 1"),
    ],
)
def test_a_graph_that_cannot_be_used_is_one_sentence(machine, values, expected):
    write_graph("a")
    with pytest.raises(UserError, match=expected):
        prepare(**values)
    assert not machine.exists() or not any(machine.iterdir())


def test_a_dataset_without_a_converter_names_the_command():
    with pytest.raises(UserError, match="convert csv --raw"):
        prepare("shop", **write_graph("a"))


def test_a_trained_model_keeps_its_graph(machine):
    values = write_graph("a")
    rows = [(u, k, FILMS[(u + k) % 14]) for u in range(30) for k in range(11)]
    ratings = [f"{u}::{film}::4::{1_300_000_000 + 99 * u + k}" for u, k, film in rows]
    write(Path("raw/ml-1m/ml-1m/ratings.dat"), ratings)
    places = {"pretrain_dir": "vectors", "data_cache_dir": None, "eval_args": {"mode": "full"}}
    places |= {"report_modes": ["full"], "show_progress": False}
    small = {"epochs": 1, "kge_epochs": 1, "bpr_epochs": 1, "embedding_size": 8, "hidden_size": 8}
    results = [
        run("KSR", "ml-1m", config_dict={**values, **places, **small}),
        run("KSR", "ml-1m", config_dict={**places, **small}),
    ]
    for path in Path("a").iterdir():
        path.unlink()  # what was trained needs them no more
    attributes = [load_trained(result["checkpoint"]).dataset.attributes for result in results]
    assert len(attributes[0]) == 1 < len(attributes[1])
    with pytest.raises(UserError, match="leave kg out"):
        load_trained(results[0]["checkpoint"], values={"kg": values["kg"]})
