"""The command line of ``run_benchmark.py``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ksr_recbole.arguments import Parser, count_of, listed, path_of
from ksr_recbole.choices import choose_from
from ksr_recbole.commands import run_command, say_loading, tell_written
from ksr_recbole.errors import UserError, shown
from ksr_recbole.names import check_name
from ksr_recbole.registry import (
    GROUPS,
    PAPER_MODELS,
    RECBOLE_ROWS,
    VARIANTS,
    comparable,
    group_of,
)

if TYPE_CHECKING:
    from ksr_recbole.comparison.plan import Request
    from ksr_recbole.comparison.studies import Study

_ABOUT = """\
Compares methods on a dataset and writes the table as <results_dir>/<dataset>-table3.md, .tex,
.json and .png. If a table of other rows, tasks or settings has that name, the new one ends in
-table3-2. What is finished is kept and never run again; an interrupted command continues when it is
given again.
"""

SCRIPT = "run_benchmark.py"

_FIRST_SEED = 2020
_MOST_SEEDS = 1000
_INSTEAD = {
    "model": "--models",
    "seed": "--seeds",
    "resume": "nothing, since unfinished cells resume by themselves",
    "checkpoint_dir": "--results_dir",
}
"""Config keys that differ from cell to cell, and what to give instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``run_benchmark.py`` and return its exit status."""
    return run_command(_run, parser(), arguments)


def parser() -> Parser:
    """What reads the arguments of ``run_benchmark.py``."""
    result = Parser(SCRIPT, description=_ABOUT, keys="for every cell")
    result.add_names(model=False)
    add, switch = result.add_argument, result.add_switch
    add("--task", metavar="A,B", help="next-item (the default), next-session or both")
    add("--models", metavar="A,B",
        help="names, or a group: paper (the ten of Table 3, the default), all (these ten, "
        "KSR-paper, GRU++-trained and GRU_F-trained), "
        "recbole (its GRU4Rec, SASRec and GRU4RecKG), recbole-general, recbole-sequential, "
        "recbole-knowledge. With --study: rows of these models")  # fmt: skip
    add("--seeds", metavar="N", take=count_of, default=1,
        help="number of seeds: 2020, 2021, ... (default: 1)")  # fmt: skip
    add("--jobs", metavar="N", take=count_of, default=1,
        help="how many runs (one model, task and seed) go side by side (default: 1); they share "
        "the cores")  # fmt: skip
    add("--study", metavar="NAME",
        help="instead of Table 3: value-matrix (Table 4), train-ratio (Fig. 3), kge (Fig. 4), "
        "loss (all items or a sample), ladder (from GRU++ to KSR, one change at a time), "
        "interpretability (Sec. 5.4, measured), or tuning (the trials of a task in "
        "configs/tuning/, the dataset's own if it has some)")  # fmt: skip
    add("--results_dir", metavar="FOLDER", take=path_of, default=Path("results"),
        help="results by default")  # fmt: skip
    switch("--keep_checkpoints", "leave the trained models in <results_dir>/benchmark/")
    switch("--by_frequency",
           "also write the tables for targets that occur rarely, sometimes and often in "
           "training")  # fmt: skip
    switch("--pack", "run nothing; put the dataset's finished runs into one small file")
    return result


def _run(given: Namespace) -> int:
    if given.pack:
        return _pack(given)
    request = request_of(given)
    # Imported late: RecBole fails to import with the versions refused before.
    from ksr_recbole.comparison.runner import run_benchmark

    return tell_written(*run_benchmark(request))


def _pack(given: Namespace) -> int:
    """Pack a dataset's cells; any other option would have no effect, so it is refused."""
    from ksr_recbole.comparison.moving_cells import pack
    from ksr_recbole.comparison.store import Store

    others = (given.models, given.task, given.study, given.config_files, given.values)
    many = given.seeds != 1 or given.jobs != 1
    if any((*others, given.keep_checkpoints, given.by_frequency, many)):
        raise UserError("--pack takes --dataset and --results_dir only; leave the others out.")
    dataset = check_name(given.dataset or "ml-100k", "dataset")
    print(pack(Store.of(given.results_dir, dataset)))
    return 0


def request_of(given: Namespace) -> Request:
    """What the arguments ask for.

    Raises:
        UserError: an unknown name, or a key that the benchmark sets itself.
    """
    for key, instead in _INSTEAD.items():
        if key in given.values:
            raise UserError(f"The benchmark sets {key} for every cell; give {instead} instead.")
    if given.seeds > _MOST_SEEDS:
        raise UserError(f"--seeds is {given.seeds}; it must be at most {_MOST_SEEDS}.")
    dataset = given.dataset or "ml-100k"
    models = given.models or ("" if given.study else "the paper's models")
    about = f"Study {given.study}" if given.study else "Comparison"
    say_loading(f"{about}{models and f' of {models}'} on {dataset}")
    from ksr_recbole.comparison.plan import Request

    _check_files(given, dataset)
    study = _study(given.study, given.models, given.task, check_name(dataset, "dataset"))
    if given.by_frequency and study.report is not None:
        raise UserError(f"The study {study.name} has no such tables; leave --by_frequency out.")
    return Request(
        dataset=dataset,
        study=study,
        tasks=study.tasks if given.task is None else _tasks(given.task),
        seeds=tuple(range(_FIRST_SEED, _FIRST_SEED + given.seeds)),
        jobs=given.jobs,
        results_dir=given.results_dir,
        config_files=tuple(given.config_files),
        keep_checkpoints=given.keep_checkpoints,
        by_frequency=given.by_frequency,
        values=given.values,
    )


def _check_files(given: Namespace, dataset: str) -> None:
    """Refuse config files that name what the benchmark is given by arguments of its own.

    Raises:
        UserError: naming file, key and argument.
    """
    from ksr_recbole.config.keys import TEXTS
    from ksr_recbole.config.literals import read_yaml

    own = {"dataset": dataset, "task": given.task, "results_dir": given.results_dir}
    for file in given.config_files:
        for key, value in read_yaml(Path(file), TEXTS).items():
            if key in _INSTEAD:
                instead = f"give {_INSTEAD[key]} instead"
            elif key in own and str(value) != str(own[key]):
                instead = f"give --{key}={shown(value)} to the command"
            else:
                continue
            raise UserError(f"{file} gives {key}, which is no key of the benchmark; {instead}.")


def _study(name: str | None, models: str | None, task: str | None, dataset: str) -> Study:
    from ksr_recbole.comparison.studies import STUDIES, TABLE3, TUNING, table3

    if name is None:
        return table3(_models("paper" if models is None else models))
    if name == TUNING:
        return _tuning(models, task, dataset)
    if name not in STUDIES:
        known = choose_from(name, [*STUDIES, TUNING], f"without --study it is {TABLE3}, others are")
        raise UserError(f"There is no study named '{name}'{known}")
    study = STUDIES[name]
    return study if models is None else _rows_of(study, _models(models))


def _rows_of(study: Study, models: Sequence[str]) -> Study:
    """A study's rows of some models."""
    known = list(dict.fromkeys(setting.model for setting in study.settings))
    for model in models:
        if model not in known:
            raise UserError(
                f"The study {study.name} has no row of {model}; its models are {', '.join(known)}."
            )
    return study.only([setting for setting in study.settings if setting.model in models])


def _tuning(models: str | None, task: str | None, dataset: str) -> Study:
    from ksr_recbole.comparison.trial_files import tuning_study
    from ksr_recbole.config import keys

    tasks = ("next-item",) if task is None else _tasks(task)
    if len(tasks) > 1:
        raise UserError(
            f"Each task has trials of its own, but --task names {', '.join(tasks)}; "
            "tune for one task at a time."
        )
    path = keys.trials_of(dataset, tasks[0])
    return tuning_study(None if models is None else _models(models), path, dataset)


def _models(text: str) -> tuple[str, ...]:
    groups = {
        "all": [*PAPER_MODELS, *VARIANTS],
        "paper": list(PAPER_MODELS),
        "recbole": list(RECBOLE_ROWS),
    }
    known = comparable()
    names: list[str] = []
    for name in listed(text):
        names += group_of(name) if name in GROUPS else groups.get(name, [name])
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in known:
            raise UserError(
                f"There is no model named '{name}' in the comparison"
                f"{choose_from(name, [*known, *groups, *GROUPS], 'the models are')}"
            )
    if not names:
        raise UserError("--models names no model; give some, or paper, or all.")
    return tuple(names)


def _tasks(text: str) -> tuple[str, ...]:
    from ksr_recbole.config.keys import known_tasks

    known = known_tasks()
    names = list(dict.fromkeys(listed(text)))
    for name in names:
        if name not in known:
            raise UserError(
                f"There is no task named '{name}'{choose_from(name, known, 'the tasks are')}"
            )
    if not names:
        raise UserError(f"--task names no task; the tasks are {', '.join(known)}.")
    return tuple(names)
