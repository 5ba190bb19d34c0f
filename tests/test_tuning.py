"""Tuning: ranges, trials that are kept, resuming, failing trials, the report, and bad input."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.trainer import HyperTuning

from ksr_recbole import __main__, cli, commands
from ksr_recbole.comparison import cli as benchmark_cli
from ksr_recbole.comparison import pool, runner
from ksr_recbole.comparison.pool import InputsChangedError, Job, Report
from ksr_recbole.comparison.results import Row
from ksr_recbole.comparison.store import Failed
from ksr_recbole.comparison.studies import Setting
from ksr_recbole.comparison.trials import rank_trials
from ksr_recbole.config import Config
from ksr_recbole.config.keys import CONFIGS
from ksr_recbole.errors import UserError
from ksr_recbole.pretraining import pretrain
from ksr_recbole.quick_start import run
from ksr_recbole.registry import PAPER_MODELS
from ksr_recbole.tuning import search
from ksr_recbole.tuning.cli import main
from ksr_recbole.tuning.draws import draws_of
from ksr_recbole.tuning.request import Plan, Request, make_plan
from ksr_recbole.tuning.space import Range, read_space
from tests import benchmark_fakes as fakes
from tests.toy import toy_values

SHIPPED = sorted((CONFIGS / "hyper").glob("*.hyper"))
RATES = "learning_rate choice [0.001,0.01]\n"


def command(folder: Path, ranges: str, *extra: str, model: str = "GRU") -> list[str]:
    """Arguments of a small search; the ranges are written to a file."""
    values = toy_values(folder)
    values["eval_args.mode"] = values.pop("eval_args")["mode"]
    given = {option.partition("=")[0] for option in extra}
    for key in [key for key in values if f"{key} " in ranges or f"--{key}" in given]:
        del values[key]
    file = folder / "ranges.hyper"
    file.write_text(ranges)
    options = [f"--{key}={value}" for key, value in values.items()]
    return [f"--model={model}", "--dataset=toy", f"--params_file={file}", *options, *extra]


def result_file(folder: Path, suffix: str, model: str = "GRU") -> Path:
    return folder / "results" / f"{model}-toy-next-item-tuning.{suffix}"


def stored(folder: Path, model: str = "GRU") -> dict[str, Any]:
    return json.loads(result_file(folder, "json", model).read_text())


def failure(capsys: pytest.CaptureFixture, arguments: list[str]) -> str:
    """Run the command, expect one sentence on stderr and exit status 2; return the sentence."""
    assert main(arguments) == 2
    told = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in told if line.startswith("error") or "has no effect" not in line]
    assert len(errors) == 1 and errors[0].startswith("error: "), errors
    return errors[0]


def cells(folder: Path, kind: str = "cells") -> list[Path]:
    """The stored trials; ``kind`` ``failures`` for those that failed."""
    return sorted((folder / "results" / "benchmark" / "toy" / kind).glob("*.json"))


run_jobs = partial(fakes.run_jobs, run_cell=pool.run_cell)
"""As the pool's, but in this process."""


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are trained in this process, where tests can replace what they call."""
    monkeypatch.setattr(search, "run_jobs", run_jobs)


class FakeTrials:
    """Stands in for running trials: a score made of the settings, and what was run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, interrupt_at: int | None = None) -> None:
        self.ran: list[dict[str, Any]] = []
        self.interrupt_at = interrupt_at
        monkeypatch.setattr(search, "run_jobs", partial(fakes.run_jobs, run_cell=self.run))

    def run(self, job: Job) -> Report:
        if len(self.ran) == self.interrupt_at:
            raise KeyboardInterrupt
        params = job.cell.overrides
        self.ran.append(params)
        score = self.score(params)
        result = fakes.run_result({"test": [1], "valid": [2]}, best_valid_score=score)
        job.store.save(job.cell, {**result, "pretraining": []}, 1.0, resumed=False)
        return Report()

    @staticmethod
    def score(params: dict[str, Any]) -> float:
        return 1 / (1 + abs(params["weight_decay"] - 5))


# Ranges -------------------------------------------------------------------------------------


def test_all_types_of_ranges(tmp_path):
    file = tmp_path / "x.hyper"
    file.write_text(
        "# a comment\n\n"
        "loss_type choice ['BPR', 'CE']\n"
        "dropout_prob uniform 0.0, 0.5\n"
        "embedding_size quniform 32,256,32\n"
        "learning_rate loguniform -8,-4\n"
        "train_neg_sample_args choice [{'distribution': 'uniform', 'sample_num': 2}]\n"
    )
    ranges = read_space(file)
    assert ranges[:2] == (
        Range("loss_type", "choice", ("BPR", "CE")),
        Range("dropout_prob", "uniform", (0.0, 0.5)),
    )
    assert ranges[0].decode(1) == "CE"
    size = ranges[2].decode(64.0)
    assert size == 64 and isinstance(size, int)
    assert ranges[3].decode(0.001) == 0.001
    assert ranges[4].decode(0)["sample_num"] == 2


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("learning_rat choice [0.1]", "line 2; did you mean learning_rate?"),
        ("learning_rate choice []", "line 2: the range of learning_rate is empty"),
        ("learning_rate uniform 0.5,0.5", "line 2: the range of learning_rate is empty"),
        ("learning_rate choose [0.1]", "line 2: there is no type 'choose'; did you mean choice?"),
        ("learning_rate choice 0.1;0.2", "line 2: '0.1;0.2' is not a list of choices"),
        ("loss_type choice [BPR,CE]", "line 2: '[BPR,CE]' is not a list of choices"),
        ("learning_rate uniform 0.1", "line 2: '0.1' is not the low,high of a uniform range"),
        ("learning_rate uniform a,b", "line 2: 'a,b' is not the low,high"),
        ("learning_rate uniform 0.1,inf", "is not the low,high"),
        ("embedding_size quniform 8,64,0", "line 2: the step q of embedding_size is 0.0"),
        ("embedding_size quniform 1,8,4", "line 2: embedding_size could be 0, outside its bounds"),
        ("embedding_size quniform 8,63,8", "line 2: embedding_size could be 64, outside"),
        ("dropout_prob quniform 0,1e300,1e-300", "line 2: dropout_prob could be inf, outside"),
        ("weight_decay choice [4]\x0clearning_rate choice [1]", "line 2: '[4]\\x0clearning_rate"),
        ("\x0b\x1c\u2028\u0085\nlearning_rate choice 0", "line 3: '0' is not a list of choices"),
        ("learning_rate loguniform 1,1000", "line 2: the bounds of learning_rate are natural"),
        ("loss_type choice [__import__('os').getcwd()]", "is not a list of choices"),
        ("loss_type choice ['BPR', b'CE']", "is not a list of choices"),
        ("learning_rate choice [{0.1, 0.2}]", "is not a list of choices"),
        ("learning_rate choice [1e999]", "is not a list of choices"),
        ("learning_rate choice [1j]", "is not a list of choices"),
        ("learning_rate choice " + "[" * 5000, "is not a list of choices"),
        ("learning_rate choice [-" + "-" * 5000 + "1]", "is not a list of choices"),
        ("learning_rate choice [0.1\0]", "is not a list of choices"),
        ("gamma choice [1]", "line 2: gamma has a range already"),
        ("eval_args.mode choice ['full']", "line 2: eval_args.mode cannot be tuned"),
        ("seed choice [1,2]", "line 2: seed cannot be tuned"),
        ("learning_rate", "line 2: 'learning_rate' is not a config key, a type"),
        ("learning_rate choice", "line 2: '' is not a list"),
    ],
)
def test_a_bad_line_is_told_with_its_number(toy_folder, capsys, line, sentence):
    told = failure(capsys, command(toy_folder, f"gamma choice [1,2]\n{line}\n"))
    assert sentence in told and "ranges.hyper" in told
    assert not cells(toy_folder)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_ranges_are_fair_and_recbole_reads_them_too(file):
    ranges = read_space(file)
    assert {each.name for each in ranges} == set(HyperTuning._build_space_from_file(str(file)))
    assert prod(len(each.values) for each in ranges) == 18  # as many trials for every model
    for each in ranges:
        for place in range(len(each.values)):
            config = Config(file.stem, "ml-100k", None, {each.name: each.decode(place)})
            assert config[each.name] == each.values[place]


def test_there_are_ranges_for_each_of_our_methods():
    ours = {name for name in PAPER_MODELS if (CONFIGS / "hyper" / f"{name}.hyper").is_file()}
    assert (
        ours
        == {file.stem for file in SHIPPED}
        == {"KSR", "GRU", "GRU++", "GRU_F", "RUM_I", "RUM_F"}
    )


def test_a_file_of_windows_editors_has_a_mark_at_its_start(tmp_path):
    file = tmp_path / "x.hyper"
    file.write_text("learning_rate choice [0.1]\r\n", encoding="utf-8-sig")
    assert [each.name for each in read_space(file)] == ["learning_rate"]


# Searching ----------------------------------------------------------------------------------


def test_a_search_tries_everything_once_and_the_best_settings_can_be_run(toy_folder, capsys):
    ranges = "learning_rate choice [0.001,0.01]\nloss_type choice ['BPR','CE']\n"
    assert main(command(toy_folder, ranges)) == 0
    found = stored(toy_folder)
    tried = [(t["params"]["learning_rate"], t["params"]["loss_type"]) for t in found["trials"]]
    assert sorted(tried) == [(0.001, "BPR"), (0.001, "CE"), (0.01, "BPR"), (0.01, "CE")]
    scores = [trial["score"] for trial in found["trials"]]
    assert found["best"]["score"] == max(scores) and len(set(scores)) == 4
    assert found["phase"] == "valid" and "test" not in json.dumps(found["trials"])
    assert result_file(toy_folder, "png").read_bytes().startswith(b"\x89PNG")
    table = result_file(toy_folder, "md").read_text()
    assert table.count("learning_rate 0.01,") == 2 and "(best)" in table
    assert "Chosen by MRR on validation" in capsys.readouterr().out

    best = str(result_file(toy_folder, "yaml"))
    result = run(config_file_list=[best], config_dict={"report_modes": ["uni5pop5"]})
    assert result["model"] == "GRU" and result["dataset"] == "toy"
    assert result["best_valid_score"] == max(scores)
    assert result["best_epoch"] == found["best"]["best_epoch"]
    assert cli.main([f"--config_files={best}", "--report_modes=['uni5pop5']"]) == 0


def test_the_second_trial_does_not_pretrain_again(toy_folder, monkeypatch):
    trained = []
    train_kge, train_bpr = pretrain.train_kge, pretrain.train_bpr
    monkeypatch.setattr(
        pretrain, "train_kge", lambda *a, **k: trained.append("kge") or train_kge(*a, **k)
    )
    monkeypatch.setattr(
        pretrain, "train_bpr", lambda *a, **k: trained.append("bpr") or train_bpr(*a, **k)
    )
    assert main(command(toy_folder, RATES, model="KSR")) == 0
    assert sorted(trained) == ["bpr", "kge"]
    first, second = (trial["notes"] for trial in stored(toy_folder, "KSR")["trials"])
    assert all("trained in" in note for note in first)
    assert len(second) == 2 and all("from the cache" in note for note in second)


DECAYS = {
    "exhaustive": "weight_decay choice [1,2,3,4,5,6]\n",
    "random": "weight_decay uniform 0,10\n",
}


@pytest.mark.parametrize("algo", ["exhaustive", "random", "bayes"])
def test_an_interrupted_search_goes_on_where_it_was(
    toy_folder, tmp_path, monkeypatch, capsys, algo
):
    ranges = DECAYS.get(algo, DECAYS["random"])
    # The first 20 settings of bayes are drawn at random.
    numbers = {"random": ["--max_evals=6"], "bayes": ["--max_evals=22"]}
    extra = [f"--algo={algo}", *numbers.get(algo, [])]
    whole = FakeTrials(monkeypatch)
    assert main(command(toy_folder, ranges, *extra, f"--results_dir={tmp_path / 'whole'}")) == 0

    arguments = command(toy_folder, ranges, *extra, model="GRU")
    begun = FakeTrials(monkeypatch, interrupt_at=3)
    assert main(arguments) == commands.INTERRUPTED
    assert re.search(r"Continue with: \S*python\S* run_hyper.py", capsys.readouterr().err)
    assert len(cells(toy_folder)) == 3
    rest = FakeTrials(monkeypatch)
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("(finished before)") == 3
    assert begun.ran + rest.ran == whole.ran
    assert stored(toy_folder)["best"]["params"] in whole.ran
    again = FakeTrials(monkeypatch)
    assert main(arguments) == 0 and again.ran == []


def test_bayes_finds_better_settings_than_it_began_with(toy_folder, monkeypatch):
    fake = FakeTrials(monkeypatch)
    assert main(command(toy_folder, DECAYS["random"], "--algo=bayes", "--max_evals=60")) == 0
    distances = [abs(params["weight_decay"] - 5) for params in fake.ran]
    assert sum(distances[20:]) / len(distances[20:]) < sum(distances[:20]) / 20


def test_early_stopping_counts_trials_without_a_better_one(toy_folder, monkeypatch):
    fake = FakeTrials(monkeypatch)
    arguments = ["--algo=random", "--max_evals=50", "--early_stop=4"]
    assert main(command(toy_folder, DECAYS["random"], *arguments)) == 0
    scores = [1 / (1 + abs(params["weight_decay"] - 5)) for params in fake.ran]
    assert len(scores) < 50 and scores.index(max(scores)) == len(scores) - 5


def test_other_settings_or_data_are_other_trials(toy_folder, monkeypatch):
    fake = FakeTrials(monkeypatch)
    settings = "weight_decay choice [1,2]\n"
    assert main(command(toy_folder, settings)) == 0 and len(fake.ran) == 2
    assert main(command(toy_folder, settings, "--hidden_size=4")) == 0 and len(fake.ran) == 4
    assert len(stored(toy_folder)["trials"]) == 2
    inter = toy_folder / "toy" / "toy.inter"
    inter.write_text("".join(inter.read_text().splitlines(keepends=True)[:-1]))
    assert main(command(toy_folder, settings)) == 0 and len(fake.ran) == 6


# Failing trials -----------------------------------------------------------------------------


def test_a_failing_trial_is_recorded_and_the_search_goes_on(toy_folder, capsys):
    ranges = "learning_rate choice [-1.0,1e30,0.01]\n"
    # RecBole's sequential models, once imported, leave PyTorch's anomaly detection on.
    with torch.autograd.set_detect_anomaly(False):
        assert main(command(toy_folder, ranges, "--learner=sgd", "--loss_type=BPR")) == 0
    trials = {t["params"]["learning_rate"]: t for t in stored(toy_folder)["trials"]}
    assert "learning_rate is -1.0; it must be at least 0" in trials[-1.0]["error"]
    assert "The training loss became" in trials[1e30]["error"]
    assert trials[0.01]["error"] is None and stored(toy_folder)["best"] == trials[0.01]
    out = capsys.readouterr().out
    assert "failed: " in out and len(out.split("Written: ")[1].split(", ")) == 4


def test_if_all_trials_fail_the_exit_status_tells_and_nothing_old_stays(
    toy_folder, monkeypatch, capsys
):
    FakeTrials(monkeypatch)
    assert main(command(toy_folder, "weight_decay choice [1]\n")) == 0
    monkeypatch.undo()
    ranges = "learning_rate choice [-1.0,-2.0]\n"
    mine = toy_folder / "mine.png"
    mine.write_bytes(b"a picture")
    assert main(command(toy_folder, ranges, f"--display_file={mine}")) == 1
    assert mine.read_bytes() == b"a picture"
    assert stored(toy_folder)["best"] is None
    assert not result_file(toy_folder, "yaml").exists()
    assert not result_file(toy_folder, "png").exists()
    assert result_file(toy_folder, "md").read_text().count("failed: ") == 2


def test_failed_trials_are_run_again_only_when_asked(toy_folder, monkeypatch, capsys):
    ran = []

    def fail(*given: Any, **more: Any) -> dict:
        ran.append(given)
        raise MemoryError("no room\nhere")

    monkeypatch.setattr("ksr_recbole.quick_start.run", fail)
    arguments = command(toy_folder, RATES)
    assert main(arguments) == 1 and len(ran) == 2
    assert main(arguments) == 1 and len(ran) == 2
    assert stored(toy_folder)["trials"][0]["error"].startswith("MemoryError: no room here (see ")
    said = capsys.readouterr().err
    assert "Not run: 2 trials, which failed before; --retry_failed runs" in said
    assert main([*arguments, "--retry_failed"]) == 1 and len(ran) == 4
    assert "Not run" not in capsys.readouterr().err


def full_disk(*_: Any, **__: Any) -> dict:
    try:
        raise OSError(28, "No space left on device")
    except OSError as error:
        raise UserError("Cannot write it.") from error


def changed_files(*_: Any, **__: Any) -> dict:
    raise InputsChangedError("A file of toy was changed.")


@pytest.mark.parametrize("fail", [full_disk, changed_files])
def test_a_failure_that_is_not_the_settings_is_run_again(toy_folder, monkeypatch, fail):
    monkeypatch.setattr("ksr_recbole.quick_start.run", fail)
    arguments = command(toy_folder, RATES)
    assert main(arguments) == 1
    assert all(trial["error"] for trial in stored(toy_folder)["trials"])
    trials = FakeTrials(monkeypatch)
    monkeypatch.setattr(trials, "score", lambda params: 1.0)
    assert main(arguments) == 0 and len(trials.ran) == 2


def test_names_with_dollars_are_drawn_as_they_are(toy_folder, monkeypatch):
    """Matplotlib would take two of them for a formula, and refuse this one."""
    FakeTrials(monkeypatch)
    shutil.copytree(toy_folder / "toy", toy_folder / "shop_$5_to_$9")
    for file in (toy_folder / "shop_$5_to_$9").iterdir():
        file.rename(file.with_name(file.name.replace("toy.", "shop_$5_to_$9.")))
    arguments = command(toy_folder, "weight_decay choice [1,2]\n")
    arguments[1] = "--dataset=shop_$5_to_$9"
    assert main(arguments) == 0
    assert (toy_folder / "results" / "GRU-shop_$5_to_$9-next-item-tuning.png").is_file()


def test_the_best_trial_is_followed_without_ranking_all_again(toy_folder, monkeypatch):
    """A search of N trials compares N times, as the plain ranking of all would have it."""
    trials, compared = FakeTrials(monkeypatch), []
    rank = Plan.rank
    monkeypatch.setattr(Plan, "rank", lambda s, rows: compared.append(len(rows)) or rank(s, rows))
    values = [3, 9, 5, 5, 1, 4, 5, 8, 2, 6]
    assert main(command(toy_folder, f"weight_decay choice {values}\n")) == 0
    assert len(trials.ran) == len(set(values))
    assert stored(toy_folder)["best"]["params"] == {"weight_decay": 5}
    assert max(compared[:-1]) <= 2


def test_the_best_of_a_metric_of_which_less_is_better():
    outcomes = {
        "a": fakes.finished([1], best_valid_score=0.5),
        "b": Failed("x"),
        "c": fakes.finished([1], best_valid_score=0.2),
        "d": fakes.finished([1], best_valid_score=0.2),
    }
    rows = [Row(Setting(name, "KSR"), "", {1: each}) for name, each in outcomes.items()]

    def ranked(rows: list[Row], bigger: bool) -> list[tuple[str, bool]]:
        trials = rank_trials(rows, lambda row: row.cells[1].result["best_valid_score"], bigger)
        return [(trial.row.setting.label, trial.chosen) for trial in trials]

    assert ranked(rows, bigger=False) == [("c", True), ("d", False), ("a", False), ("b", False)]
    assert ranked(rows, bigger=True) == [("a", True), ("c", False), ("d", False), ("b", False)]
    assert ranked(rows[1:2], bigger=True) == [("b", False)]


# The store ------------------------------------------------------------------------------------


def test_a_trial_is_a_cell_of_the_comparison_and_the_other_way_round(
    toy_folder, monkeypatch, capsys
):
    """What was finished by one command is not run again by the other."""
    monkeypatch.setattr(runner, "run_jobs", run_jobs)
    options = [a for a in command(toy_folder, RATES) if "params_file" not in a]
    compare = ["--models=GRU" if a.startswith("--model=") else a for a in options]
    compare = [a for a in compare if not a.startswith("--checkpoint_dir=")]
    assert benchmark_cli.main([*compare, "--learning_rate=0.01"]) == 0
    [first] = cells(toy_folder)
    before = first.stat().st_mtime_ns
    capsys.readouterr()
    assert main(command(toy_folder, RATES)) == 0
    assert capsys.readouterr().out.count("(finished before)") == 1
    assert len(cells(toy_folder)) == 2 and first.stat().st_mtime_ns == before
    assert benchmark_cli.main([*compare, "--learning_rate=0.001"]) == 0
    assert "started" not in capsys.readouterr().err and len(cells(toy_folder)) == 2


def test_trials_run_side_by_side_in_processes_of_their_own(toy_folder, monkeypatch, quick_workers):
    assert main(command(toy_folder, RATES)) == 0
    alone = {t["key"]: t["score"] for t in stored(toy_folder)["trials"]}
    monkeypatch.setattr(search, "run_jobs", pool.run_jobs)
    elsewhere = command(toy_folder, RATES, f"--results_dir={toy_folder / 'other'}", "--jobs=2")
    assert main(elsewhere) == 0
    found = json.loads((toy_folder / "other" / "GRU-toy-next-item-tuning.json").read_text())
    assert {t["key"]: t["score"] for t in found["trials"]} == alone and len(alone) == 2


def test_a_trial_whose_process_dies_is_recorded_and_the_search_goes_on(
    toy_folder, monkeypatch, capsys, quick_workers
):
    monkeypatch.setattr(search, "run_jobs", pool.run_jobs)
    monkeypatch.setattr(pool, "run_cell", fakes.run_cell)
    monkeypatch.setenv(fakes.MISBEHAVE, "GRU=die")
    assert main(command(toy_folder, RATES)) == 1
    assert capsys.readouterr().out.count("failed: its process died") == 2
    assert len(cells(toy_folder, "failures")) == 2
    assert all(trial["seconds"] > 0 for trial in stored(toy_folder)["trials"])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": 1}', "\0", '{"seconds": "x"}'])
def test_a_damaged_failure_is_run_again(toy_folder, monkeypatch, capsys, content):
    monkeypatch.setattr(
        search, "run_jobs", partial(fakes.run_jobs, run_cell=lambda job: Report("no luck"))
    )
    assert main(command(toy_folder, RATES)) == 1
    [first, _] = cells(toy_folder, "failures")
    if content.startswith('{"seconds"'):
        content = json.dumps({**json.loads(first.read_text()), "seconds": "x"})
    first.write_text(content)
    fakes_ran: list[Job] = []

    def run(job: Job) -> Report:
        fakes_ran.append(job)
        return Report("no luck")

    monkeypatch.setattr(search, "run_jobs", partial(fakes.run_jobs, run_cell=run))
    assert main(command(toy_folder, RATES)) == 1 and len(fakes_ran) == 1


# Draws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ["random", "bayes"])
def test_what_is_drawn_does_not_depend_on_when_trials_end(algo):
    ranges = (Range("gamma", "uniform", (0.0, 10.0)), Range("loss_type", "choice", ("BPR", "CE")))
    one, other = draws_of(algo, ranges, 2020), draws_of(algo, ranges, 2020)
    asked = [one.ask(number) for number in range(3)]
    for number in reversed(range(3)):
        one.tell(number, None if number == 1 else float(number))
    assert [other.ask(number) for number in range(3)] == asked
    assert all(type(each["gamma"]) is float and 0 <= each["gamma"] <= 10 for each in asked)
    assert draws_of(algo, ranges, 2021).ask(0) != asked[0]


@pytest.mark.parametrize("bounds", ["3,8,4", "4,8,4", "0.1,0.3,0.1", "20,79,32", "-4,4,2"])
def test_steps_inside_their_bounds_are_drawn_inside(bounds, tmp_path):
    file = tmp_path / "x.hyper"
    file.write_text(f"weight_decay quniform {bounds}\n")
    ranges = read_space(file)
    low, high, q = ranges[0].values
    draws = draws_of("random", ranges, 1)
    drawn = [draws.ask(number)["weight_decay"] for number in range(40)]
    assert low - q / 1e9 <= min(drawn) and max(drawn) <= high + q / 1e9


# Ray ----------------------------------------------------------------------------------------


def test_ray_gives_what_hyperopt_gives_and_runs_nothing_twice(toy_folder, tmp_path, capsys):
    pytest.importorskip("ray", reason="Ray is optional")
    rate = "learning_rate choice [0.01]\n"
    elsewhere = f"--results_dir={tmp_path / 'ray'}"
    ranges = "learning_rate choice [0.01,0.1,-1.0]\n"
    assert main(command(toy_folder, ranges)) == 0
    assert main(command(toy_folder, rate, elsewhere)) == 0
    capsys.readouterr()
    assert main(command(toy_folder, ranges, "--tool=Ray", elsewhere)) == 0
    assert capsys.readouterr().out.count("(finished before)") == 1
    content = json.loads((tmp_path / "ray" / "GRU-toy-next-item-tuning.json").read_text())
    found, alone = (
        {trial["key"]: (trial["score"], trial["error"]) for trial in trials}
        for trials in (content["trials"], stored(toy_folder)["trials"])
    )
    assert found == alone and len(found) == 3


# Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranges", "extra", "sentence"),
    [
        (RATES, ["--algo=grid"], "--algo is 'grid'; it must be one of: exhaustive, random"),
        (RATES, ["--tool=Ray", "--jobs=3"], "--jobs is for --tool=Hyperopt"),
        (RATES, ["--jobs=none"], "--jobs is 'none'"),
        (RATES, ["--tool=ray"], "--tool is 'ray'; did you mean Ray?"),
        (RATES, ["--algo=random"], "--algo=random needs --max_evals=N"),
        (RATES, ["--max_evals=3"], "leave --max_evals out"),
        (RATES, ["--algo=bayes", "--max_evals=0"], "--max_evals is '0'"),
        (RATES, ["--nproc=2"], "nproc has no effect on a search"),
        (RATES, ["--resume=True"], "resume has no effect on a search"),
        (RATES, ["--eval_step=0"], "eval_step is 0, which is no validation at all"),
        (RATES, ["--gama=3"], "Unknown config key 'gama'"),
        (RATES, ["--display_file=x.html"], "--display_file is x.html; it must end in .png."),
        (RATES, ["--output_file=x.json"], "it must end in .md or .txt or .result."),
        (RATES, ["--output_file=no/such/x.md"], "but there is no folder no/such; create it"),
        (RATES, ["--display_file=/proc/x.png"], "Cannot write the file /proc/x.png"),
        (RATES, ["--retry_failed=maybe"], "it is given alone"),
        (RATES, ["--data_path=/nowhere"], "/nowhere/toy"),
        ("weight_decay uniform 1,2\n", [], "has a uniform range for weight_decay"),
        ("gamma choice [1,2]\n", [], "has a range for gamma, which GRU does not have"),
        ("", [], "has no range"),
        (f"{RATES}dropout_prob choice {[*range(60000)]}\n", [], "has 120000 combinations"),
        ("dropout_prob choice [0.1]\n", ["--dropout_prob=0.5"], "is given for every trial"),
        (
            "train_neg_sample_args.sample_num choice [1,2]\ntrain_neg_sample_args choice [{}]\n",
            [],
            "ranges for train_neg_sample_args.sample_num and train_neg_sample_args, of which one",
        ),
        ("eval_step choice [1,0]\n", [], "eval_step with less than 1, which is no validation"),
        ("eval_step quniform 0,4,1\n", ["--algo=random", "--max_evals=2"], "with less than 1"),
        ("eval_step loguniform -1,2\n", ["--algo=random", "--max_evals=2"], "with less than 1"),
    ],
)
def test_bad_input_is_told_in_one_sentence(toy_folder, capsys, ranges, extra, sentence):
    arguments = [a for a in command(toy_folder, ranges, *extra)]
    if "--dropout_prob=0.5" in extra:
        arguments = [*(a for a in arguments if "dropout_prob" not in a), *extra]
    assert sentence in failure(capsys, arguments)
    assert not cells(toy_folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dropout_prob: 0.5\n", "dropout_prob is given for every trial"),
        ("nproc: 2\n", "nproc has no effect on a search"),
    ],
)
def test_what_a_config_file_fixes_is_fixed(text, sentence, toy_folder, capsys):
    file = toy_folder / "mine.yaml"
    file.write_text(text)
    given = command(toy_folder, "dropout_prob choice [0.1]\n", f"--config_files={file}")
    assert sentence in failure(capsys, given)


def test_a_config_file_names_model_and_dataset(toy_folder, capsys, monkeypatch):
    """As the file of best settings does, which a search leaves."""
    file = toy_folder / "mine.yaml"
    file.write_text("model: GRU++\ndataset: toy\ntrain_neg_sample_args: {sample_num: 2}\n")
    monkeypatch.setattr(search, "run_jobs", run_jobs)
    given = command(toy_folder, RATES, f"--config_files={file}", "--train_neg_sample_args.alpha=1")
    given = [each for each in given if not each.startswith(("--model=", "--dataset="))]
    assert main(given) == 0, capsys.readouterr().err
    assert stored(toy_folder, "GRU++")["dataset"] == "toy"


@pytest.mark.parametrize(
    "key",
    ["eval_batch_size", "num_threads", "memory_backend", "nproc", "device", "rm_dup_inter",
     "user_inter_num_interval", "val_interval", "benchmark_filename", "TIME_FIELD",
     "entity_kg_num_interval"],
)  # fmt: skip
def test_what_changes_no_trial_cannot_be_tuned(key, toy_folder, capsys):
    assert "cannot be tuned" in failure(capsys, command(toy_folder, f"{key} choice [1,2]\n"))


def test_choices_that_are_text_are_read_as_a_trial_reads_them(tmp_path):
    file = tmp_path / "ranges.hyper"
    file.write_text(
        "mlp_hidden_size choice ['[64,32]','[128,64]']\nema_decay choice ['None',0.9]\n"
    )
    sizes, decays = read_space(file)
    assert sizes.values == ([64, 32], [128, 64]) and decays.values == (None, 0.9)


@pytest.mark.parametrize(
    ("ranges", "idle"),
    [
        ("sampled_items choice [128,512]\n", True),
        ("train_neg_sample_args.sample_num choice [1,2]\n", True),
        ("sampled_items choice [128,512]\nloss_type choice ['CE','sampled_CE']\n", False),
        ("learning_rate choice [0.1,0.2]\n", False),
        ("kge_epochs choice [2,3]\n", True),
    ],
)
def test_a_range_of_what_does_nothing_is_said(ranges, idle, toy_folder):
    file = toy_folder / "ranges.hyper"
    file.write_text(ranges)
    given = {"data_path": str(toy_folder), "results_dir": str(toy_folder / "results")}
    given["pretrain_dir"] = str(toy_folder / "pretrained")
    plan = make_plan(Request("GRU", "toy", file, values={**given, "loss_type": "CE"}
                             if "loss_type" not in ranges else given))  # fmt: skip
    said = [remark for remark in plan.remarks() if remark.startswith("The range of")]
    assert said == (
        [f"The range of {ranges.split()[0]} has no effect: all its values give the same trials."]
        if idle
        else []
    )


@pytest.mark.parametrize(
    ("model", "values", "said"),
    [
        ("KSR-exact", {}, True),
        ("KSR-exact", {"memory_fit": "training"}, False),
        ("KSR", {"value_matrix": "exact"}, False),
    ],
)
def test_a_range_that_no_trial_is_scored_by_is_said(model, values, said, toy_folder):
    file = toy_folder / "scales.hyper"
    file.write_text("time_scales choice [[3],[3,20]]\n")
    given = {"data_path": str(toy_folder), "results_dir": str(toy_folder / "results")}
    given["pretrain_dir"] = str(toy_folder / "pretrained")
    plan = make_plan(Request(model, "toy", file, values={**given, **values}))
    found = [remark for remark in plan.remarks() if "time_scales" in remark]
    assert bool(found) == said and all("changes no trial's score" in each for each in found)


def test_a_missing_params_file_or_model(toy_folder, capsys):
    assert "Cannot read the params file nowhere.hyper" in failure(
        capsys, ["--params_file=nowhere.hyper"]
    )
    assert "configs/hyper/KSR-paper.hyper" in failure(capsys, ["--model=KSR-paper"])
    assert "did you mean KSR?" in failure(capsys, ["--model=KRS"])


def test_a_damaged_trial_is_run_again_with_a_line_saying_so(toy_folder, monkeypatch, caplog):
    FakeTrials(monkeypatch)
    arguments = command(toy_folder, "weight_decay choice [1]\n")
    assert main(arguments) == 0
    [path] = cells(toy_folder)
    path.write_text(path.read_text()[:-9])
    again = FakeTrials(monkeypatch)
    assert main(arguments) == 0 and len(again.ran) == 1
    assert f"Running {path.stem} again" in caplog.text


def test_a_package_that_is_missing_is_told(toy_folder, capsys, monkeypatch):
    modules = __import__("sys").modules
    monkeypatch.setitem(modules, "ray", None)
    told = failure(capsys, command(toy_folder, RATES, "--tool=Ray"))
    assert "run `pip install ray` first" in told
    monkeypatch.setitem(modules, "hyperopt", None)
    drawn = ["--algo=random", "--max_evals=2"]
    assert "--algo=random needs hyperopt; run `pip install -r requirements.txt`" in failure(
        capsys, command(toy_folder, RATES, *drawn)
    )


def test_the_command_is_one_of_the_projects(capsys):
    assert __main__.main(["tune", "--help"]) == 0
    assert "usage: python run_hyper.py" in capsys.readouterr().out
