"""The command line of ``run_benchmark.py``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ksr_recbole.choices import choose_from
from ksr_recbole.cli import (
    count_of,
    file_list,
    parse_arguments,
    run_command,
    say_loading,
    switched_on,
    tell_written,
)
from ksr_recbole.errors import UserError
from ksr_recbole.names import check_name
from ksr_recbole.registry import GROUPS, PAPER_MODELS, VARIANTS, comparable, group_of

if TYPE_CHECKING:
    from ksr_recbole.comparison.plan import Request
    from ksr_recbole.comparison.studies import Study

USAGE = """\
usage: {program}
         [--dataset=ml-100k] [--task=next-item,next-session] [--models=paper] [--seeds=3]
         [--jobs=1] [--KEY=VALUE ...]

Compares methods on a dataset and writes the table as <results_dir>/<dataset>-table3.md, .tex,
.json and .png (-table3-2 if a table of other rows, tasks or settings is there). What is finished
is kept and never run again; an interrupted command goes on where it was when it is given again.
  --dataset=NAME         ml-100k by default; --data_path=FOLDER if it lies in FOLDER/NAME
  --task=A,B             next-item (the default), next-session or both
  --models=A,B           names, or paper: the ten of Table 3 (the default), or all: variants too;
                         any general, sequential or knowledge-aware model of RecBole (GRU4Rec,
                         SASRec, StockKSR, ...), or recbole-general, -sequential, -knowledge
  --seeds=N              N seeds from 2020 on (1 by default)
  --jobs=N               cells run at a time (1 by default); they share the cores
  --study=NAME           instead of Table 3: value-matrix (Table 4), train-ratio (Fig. 3),
                         kge (Fig. 4), interpretability (Sec. 5.4, measured), or tuning (the
                         trials of a task in configs/tuning/<task>.yaml)
  --results_dir=FOLDER   results by default
  --config_files="a.yaml b.yaml"   read for every cell
  --keep_checkpoints     leave the trained models in <results_dir>/benchmark/
Any other RecBole config key can be set as --KEY=VALUE, for every cell.
"""

SCRIPT = "run_benchmark.py"

_FIRST_SEED = 2020
_KEEP = "keep_checkpoints"
_INSTEAD = {
    "model": "--models",
    "seed": "--seeds",
    "resume": "nothing, since unfinished cells go on by themselves",
    "checkpoint_dir": "--results_dir",
}
"""Config keys that differ from cell to cell, and what to give instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``run_benchmark.py`` and return its exit status."""
    return run_command(_run, USAGE, SCRIPT, arguments)


def _run(arguments: Sequence[str]) -> int:
    request = read_request(arguments)
    # Imported late: RecBole fails to import with the versions refused before.
    from ksr_recbole.comparison.runner import run_benchmark

    return tell_written(*run_benchmark(request))


def read_request(arguments: Sequence[str]) -> Request:
    """What the arguments ask for.

    Raises:
        UserError: an argument that cannot be read, or an unknown name.
    """
    values = parse_arguments(arguments, switches={_KEEP})
    for key, instead in _INSTEAD.items():
        if key in values:
            raise UserError(f"The benchmark sets {key} for every cell; give {instead} instead.")
    models, on = values.get("models", "the paper's models"), values.get("dataset", "ml-100k")
    say_loading(f"Comparison of {models} on {on}")
    from ksr_recbole.comparison.plan import Request

    task = values.pop("task", None)
    dataset = check_name(values.pop("dataset", "ml-100k"), "dataset")
    study = _study(values.pop("study", None), values.pop("models", None), task, dataset)
    return Request(
        dataset=dataset,
        study=study,
        tasks=study.tasks if task is None else _tasks(task),
        seeds=tuple(range(_FIRST_SEED, _FIRST_SEED + count_of(values.pop("seeds", "1"), "seeds"))),
        jobs=count_of(values.pop("jobs", "1"), "jobs"),
        results_dir=Path(values.pop("results_dir", "results")),
        config_files=tuple(file_list(values.pop("config_files", ""))),
        keep_checkpoints=switched_on(values.pop(_KEEP, "False"), _KEEP),
        values=values,
    )


def _study(name: str | None, models: str | None, task: str | None, dataset: str) -> Study:
    from ksr_recbole.comparison.studies import STUDIES, TABLE3, TUNING, table3

    if name is None:
        return table3(_models("paper" if models is None else models))
    if name == TUNING:
        return _tuning(models, task, dataset)
    if name not in STUDIES:
        known = choose_from(name, [*STUDIES, TUNING], f"without --study it is {TABLE3}, others are")
        raise UserError(f"There is no study named '{name}'{known}")
    if models is not None:
        raise UserError(f"The study {name} names its models itself; leave --models out.")
    return STUDIES[name]


def _tuning(models: str | None, task: str | None, dataset: str) -> Study:
    from ksr_recbole.comparison.trials import tuning_study
    from ksr_recbole.config import keys

    tasks = ("next-item",) if task is None else _tasks(task)
    if len(tasks) > 1:
        raise UserError(
            f"Each task has trials of its own, but --task names {', '.join(tasks)}; "
            "tune for one task at a time."
        )
    path = keys.TRIALS / f"{tasks[0]}.yaml"
    return tuning_study(None if models is None else _models(models), path, dataset)


def _models(text: str) -> tuple[str, ...]:
    groups = {"all": [*PAPER_MODELS, *VARIANTS], "paper": list(PAPER_MODELS)}
    known = comparable()
    names: list[str] = []
    for name in _listed(text):
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
    names = _listed(text)
    for name in names:
        if name not in known:
            raise UserError(
                f"There is no task named '{name}'{choose_from(name, known, 'the tasks are')}"
            )
    if not names:
        raise UserError(f"--task names no task; the tasks are {', '.join(known)}.")
    return tuple(names)


def _listed(text: str) -> list[str]:
    """The different names in a list with commas."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
