"""The tables of ``docs/results`` are made again from their stored cells, without any data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ksr_recbole.comparison import cli, packed, plan, runner
from ksr_recbole.comparison.cells import cell_key
from ksr_recbole.comparison.results import Row
from ksr_recbole.comparison.store import Finished
from ksr_recbole.comparison.studies import Setting

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
TUNING = RESULTS / "ml-100k-freebase-tuning-next-session.json"
TABLES = sorted(set(RESULTS.glob("*.json")) - {TUNING})
PACKED = {path.parts[-3]: path for path in RESULTS.glob("benchmark/*/cells/*.zip")}
N_CELLS = {"ml-100k": 131, "ml-1m": 89, "lfm1m": 64}
"""Finished cells that are shipped of each dataset; whoever adds some changes the number."""

DIGESTS = {
    "ml-100k": {
        "inter": "52d7ea7697c4ef290d4f0e2015d92472042d656f61f5fe95996b6bd005b4efb3",
        "kg": "ce1a9552cf8914df86e8a317c478713c63e7a30ac17f339ecf2793870b035031",
        "link": "062ca7280775581901580ab9820b106ee97a312e581ef64813ea42d85950d7fd",
    },
    "ml-1m": {
        "inter": "551285bc47b3443fdccb2da597d31cceec242444e7788b9a95291eacb25ed9cd",
        "kg": "47d3ec474938ef08daee629634234784ef4b021860a86e42763fe68fad431284",
        "link": "ea9e4b56359bb0688f2ca50ee1043a1fceee8dfb5283a208c7ca5ffd44303a6b",
    },
    "lfm1m": {
        "inter": "07d21000d179ca6718720497184becf4cc215bf89481ef9d03b149ec72e5b808",
        "kg": "4e5daa75df5771cc755888de430a067852fd3008ad97b4e046402e884b81f75f",
        "link": "375d140c706ad4546bce7160564f4111165056406427476d5d524b5e1bff8922",
    },
}
"""SHA-256 of the atomic files that the stored cells were trained on, by the name in the cells."""

DIGESTS["ml-100k-freebase"] = DIGESTS["ml-100k"]
"""The same files under the name they have since ml-100k has another graph."""


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder with the stored cells and no table; a cell that is not found fails."""

    def no_jobs(jobs: Any, *_: Any) -> None:
        missing = [job.cell.name for job in jobs]
        assert not missing, f"not found by their keys: {missing}"

    folder = tmp_path / "docs" / "results"
    folder.mkdir(parents=True)
    (folder / "benchmark").symlink_to(RESULTS / "benchmark")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run_jobs", no_jobs)
    monkeypatch.setattr(plan, "check_files", lambda config: None)
    monkeypatch.setattr(plan, "file_digests", lambda config: DIGESTS[config["dataset"]])
    return folder


def make_again(table: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict]:
    """Give the command of a table; the JSON file it leaves, and the one that is shipped."""
    stored = json.loads(table.read_text())
    monkeypatch.setattr(plan, "prepare_atomic_files", lambda config: stored["table1"])
    _, *arguments = stored["environment"]["command"]
    assert cli.main([*arguments, "--results_dir=docs/results"]) == 0
    [made] = results.glob("*.json")
    return made, stored


def assert_same(made, stored) -> None:
    """Equal values; p-values are equal to 1e-9, since the last digits are SciPy's."""
    if isinstance(stored, float):
        assert made == pytest.approx(stored, rel=1e-9, abs=1e-300)
    elif isinstance(stored, dict):
        assert list(made) == list(stored)
        for key, value in stored.items():
            assert_same(made[key], value)
    elif isinstance(stored, list):
        assert len(made) == len(stored)
        for one, other in zip(made, stored, strict=True):
            assert_same(one, other)
    else:
        assert made == stored


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_a_shipped_table_is_made_again_byte_for_byte(table, results, monkeypatch):
    made, stored = make_again(table, results, monkeypatch)
    again = json.loads(made.read_text())
    del stored["environment"], again["environment"]
    assert_same(again, stored)
    for suffix in ("md", "tex"):
        kept = table.with_suffix(f".{suffix}")
        assert suffix == "tex" or kept.exists()
        if kept.exists():
            assert made.with_suffix(f".{suffix}").read_bytes() == kept.read_bytes()


def as_finished(trial: dict[str, Any], mode: str) -> Finished:
    """The cell of a trial of the shipped file, as far as its table needs it."""
    resumed = trial["training_seconds"] is None
    result = {
        "metrics": {mode: {"valid": {k: v["mean"] for k, v in trial["metrics"].items()}}},
        "best_epoch": int(trial["best_epoch"]),
        "epochs_trained": trial["epochs_trained"],
        "seconds": {"training": trial["training_seconds"]},
        "candidates": {},
    }
    record = {"wall_seconds": trial["seconds"], "resumed": resumed, "result": result}
    return Finished(record, {})


def test_the_shipped_trials_make_their_table_again(results, monkeypatch):
    """Cells of trials that were not chosen are not shipped; what the table needs of them is.

    The last column says what differs from a model's options, some of which have changed since.
    """
    shipped = json.loads(TUNING.read_text())
    rows = [
        Row(
            Setting(trial["label"], trial["model"], trial["overrides"], group=trial["model"]),
            shipped["task"],
            {2020: as_finished(trial, shipped["mode"])},
        )
        for trial in sorted(shipped["trials"], key=lambda trial: trial["label"])
    ]
    models = list(dict.fromkeys(trial["model"] for trial in shipped["trials"]))
    rows.sort(key=lambda row: models.index(row.setting.model))
    monkeypatch.setattr(runner, "run_cells", lambda asked: {})
    monkeypatch.setattr(runner, "collect_rows", lambda *_: rows)
    made, stored = make_again(TUNING, results, monkeypatch)
    again, kept = (path.with_suffix(".md").read_text() for path in (made, TUNING))
    for one, other in zip(again.splitlines(), kept.splitlines(), strict=True):
        assert one.split(" | ")[:-1] == other.split(" | ")[:-1]
    assert json.loads(made.read_text())["trials"] == stored["trials"]


@pytest.mark.parametrize("dataset", N_CELLS)
def test_the_stored_cells_have_the_keys_of_their_settings(dataset):
    names = packed.names_in(PACKED[dataset])
    assert len(names) == N_CELLS[dataset]
    for name in names:
        record, _ = packed.read_packed(PACKED[dataset], name)
        key = cell_key(record["result"]["config"], record["seed"], DIGESTS[record["dataset"]])
        assert key == record["key"] and name.endswith(f"-{key[:16]}"), name


def test_all_shipped_cells_are_packed():
    assert PACKED.keys() == N_CELLS.keys()
    assert not list(RESULTS.glob("benchmark/*/cells/*.json"))
