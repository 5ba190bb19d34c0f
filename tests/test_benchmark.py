"""The benchmark's command line, cells and workers."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import numpy as np
import pytest

from ksr_recbole.cache import read_arrays
from ksr_recbole.comparison import by_frequency, cli, live, pool, runner
from ksr_recbole.comparison.cells import Cell, cell_key
from ksr_recbole.comparison.inputs import file_digests
from ksr_recbole.comparison.live import LiveTable, last_epoch
from ksr_recbole.comparison.plan import Plan, Request, make_plan
from ksr_recbole.comparison.report import about
from ksr_recbole.comparison.store import Failed, Store
from ksr_recbole.comparison.studies import STUDIES, table3
from ksr_recbole.comparison.trial_files import tuning_study
from ksr_recbole.config import Config, keys
from ksr_recbole.errors import UserError
from ksr_recbole.locks import locked
from ksr_recbole.quick_start.result import settings
from ksr_recbole.registry import MODELS, PAPER_MODELS, RECBOLE_ROWS, VARIANTS
from tests import benchmark_fakes as fakes
from tests import forked
from tests.toy import SMALL, toy_values, write_toy

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def command(toy_folder: Path) -> list[str]:
    """Arguments of a small benchmark on the toy dataset, all output below its folder."""
    values = {key: value for key, value in SMALL.items() if key != "eval_args"}
    values |= {"eval_args.mode": "uni5pop5", "data_path": toy_folder}
    values |= {key: toy_folder / "made" / key for key in ("pretrain_dir", "data_cache_dir")}
    values["results_dir"] = toy_folder / "results"
    return ["--dataset=toy", *(f"--{key}={value}" for key, value in values.items())]


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained and no process started."""
    monkeypatch.setattr(runner, "run_jobs", fakes.run_jobs)


@pytest.fixture
def faked_in_workers(monkeypatch: pytest.MonkeyPatch, quick_workers: None) -> None:
    """Nothing is trained, but worker processes are real."""
    monkeypatch.setattr(pool, "run_cell", fakes.run_cell)


def results(toy_folder: Path, name: str = "toy-table3") -> dict:
    return json.loads((toy_folder / "results" / f"{name}.json").read_text())


def cell_files(toy_folder: Path, pattern: str = "*.json") -> list[Path]:
    return sorted((toy_folder / "results" / "benchmark" / "toy" / "cells").glob(pattern))


def requested(arguments: list[str]) -> Request:
    return cli.request_of(cli.parser().read(arguments))


# Whole commands -------------------------------------------------------------------------------


def test_the_table_is_written_in_every_format(command, toy_folder, faked, capsys):
    assert cli.main([*command, "--models=all", "--seeds=2", "--task=next-item,next-session"]) == 0
    shown = capsys.readouterr().out
    found = results(toy_folder)
    for task in ("next-item", "next-session"):
        for mode in fakes.MODES:
            assert f"toy, {task}, test, {mode}" in shown
    for suffix in ("md", "tex", "json", "png"):
        assert (toy_folder / "results" / f"toy-table3.{suffix}").stat().st_size > 500
    assert found["seeds"] == [2020, 2021] and found["modes"] == list(fakes.MODES)
    assert len(found["tables"]) == 4 and len(found["cells"]) == 13 * 2 * 2
    first = found["tables"][0]
    assert [row["label"] for row in first["rows"]] == [*PAPER_MODELS, *VARIANTS]
    assert first["baselines"] == [name for name in PAPER_MODELS if name != "KSR"]
    assert first["improvement_in_per_cent"]["mrr"] > 0
    baseline = first["rows"][0]
    assert baseline["metrics"]["mrr"]["significant"] is True
    assert len(baseline["metrics"]["mrr"]["per_seed"]) == 2
    assert (baseline["best_epoch"], baseline["epochs_trained"]) == (3, 8)
    assert (baseline["training_seconds"], baseline["seconds_to_best_epoch"]) == (4.0, 2.0)
    assert first["rows"][9]["metrics"]["mrr"]["p_value"] is None
    assert "torch" in found["environment"]["packages"]
    assert found["cells"][0]["result"]["candidates"] and "config" not in found["cells"][0]["result"]


def test_tables_by_how_often_targets_occur_in_training(command, toy_folder, faked, monkeypatch):
    users, counts = np.arange(1, fakes.N_USERS + 1), np.arange(fakes.N_USERS) % 30
    monkeypatch.setattr(by_frequency, "counts_of_targets", lambda *_: (users, counts))
    assert cli.main([*command, "--models=GRU,KSR", "--by_frequency"]) == 0
    tables = results(toy_folder, "toy-table3-by-frequency")["tables"]
    assert [(table["mode"], table["targets"]) for table in tables] == [
        (mode, f"{words} ({chosen} of 200 targets)")
        for words, chosen in (
            ("at most 5 training interactions", 42),
            ("6 to 20 training interactions", 104),
            ("21 or more training interactions", 54),
        )
        for mode in fakes.MODES
    ]
    rank = {row["label"]: row["metrics"]["mrr"]["mean"] for row in tables[0]["rows"]}
    drawn = {name: fakes.ranks_of(name, {"seed": 2020})["test"] for name in ("GRU", "KSR")}
    assert rank == pytest.approx({n: np.mean(1 / r[counts <= 5]) for n, r in drawn.items()})
    shown = (toy_folder / "results" / "toy-table3-by-frequency.md").read_text()
    assert "toy, next-item, test, full, 6 to 20 training interactions (104 of 200 targets)" in shown


def test_the_data_of_targets_are_loaded_for_a_row_that_can_be_run(command, toy_folder, faked):
    """Without a graph KSR, the first row, is refused; the fakes have other users than the data."""
    for suffix in ("kg", "link"):
        (toy_folder / "toy" / f"toy.{suffix}").unlink()
    with pytest.raises(UserError, match="other test targets than the data"):
        runner.run_benchmark(requested([*command, "--models=KSR,GRU", "--by_frequency"]))


def test_training_interactions_of_the_targets_by_plain_loops(command, toy_folder):
    plan = make_plan(requested([*command, "--models=GRU"]))
    users, counts = by_frequency.counts_of_targets(
        plan, plan.request.study.settings[0], "next-item"
    )
    histories: dict[str, list[tuple[float, int, str]]] = {}
    rows = (toy_folder / "toy" / "toy.inter").read_text().splitlines()[1:]
    for number, row in enumerate(rows):
        user, item, *_, time_of_it = row.split("\t")
        histories.setdefault(user, []).append((float(time_of_it), number, item))
    sequences = [[item for *_, item in sorted(each)] for each in histories.values()]
    trained = Counter(item for sequence in sequences for item in sequence[:-2])
    assert sorted(counts) == sorted(trained[sequence[-1]] for sequence in sequences)
    assert len(users) == len(sequences) and len(set(counts)) > 3


def test_a_table_takes_the_place_of_a_smaller_one_only(command, toy_folder, faked):
    folder = toy_folder / "results"
    assert cli.main([*command, "--models=KSR,GRU"]) == 0
    for _ in range(2):  # the same again replaces itself
        assert cli.main([*command, "--models=GRU"]) == 0
        assert sorted(path.name for path in folder.glob("*.json")) == [
            "toy-table3-2.json",
            "toy-table3.json",
        ]
    assert results(toy_folder)["rows"] == ["KSR", "GRU"]
    assert results(toy_folder, "toy-table3-2")["rows"] == ["GRU"]
    more = [*command, "--models=KSR,GRU", "--seeds=3"]
    assert cli.main([*more, "--eval_batch_size=7"]) == 0  # of no consequence
    assert results(toy_folder)["seeds"] == [2020, 2021, 2022]
    assert cli.main([*more, "--kb_scale=2"]) == 0
    assert len(list(folder.glob("*.json"))) == 3


def test_a_table_does_not_take_the_place_of_one_with_fewer_failures(
    command, toy_folder, faked, monkeypatch
):
    few = [*command, "--models=KSR,GRU"]
    monkeypatch.setenv(fakes.MISBEHAVE, "KSR=refuse")
    assert cli.main(few) == 1
    monkeypatch.delenv(fakes.MISBEHAVE)
    assert cli.main(few) == 0  # more cells than before: the place of the first
    assert len(list((toy_folder / "results").glob("*.json"))) == 1
    cell_files(toy_folder)[-1].unlink()
    monkeypatch.setenv(fakes.MISBEHAVE, "GRU=refuse,KSR=refuse")
    assert cli.main(few) == 1
    assert all("error" not in cell for cell in results(toy_folder)["cells"])
    assert any("error" in cell for cell in results(toy_folder, "toy-table3-2")["cells"])


def test_the_same_command_twice_at_once(command, toy_folder):
    """The second waits for the cells of the first and uses them."""
    small = [*command, "--models=BPR,GRU", "--seeds=2"]
    runs = [forked.Command([ROOT / "run_benchmark.py", *small], toy_folder) for _ in range(2)]
    told = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    assert all("error" not in cell for cell in results(toy_folder)["cells"])
    assert len(cell_files(toy_folder)) == 4
    assert [p.name for p in (toy_folder / "results").glob("*.json")] == ["toy-table3.json"]
    hidden = [p for p in (toy_folder / "results").rglob(".*")]
    assert not hidden and not list(toy_folder.glob("results/benchmark/toy/checkpoints/*"))


def of_any_size(command: list[str]) -> list[str]:
    """The command without what the study kge compares."""
    return [word for word in command if not word.startswith("--kg_embedding_size")]


@pytest.mark.parametrize("name", sorted(n for n, s in STUDIES.items() if s.measure is None))
def test_a_study_is_written_in_every_format(command, toy_folder, faked, name):
    assert cli.main([*of_any_size(command), f"--study={name}"]) == 0
    found = results(toy_folder, f"toy-{name}")
    assert found["tasks"] == list(STUDIES[name].tasks)
    assert len(found["tables"][0]["rows"]) == len(STUDIES[name].settings)
    for suffix in ("md", "tex", "png"):
        assert (toy_folder / "results" / f"toy-{name}.{suffix}").stat().st_size > 500


def test_a_value_that_a_study_varies_keeps_its_rows(command, toy_folder, faked, capsys):
    words = [*of_any_size(command), "--study=kge", "--kg_embedding_size=50"]
    assert cli.main([*words, "--kge_method=TransE"]) == 0
    assert "Left out, since kg_embedding_size 50, kge_method TransE was given: KSR, " in (
        capsys.readouterr().err
    )
    assert len(cell_files(toy_folder)) == 1


def test_a_value_that_some_rows_set_is_said_not_to_hold_there(command, faked, capsys):
    assert cli.main([*command, "--study=ladder"]) == 0  # the command has kg_embedding_size 4
    assert "kg_embedding_size is 4 only where a row does not set it itself." in (
        capsys.readouterr().err
    )


def test_studies_share_the_runs_they_have_in_common(command, toy_folder, faked):
    # TransE of size 50 stands in both panels of Fig. 4.
    assert cli.main([*of_any_size(command), "--study=kge"]) == 0
    assert len(cell_files(toy_folder)) == 7


def test_finished_cells_are_never_run_again(command, toy_folder, faked, capsys):
    few = [*command, "--models=BPR,KSR"]
    assert cli.main(few) == 0
    before = {path: path.stat().st_mtime_ns for path in cell_files(toy_folder, "*")}
    assert len(before) == 4
    first = capsys.readouterr()
    assert cli.main(few) == 0
    second = capsys.readouterr()
    assert {path: path.stat().st_mtime_ns for path in cell_files(toy_folder, "*")} == before
    assert "started" in first.err and "started" not in second.err
    assert first.out.endswith(second.out)
    assert cli.main([*command, "--models=BPR,GRU,KSR"]) == 0
    assert "GRU-next-item" in capsys.readouterr().err
    assert len(cell_files(toy_folder)) == 3


def test_a_cell_is_not_kept_under_the_key_of_other_files(
    command, toy_folder, faked, capsys, monkeypatch
):
    """A file that is changed while a cell is trained is another dataset."""
    graph, run = toy_folder / "toy" / "toy.kg", fakes.fake_run

    def changing(*given, **more):
        rows = graph.read_text().splitlines(keepends=True)
        graph.write_text("".join(rows[:-1]))
        return run(*given, **more)

    monkeypatch.setattr(fakes, "fake_run", changing)
    assert cli.main([*command, "--models=KSR"]) == 1
    told = capsys.readouterr()
    assert "was changed while" in told.out + told.err
    assert not cell_files(toy_folder)


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_a_damaged_cell_is_run_again_with_a_line_saying_so(
    command, toy_folder, faked, capsys, caplog, suffix
):
    assert cli.main([*command, "--models=BPR"]) == 0
    [path] = cell_files(toy_folder, f"*.{suffix}")
    path.write_bytes(path.read_bytes()[:-9])
    assert cli.main([*command, "--models=BPR"]) == 0
    assert "BPR-next-item-2020" in caplog.text and "started" in capsys.readouterr().err


def test_a_failed_cell_stands_in_its_place(command, toy_folder, faked, capsys, monkeypatch):
    monkeypatch.setenv(fakes.MISBEHAVE, "BPR=refuse,CKE=raise")
    few = [*command, "--models=BPR,CKE,GRU,KSR"]
    assert cli.main(few) == 1
    shown = capsys.readouterr().out
    assert "failed: BPR cannot be trained; give it better data." in shown
    assert "failed: ZeroDivisionError: by nothing (see " in shown
    found = results(toy_folder)["tables"][0]
    assert [bool(row["error"]) for row in found["rows"]] == [True, True, False, False]
    assert found["improvement_in_per_cent"]["mrr"] > 0
    assert "failed: BPR" in (toy_folder / "results" / "toy-table3.md").read_text()
    assert "failed: BPR" in (toy_folder / "results" / "toy-table3.tex").read_text()
    # What failed is tried again, the rest is not.
    monkeypatch.delenv(fakes.MISBEHAVE)
    assert cli.main(few) == 0
    error = capsys.readouterr().err
    assert "BPR-next-item" in error and "GRU-next-item" not in error


def test_models_that_need_a_graph_are_refused_without_one(command, toy_folder, faked, capsys):
    for suffix in ("kg", "link"):
        (toy_folder / "toy" / f"toy.{suffix}").unlink()
    assert cli.main([*command, "--models=BPR,GRU,KSR"]) == 1
    shown = capsys.readouterr().out
    assert "failed: KSR needs a knowledge graph, but" in shown and "toy.link" in shown
    assert [row["error"] is None for row in results(toy_folder)["tables"][0]["rows"]] == [
        True,
        True,
        False,
    ]


def test_different_candidates_are_refused(command, toy_folder, faked, capsys, monkeypatch):
    monkeypatch.setenv(fakes.MISBEHAVE, "GRU=differ")
    assert cli.main([*command, "--models=BPR,GRU"]) == 2
    assert "BPR and GRU were ranked against different candidates" in capsys.readouterr().err
    assert not (toy_folder / "results" / "toy-table3.json").exists()


def test_checkpoints_go_unless_they_are_to_be_kept(command, toy_folder, faked, capsys):
    folder = toy_folder / "results" / "benchmark" / "toy" / "checkpoints"
    assert cli.main([*command, "--models=BPR"]) == 0
    assert not list(folder.glob("*"))
    capsys.readouterr()
    assert cli.main([*command, "--models=GRU", "--keep_checkpoints"]) == 0
    assert [path.name[:3] for path in folder.glob("*")] == ["GRU"]
    assert "--keep_checkpoints" not in capsys.readouterr().err
    assert cli.main([*command, "--models=GRU,BPR", "--keep_checkpoints"]) == 0
    assert "no effect on 1 of the cells, which were finished" in capsys.readouterr().err


def test_leftovers_of_a_finished_cell_go_unless_a_newer_run_needs_them(command, toy_folder, faked):
    arguments = [*command, "--models=GRU"]
    assert cli.main(arguments) == 0
    plan = make_plan(requested(arguments))
    [cell] = plan.distinct_cells()
    finished = plan.store.result_file(cell).stat().st_mtime_ns
    checkpoint = plan.store.checkpoint_folder(cell) / "GRU.pth"

    def leave(nanoseconds: int) -> None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_bytes(b"state")
        os.utime(checkpoint, ns=(finished + nanoseconds,) * 2)

    leave(-1)
    with locked(plan.store.checkpoint_lock(cell)):  # another command trains the cell
        assert cli.main(arguments) == 0
        assert checkpoint.exists()
    leave(+1)  # of a study that measures more of the cell, and was interrupted
    assert cli.main(arguments) == 0
    assert checkpoint.exists()
    leave(-1)
    assert cli.main(arguments) == 0
    assert not checkpoint.parent.exists()
    assert not plan.store.checkpoint_lock(cell).exists()


def test_help_names_every_option(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for option in ("task", "models", "seeds", "jobs", "study", "results_dir", "keep_checkpoints"):
        assert f"--{option}" in shown


# Tuning ---------------------------------------------------------------------------------------


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "next-session.yaml"
    path.write_text(
        "BPR: [{learning_rate: 0.1}, {learning_rate: 0.01}]\n"
        "KSR: [{learning_rate: 0.1, dropout_prob: 0.2}, {}]\n"
    )
    monkeypatch.setattr(keys, "TRIALS", tmp_path)
    return path


@pytest.mark.parametrize("best", [0, 1])
def test_tuning_chooses_on_validation_and_hides_the_test(
    command, toy_folder, faked, trials, capsys, monkeypatch, best
):
    """On validation the one trial of each model is the better, in the test the other."""

    def drawn(model: str, values: dict) -> dict[str, np.ndarray]:
        first = values["learning_rate"] == 0.1
        rng = np.random.default_rng([values["seed"], first, *map(ord, model)])
        highest = {"valid": 20, "test": 200} if first == (best == 0) else {"valid": 200, "test": 20}
        return {phase: rng.integers(1, high, fakes.N_USERS) for phase, high in highest.items()}

    monkeypatch.setattr(fakes, "ranks_of", drawn)
    assert cli.main([*command, "--study=tuning", "--seeds=2", "--task=next-session"]) == 0
    found = results(toy_folder, "toy-tuning-next-session")
    assert found["phase"] == "valid" and found["selected_by"] == "mrr"
    assert [trial["model"] for trial in found["trials"]] == ["BPR", "BPR", "KSR", "KSR"]
    for first, second in (found["trials"][:2], found["trials"][2:]):
        assert first["chosen"] and not second["chosen"]
        assert first["label"] == f"{first['model']} {best + 1}"
        assert first["metrics"]["mrr"]["mean"] > second["metrics"]["mrr"]["mean"]
    text = (toy_folder / "results" / "toy-tuning-next-session.md").read_text()
    assert "(chosen)" in text and "learning_rate 0.1, dropout_prob 0.2" in text
    tested = [
        json.loads(path.read_text())["result"]["metrics"]["uni5pop5"]["test"]["mrr"]
        for path in cell_files(toy_folder)
    ]
    assert not any(repr(value) in json.dumps(found) for value in tested)
    assert "test MRR" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("BPR: [{}]\nKSR: [{}, {}]\n", "BPR 1, KSR 2"),
        ("BPR: []\n", "at least one"),
        ("KRS: [{}]\n", "did you mean KSR?"),
        ("KSR: [{learnign_rate: 1}]\n", "did you mean learning_rate?"),
        ("KSR: 3\n", "list"),
        ("- KSR\n", "must hold `key: value` lines"),
        ("KSR: [{\n", "YAML"),
        (None, "Cannot read"),
        ("BPR: [{}]\n", "no trials for KSR"),
    ],
)
def test_bad_trials(command, toy_folder, trials, capsys, content, part):
    trials.unlink() if content is None else trials.write_text(content)
    asked = ["--study=tuning", "--task=next-session"]
    asked += ["--models=KSR"] if "no trials" in part else []
    assert part in refusal(capsys, toy_folder, [*command, *asked])


def test_two_trials_that_are_the_same_setting(command, toy_folder, trials, capsys):
    trials.write_text("KSR: [{gamma: 4}, {kb_scale: 2.0}, {gamma: 4}]\n")
    asked = [*command, "--study=tuning", "--task=next-session"]
    assert "Trials 1 and 3 of KSR" in refusal(capsys, toy_folder, asked)


def test_a_dataset_that_no_cell_can_use_is_refused_once(command, toy_folder, capsys):
    inter = toy_folder / "toy" / "toy.inter"
    whole = inter.read_text()
    inter.write_text(whole.replace("timestamp:float", "when:float"))
    said = refusal(capsys, toy_folder, [*command, "--models=BPR,KSR"])
    assert f"{inter}, line 1: the header has no column 'timestamp'" in said
    inter.write_text(whole)
    for suffix in ("kg", "link"):
        (toy_folder / "toy" / f"toy.{suffix}").unlink()
    said = refusal(capsys, toy_folder, [*of_any_size(command), "--study=kge"])
    assert "KSR needs a knowledge graph" in said


@pytest.mark.parametrize("empty", ["dataset", "models", "study"])
def test_an_empty_name_is_not_the_default(command, toy_folder, capsys, empty):
    given = [a for a in command if not a.startswith(f"--{empty}=")]
    assert f"--{empty} is empty" in refusal(capsys, toy_folder, [*given, f"--{empty}="])


def test_one_task_is_tuned_at_a_time(command, toy_folder, capsys):
    both = [*command, "--study=tuning", "--task=next-item,next-session"]
    assert "one task at a time" in refusal(capsys, toy_folder, both)


def test_a_trial_means_the_same_once_another_one_was_chosen(tmp_path, monkeypatch):
    mine = tmp_path / "configs"
    copytree(keys.CONFIGS, mine)
    (mine / "model" / "next-session" / "KSR.yaml").write_text("gamma: 3\nkb_scale: 2.0\n")
    monkeypatch.setattr(keys, "CONFIGS", mine)
    path = tmp_path / "next-session.yaml"
    path.write_text("KSR: [{}, {gamma: 4}]\n")
    first, second = tuning_study(None, path, "toy").settings
    assert first.overrides == {"gamma": 10, "kb_scale": 1}
    assert second.overrides == {"gamma": 4, "kb_scale": 1}
    first, second = tuning_study(None, path, "ml-1m").settings
    chosen = {"kb_input": False, "learning_rate": 0.001}
    assert first.overrides == {"gamma": 10, "kb_scale": 1, **chosen}
    assert second.overrides == {"gamma": 4, "kb_scale": 1, **chosen}


def test_a_trial_of_recboles_model_means_the_same_too(tmp_path, monkeypatch):
    mine = tmp_path / "configs"
    copytree(keys.CONFIGS, mine)
    chosen = "learning_rate: 0.003\nstopping_step: 7\nhidden_size: 3\n"
    (mine / "model" / "next-session" / "GRU4Rec.yaml").write_text(chosen)
    monkeypatch.setattr(keys, "CONFIGS", mine)
    path = tmp_path / "next-session.yaml"
    path.write_text("GRU4Rec: [{}, {learning_rate: 0.01}]\n")
    first, second = tuning_study(None, path, "toy").settings
    before = {"protocol": "paper", "stopping_step": 5, "hidden_size": 128}
    assert first.overrides == {**before, "learning_rate": 0.001}
    assert second.overrides == {**before, "learning_rate": 0.01}


def _two_names(file):
    return f"{file.parent.name}-{file.stem}"


def test_a_dataset_may_have_trials_and_choices_of_its_own_for_a_task(tmp_path, monkeypatch):
    mine = tmp_path / "configs"
    copytree(keys.CONFIGS, mine)
    (mine / "tuning" / "toy").mkdir()
    (mine / "tuning" / "toy" / "next-session.yaml").write_text("KSR: [{}, {gamma: 4}]\n")
    for folder, gamma in {"next-session": 5, "toy": 6, "toy/next-session": 7}.items():
        (mine / "model" / folder).mkdir(exist_ok=True)
        (mine / "model" / folder / "KSR.yaml").write_text(f"gamma: {gamma}\n")
    monkeypatch.setattr(keys, "CONFIGS", mine)
    monkeypatch.setattr(keys, "TRIALS", mine / "tuning")
    study = requested(["--dataset=toy", "--task=next-session", "--study=tuning"]).study
    assert [each.overrides["gamma"] for each in study.settings] == [10, 4]
    study = requested(["--dataset=toy", "--task=next-item", "--study=tuning"]).study
    assert {each.model for each in study.settings} == set(PAPER_MODELS)
    for dataset, task, gamma in (
        ("toy", "next-session", 7), ("toy", "next-item", 6), ("ml-1m", "next-session", 5),
        ("ml-1m", "next-item", 10),
    ):  # fmt: skip
        assert Config("KSR", dataset, None, {"task": task})["gamma"] == gamma


@pytest.mark.parametrize("file", sorted(keys.TRIALS.rglob("*.yaml")), ids=_two_names)
def test_the_trials_that_come_with_the_project_are_fair(file):
    own = file.parent != keys.TRIALS
    dataset = file.parent.name if own else "ml-1m"
    assert not own or keys.trials_of(dataset, file.stem) == file
    study = tuning_study(None, file, dataset)
    models = dict.fromkeys(each.model for each in study.settings)
    # A dataset's own file may have more of ours; read_trials sees to it that none has more trials.
    assert [model for model in models if not own or model in PAPER_MODELS] == list(PAPER_MODELS)


@pytest.mark.parametrize("task", ["next-item", "next-session"])
def test_recboles_rows_have_as_many_trials_and_their_chosen_values(task):
    path = keys.TRIALS / f"{task}.yaml"
    ours = tuning_study(["GRU"], path, "ml-1m").settings
    for name in RECBOLE_ROWS:
        trials = tuning_study([name], path, "ml-1m").settings
        assert len(trials) == len(ours)
        assert all(trial.overrides["protocol"] == "paper" for trial in trials)
        config = Config(name, "toy", None, {"protocol": "paper", "task": task})
        assert config["stopping_step"] == keys.model_options("GRU")["stopping_step"]
    table = requested(["--models=paper,recbole"]).study
    assert [each.label for each in table.settings] == [*PAPER_MODELS, *RECBOLE_ROWS]
    assert set(table.baselines) < set(PAPER_MODELS)


# Bad input ------------------------------------------------------------------------------------


def refusal(capsys, toy_folder: Path, arguments: list[str]) -> str:
    """One sentence, status 2, nothing written."""
    assert cli.main(arguments) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert not (toy_folder / "results").exists()
    return line


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("--models=KSR,GRUU", "did you mean GRU"),
        ("--models=,", "names no model"),
        ("--task=next-itme", "did you mean next-item?"),
        ("--task=builtin", "next-session"),
        ("--task=,", "names no task"),
        ("--study=value-matrx", "did you mean value-matrix?"),
        ("--seeds=0", "positive whole number"),
        ("--seeds=two", "positive whole number"),
        ("--seeds=-1", "positive whole number"),
        ("--seeds=" + "9" * 5000, "positive whole number"),
        ("--seeds=999999999", "at most 1000"),
        ("--jobs=1.5", "positive whole number"),
        ("--learnign_rate=1", "did you mean learning_rate?"),
        ("--seed=7", "--seeds"),
        ("--model=KSR", "--models"),
        ("--resume=x.pth", "by themselves"),
        ("--topk=[5]", "hit@10"),
        ("KSR", "'KSR'"),
        ("--config_files=absent.yaml", "absent.yaml"),
    ],
)
def test_bad_argument(command, toy_folder, capsys, argument, part):
    assert part in refusal(capsys, toy_folder, [*command, argument])


def test_unknown_dataset(toy_folder, capsys):
    assert "did you mean ml-100k?" in refusal(capsys, toy_folder, ["--dataset=ml-100"])


def test_results_folder_that_cannot_be_written(command, toy_folder, capsys):
    blocked = toy_folder / "a-file"
    blocked.write_text("")
    arguments = [a for a in command if not a.startswith("--results_dir")]
    error = refusal(capsys, toy_folder, [*arguments, f"--results_dir={blocked / 'below'}"])
    assert "results_dir" in error


# Cells ----------------------------------------------------------------------------------------


def plan_of(toy_folder: Path, models: tuple[str, ...] = ("KSR",), **values: str) -> Plan:
    given = {"data_path": str(toy_folder), "eval_args.mode": "uni5pop5", **values}
    request = Request("toy", table3(models), ("next-item",), (2020,), values=given)
    return make_plan(request)


def only_key(plan: Plan) -> str:
    [cell] = plan.cells.values()
    return cell.key


def test_a_key_changes_with_what_the_result_depends_on(toy_folder, tmp_path):
    key = only_key(plan_of(toy_folder))
    assert only_key(plan_of(toy_folder)) == key
    assert only_key(plan_of(toy_folder, gamma="3")) != key
    assert only_key(plan_of(toy_folder, **{"eval_args.mode": "uni6pop5"})) != key
    assert only_key(plan_of(toy_folder, models=("GRU",))) != key
    with (toy_folder / "toy" / "toy.kg").open("a") as file:
        file.write("e5\tfilm.genre\tg0\n")
    assert only_key(plan_of(toy_folder)) != key


def test_a_key_does_not_change_with_paths_and_machines(toy_folder, tmp_path):
    key = only_key(plan_of(toy_folder))
    elsewhere = write_toy(tmp_path / "elsewhere")
    assert only_key(plan_of(elsewhere, pretrain_dir="p", data_cache_dir="c", gpu_id="")) == key
    assert only_key(plan_of(toy_folder, show_progress="False", eval_batch_size="7")) == key


def test_a_key_does_not_change_with_the_process(toy_folder):
    code = (
        "import sys; from pathlib import Path; from tests.test_benchmark import only_key, plan_of;"
        "print(only_key(plan_of(Path(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(toy_folder)],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == only_key(plan_of(toy_folder))


def test_a_key_holds_the_seed_once():
    files, given = {"inter": "a"}, {"gamma": 1, "seed": 5}
    assert cell_key(given, 1, files) != cell_key(given, 2, files)
    assert cell_key(given, 1, files) == cell_key({"gamma": 1, "seed": 9}, 1, files)
    assert cell_key(given, 1, files) != cell_key(given, 1, {"inter": "b"})


def test_vectors_in_the_datasets_folder_leave_its_files_in_the_key(toy_folder):
    folder = toy_folder / "toy"
    (folder / "toy.ent").write_text("vectors")
    values = toy_values(toy_folder, pretrain_path=str(folder))
    found = file_digests(Config("KSR", "toy", None, values))
    assert set(found) == {"inter", "kg", "link", "ent"}


def test_given_vectors_are_part_of_the_key_and_their_place_is_not(toy_folder, tmp_path):
    def key(folder: str, content: str) -> str:
        vectors = tmp_path / folder
        vectors.mkdir(exist_ok=True)
        (vectors / "toy.ent").write_text(content)
        values = toy_values(toy_folder, pretrain_path=str(vectors))
        config = Config("KSR", "toy", None, values)
        return cell_key(settings(config), 1, file_digests(config))

    assert key("here", "one") == key("there", "one") != key("there", "other")


@pytest.mark.parametrize(
    ("model", "values", "file"),
    [
        ("KSR", {"benchmark_filename": ["train", "valid", "test"]}, "toy.train.inter"),
        ("KSR", {"val_interval": {"year": "[0,inf)"}}, "toy.item"),
        ("KSR", {"load_col": None}, "toy.item"),
        ("SASRecF", {"protocol": "paper", "selected_features": ["class"]}, "toy.item"),
        ("KSR", {"additional_feat_suffix": ["ent"]}, "toy.ent"),
        ("NeuMF", {"protocol": "paper", "mf_pretrain_path": "toy.mf"}, "toy.mf"),
        ("LDiffRec", {"protocol": "paper"}, "item_emb.npy"),
    ],
)  # fmt: skip
def test_whatever_file_a_run_reads_is_part_of_its_key(model, values, file, toy_folder):
    path = toy_folder / "toy" / file
    if "mf_pretrain_path" in values:
        values = {**values, "mf_pretrain_path": str(path)}

    def found(content: str) -> dict[str, str]:
        path.write_text(content)
        return file_digests(Config(model, "toy", None, toy_values(toy_folder, **values)))

    one, other = found("one"), found("two")
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] != []


@pytest.mark.parametrize(("columns", "read"), [([], False), (["item_id"], True)])
def test_items_that_are_read_are_part_of_the_key(columns, read, toy_folder):
    """They may leave out interactions."""
    path = toy_folder / "toy" / "toy.item"
    path.write_text("item_id:token\ni1\n")
    values = toy_values(toy_folder, load_col={"item": columns})
    assert ("item" in file_digests(Config("KSR", "toy", None, values))) is read


@pytest.mark.parametrize("model", ["KSR", "GRU", "SASRec", "Pop"])
def test_a_file_that_a_run_does_not_read_is_no_part_of_its_key(model, toy_folder):
    values = toy_values(toy_folder, **({} if model in MODELS else {"protocol": "paper"}))
    assert set(file_digests(Config(model, "toy", None, values))) == {"inter", "kg", "link"}


@pytest.mark.parametrize(
    ("models", "values", "told"),
    [
        (["BPR", "NeuMF"], {"gamma": "3"}, "Config key gamma has no effect on any row."),
        (["BPR", "KSR"], {"gamma": "3"}, None),
        (["BPR"], {"gamma": "3"}, "Config key gamma has no effect on BPR: it is no option of it."),
        (["GRU", "Pop"], {"kge_epochs": "3"}, "Config key kge_epochs has no effect on any row."),
        (["GRU", "KSR"], {"seq_len": "{'a': 3}"}, "Config key seq_len has no effect on any row."),
    ],
)
def test_a_key_without_effect_on_any_row_is_said(models, values, told, toy_folder):
    plan = plan_of(toy_folder, models, **values)
    given = [each for each in plan.remarks if next(iter(values)) in each]
    assert given == ([] if told is None else [told])


@pytest.mark.parametrize(
    "values",
    [{"eval_args.mode": "uni50pop50"}, {"train_ratio": "0.5"}, {"ema_decay": "0.9"},
     {"matmul_precision": "high"}],
)  # fmt: skip
def test_rows_of_recboles_alone_take_what_the_protocol_reads(values, toy_folder):
    """Their rows have ``protocol: paper`` themselves."""
    assert plan_of(toy_folder, ("SASRec", "Pop"), **values).cells


def test_processes_and_workers_that_draw_for_themselves_are_part_of_the_key():
    alone = cell_key({"gamma": 1}, 1, {})
    assert cell_key({"gamma": 1, "nproc": 1, "world_size": -1, "worker": 0}, 1, {}) == alone
    several = [cell_key({"gamma": 1, name: 2}, 1, {}) for name in ("nproc", "world_size", "worker")]
    assert len({alone, *several}) == 4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seed: 7", "gives seed, which is no key of the benchmark; give --seeds instead"),
        ("model: KSR", "give --models instead"),
        ("dataset: ml-1m", "give --dataset=ml-1m to the command"),
        ("task: next-session", "give --task=next-session to the command"),
        ("results_dir: x", "give --results_dir=x to the command"),
        ("dataset: toy", None),
    ],
)
def test_config_files_name_nothing_that_the_benchmark_is_given(text, told, command, faked, capsys):
    file = Path("mine.yaml")
    file.write_text(f"{text}\n")
    status = cli.main([*command, "--models=GRU", "--config_files=mine.yaml"])
    assert status == (0 if told is None else 2)
    assert told is None or told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "kept"),
    [("loss", ["KSR, loss_type sampled_CE"]), ("ladder", ["GRU++, score of Eq. 2"]),
     ("value-matrix", ["KSR, value_matrix shared"])],
)  # fmt: skip
def test_a_study_without_its_reference_compares_no_row_with_itself(name, kept):
    study = STUDIES[name]
    rows = [setting for setting in study.settings if setting.label in kept]
    assert rows and study.only(rows).baselines == ()
    assert study.only(study.settings).baselines == study.baselines


def test_an_option_without_a_value_is_no_part_of_a_key():
    without = cell_key({"gamma": 1}, 1, {})
    assert cell_key({"gamma": 1, "new": None}, 1, {}) == without
    assert cell_key({"gamma": 1, "new": False}, 1, {}) != without


def test_what_is_kept_names_no_folder_of_this_machine(tmp_path, toy_folder):
    store, cell = Store(tmp_path), Cell("KSR", "toy", "next-item", 2020, {}, "0" * 64)
    places = ["--data_path", "/home/me", "--config_files", "/home/me/a.yaml", "/home/me/b.yaml"]
    command = ["/home/me/run_benchmark.py", "--data_path=/home/me", *places, "--gamma=3"]
    result = fakes.run_result(
        {"test": [1], "valid": [1]},
        config={"data_path": "/home/me", "gamma": 3},
        environment={"gpu": None, "command": command},
    )
    store.save(cell, result, wall_seconds=1.5, resumed=False)
    kept = store.load(cell).result
    assert kept["config"] == {"gamma": 3}
    assert kept["environment"] == {"gpu": None, "command": ["run_benchmark.py", "--gamma=3"]}
    assert about(plan_of(toy_folder, gamma="3"))["values"] == {
        "eval_args.mode": "uni5pop5",
        "gamma": "3",
    }


def test_a_stored_cell_is_read_back(tmp_path):
    store = Store(tmp_path)
    cell = Cell("KSR", "toy", "next-item", 2020, {"gamma": 3}, "0123456789abcdef" * 4)
    assert store.load(cell) is None
    result = fakes.run_result({"test": [1, 2, 5], "valid": [3, 3, 3]})
    store.save(cell, result, wall_seconds=1.5, resumed=True)
    found = store.load(cell)
    assert found.record["overrides"] == {"gamma": 3} and found.record["resumed"] is True
    assert found.result == {key: result[key] for key in result if key != "eval_results"}
    assert found.ranks["full", "test"][1].tolist() == [1, 2, 5]
    assert found.per_user("full", "test")["mrr"].values.tolist() == [1, 0.5, 0.2]
    other = Cell("KSR", "toy", "next-item", 2020, {}, "0123456789abcdef" + "0" * 48)
    assert store.load(other) is None  # the same file name, but another key


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, True),
        ({"best_valid_score": None}, True),  # nothing was validated
        ({"best_valid_score": 0.9}, False),
        ({"best_valid_score": 0.34}, True),  # a rank changed when it was validated again
        ({"eval_mode": "full2"}, False),
        ({"eval_mode": ["full"]}, False),
        ({"config": {"valid_metric": "MAP@3"}}, False),
        ({"config": {"valid_metric": 5}}, False),
    ],
)
def test_the_score_of_a_cell_is_its_metric_on_validation(tmp_path, caplog, changed, found):
    store = Store(tmp_path)
    cell = Cell("KSR", "toy", "next-item", 2020, {}, "0123456789abcdef" * 4)
    result = fakes.run_result({"test": [1, 2, 5], "valid": [3, 3, 3]})
    result |= {"config": {"valid_metric": "MRR"}, "best_valid_score": 1 / 3, **changed}
    store.save(cell, result, wall_seconds=1.5, resumed=False)
    assert (store.load(cell) is not None) is found
    assert ("Running KSR" in caplog.text) is not found


def test_a_stored_cell_holds_no_place_on_this_machine_and_small_numbers(tmp_path):
    store = Store(tmp_path)
    cell = Cell("KSR", "toy", "next-item", 2020, {}, "0123456789abcdef" * 4)
    result = fakes.run_result({"test": [1, 2, 300], "valid": [3, 3, 3]})
    result["config"] = {"data_path": str(tmp_path), "checkpoint_dir": str(tmp_path), "gamma": 3}
    store.save(cell, result, wall_seconds=1.5, resumed=False)
    assert str(tmp_path) not in store.result_file(cell).read_text()
    assert store.load(cell).result["config"] == {"gamma": 3}
    kept = read_arrays(store.ranks_file(cell), cell.key)
    assert kept["full/test/users"].dtype == np.uint8
    assert kept["full/test/ranks"].dtype == np.uint16
    users, ranks = store.load(cell).ranks["full", "test"]
    assert users.dtype == ranks.dtype == np.int64 and ranks.tolist() == [1, 2, 300]


# Workers --------------------------------------------------------------------------------------


def test_a_dead_worker_fails_its_own_cell_only(
    command, toy_folder, faked_in_workers, capsys, monkeypatch
):
    monkeypatch.setenv(fakes.MISBEHAVE, "BPR=die")
    assert cli.main([*command, "--models=BPR,FPMC,GRU,KSR", "--jobs=2"]) == 1
    captured = capsys.readouterr()
    assert "BPR" in captured.out and "failed: its process died" in captured.out
    errors = [row["error"] for row in results(toy_folder)["tables"][0]["rows"]]
    assert [error is None for error in errors] == [False, True, True, True]
    # What a cell prints goes to its log, not here.
    assert "training" not in captured.out + captured.err
    logs = (toy_folder / "results" / "benchmark" / "toy" / "logs").glob("GRU-*.log")
    assert "training GRU with resume False" in next(logs).read_text()


def test_a_traceback_goes_to_the_cells_log(command, toy_folder, faked, monkeypatch, capfd):
    monkeypatch.setenv(fakes.MISBEHAVE, "BPR=raise")
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    assert cli.main([*command, "--models=BPR"]) == 1
    [log] = (toy_folder / "results" / "benchmark" / "toy" / "logs").glob("BPR-*.log")
    assert "ZeroDivisionError: by nothing" in log.read_text()
    assert "Traceback" not in capfd.readouterr().err


def test_a_log_whose_end_cannot_be_written_fails_no_cell(tmp_path, monkeypatch):
    """The process printed into that log for ever after, and then its rest anywhere."""
    where = [os.fstat(number).st_ino for number in (1, 2)]
    with open("/dev/full", "w") as full, monkeypatch.context() as other:
        print("the end of a log", file=full)
        other.setattr(sys, "stdout", full)
        with pool._output_to(tmp_path / "cell.log") as lost:
            pass
        assert lost == [os.strerror(errno.ENOSPC)]
        os.dup2(os.open(tmp_path / "later", os.O_WRONLY | os.O_CREAT), full.fileno())
    assert [os.fstat(number).st_ino for number in (1, 2)] == where
    assert (tmp_path / "later").read_bytes() == b""


def test_a_cell_another_command_has_finished_is_not_run(command, toy_folder, faked, monkeypatch):
    assert cli.main([*command, "--models=GRU"]) == 0
    plan = make_plan(requested([*command, "--models=GRU"]))
    cell = plan.distinct_cells()[0]
    before = plan.store.result_file(cell).stat().st_mtime_ns
    monkeypatch.setenv(fakes.MISBEHAVE, f"{cell.model}=raise")
    assert fakes.run_cell(pool.Job(cell, plan.store, (), {}, False)) == pool.Report()
    assert plan.store.result_file(cell).stat().st_mtime_ns == before
    kept = plan.store.checkpoint_folder(cell)  # the other one was given --keep_checkpoints
    kept.mkdir(parents=True)
    assert fakes.run_cell(pool.Job(cell, plan.store, (), {}, False)) == pool.Report()
    assert kept.is_dir()


def test_a_log_that_cannot_be_opened_leaves_no_open_file():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError), pool._output_to(Path("/proc/none.log")):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_unusable_checkpoint_is_left_aside_with_a_warning(
    command, toy_folder, faked, capsys, monkeypatch
):
    monkeypatch.setenv(fakes.MISBEHAVE, "KSR=damaged")
    values = dict(a.removeprefix("--").split("=", 1) for a in command[1:])
    values.pop("results_dir")
    request = Request(
        "toy", table3(("KSR",)), ("next-item",), (2020,), 1, toy_folder / "results", (), values
    )
    plan = make_plan(request)
    [cell] = plan.cells.values()
    folder = plan.store.checkpoint_folder(cell)
    folder.mkdir(parents=True)
    (folder / "old.pth").write_text("")
    assert cli.main([*command, "--models=KSR"]) == 0
    error = capsys.readouterr().err
    assert f"warning: {cell.name} starts anew: Checkpoint {folder / 'old.pth'} is damaged" in error
    assert plan.store.load(cell).record["resumed"] is False


def test_ctrl_c_ends_the_workers_and_tells_how_to_go_on(
    command, toy_folder, faked_in_workers, capsys, monkeypatch
):
    monkeypatch.setenv(fakes.MISBEHAVE, "BPR=sleep")
    waiting = pool.wait
    checkpoints = toy_folder / "results" / "benchmark" / "toy" / "checkpoints"

    def interrupted(*arguments, **named):
        if list(checkpoints.glob("BPR-*/here")):
            raise KeyboardInterrupt
        return waiting(*arguments, **named)

    monkeypatch.setattr(pool, "wait", interrupted)
    assert cli.main([*command, "--models=BPR,GRU"]) == 130
    assert not cell_files(toy_folder)  # the worker was ended, not waited for
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "python run_benchmark.py --dataset=toy" in last and "--models=BPR,GRU" in last


# Progress -------------------------------------------------------------------------------------


def test_the_last_epoch_is_read_from_the_log(tmp_path):
    log = tmp_path / "a.log"
    assert last_epoch(log) == ""
    epoch = "\x1b[1;32mepoch {} evaluating\x1b[0m [\x1b[1;34mtime\x1b[0m: 1.20s, "
    epoch += "\x1b[1;34mvalid_score\x1b[0m: 0.3{}0000]\n"
    log.write_text("x" * 10000 + epoch.format(0, 1) + epoch.format(11, 2))
    assert last_epoch(log) == ", epoch 11: 0.3200"
    log.write_text(epoch.format(11, 2).replace("0.3", "0.3.4."))
    assert last_epoch(log) == ""


def test_what_stands_in_the_place_of_a_log_fails_its_cell(tmp_path):
    store, cell = Store(tmp_path), Cell("KSR", "toy", "next-item", 1, {}, "ab" * 32)
    log = store.log_file(cell)
    log.parent.mkdir()
    os.mkfifo(log)
    report = pool.run_cell(pool.Job(cell, store, (), {}, False))
    assert "it is no file" in report.error and last_epoch(log) == ""


def test_the_live_table_shows_every_state(toy_folder, monkeypatch):
    from rich.console import Console

    class Live:
        console = Console(width=120, force_terminal=False, record=True, file=io.StringIO())

        def update(self, table):
            self.console.print(table)

    plan = plan_of(toy_folder, models=("BPR", "FPMC", "GRU", "KSR"))
    names = {cell.model: cell for cell in plan.cells.values()}
    clock = iter(range(0, 1000, 10))
    outcomes = {
        names["BPR"].name: fakes.finished([1, 2]),
        names["FPMC"].name: Failed("no reason"),
    }
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    board = LiveTable(Live(), plan, outcomes)
    board.started(pool.Job(names["GRU"], plan.store, (), {}, False))
    board.tick()
    shown = Live.console.export_text()
    assert "2/4 cells, " in shown and "about " in shown and " s left" in shown
    for label, state in (("BPR", "0.7500"), ("FPMC", "failed"), ("KSR", "waiting")):
        assert any(label in line and state in line for line in shown.splitlines()), shown
    assert any("GRU" in line and " s" in line for line in shown.splitlines())


# Real runs ------------------------------------------------------------------------------------


def test_a_killed_benchmark_goes_on_where_it_was(command, toy_folder, tmp_path):
    arguments = [ROOT / "run_benchmark.py", *command, "--models=BPR,GRU,KSR"]
    with forked.Command(arguments, tmp_path) as process:
        while not cell_files(toy_folder):
            assert process.returncode is None, process.said()
            time.sleep(0.02)
        process.kill()
    first, *_ = cell_files(toy_folder)
    before = first.stat().st_mtime_ns
    done = forked.run(arguments, tmp_path)
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown
    assert first.stat().st_mtime_ns == before
    assert f"{first.stem}: started" not in shown
    assert len(cell_files(toy_folder)) == 3


def test_all_methods_as_typed(command, toy_folder, tmp_path):
    """The command and its workers are new processes."""
    # Toy batches gain nothing from threads, which wait for each other where cores are busy.
    single = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    arguments = [*command, "--models=all", "--task=next-session", "--session_length=3600"]
    done = subprocess.run(
        [sys.executable, ROOT / "run_benchmark.py", *arguments],
        cwd=tmp_path, env={**os.environ, **single}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(toy_folder)
    assert [row["error"] for table in found["tables"] for row in table["rows"]] == [None] * 13 * 2
    assert {table["task"] for table in found["tables"]} == {"next-session"}
    assert "improvement" in done.stdout


def test_both_tasks_are_tables_of_one_command(command, toy_folder, quick_workers):
    tasks = ["--task=next-item,next-session", "--session_length=3600"]
    assert cli.main([*command, *tasks, "--models=KSR,GRU"]) == 0
    found = results(toy_folder)
    assert [row["error"] for table in found["tables"] for row in table["rows"]] == [None] * 2 * 4
    assert {table["task"] for table in found["tables"]} == {"next-item", "next-session"}
