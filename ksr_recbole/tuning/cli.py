"""The command line of ``run_hyper.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ksr_recbole.cli import (
    count_of,
    file_list,
    parse_arguments,
    run_command,
    say_loading,
    switched_on,
    task_of,
    tell_written,
)
from ksr_recbole.names import check_name

if TYPE_CHECKING:
    from ksr_recbole.tuning.request import Request

USAGE = """\
usage: {program}
         [--model=KSR] [--dataset=ml-100k] [--params_file=FILE.hyper] [--algo=exhaustive]
         [--jobs=1] [--tool=Hyperopt] [--KEY=VALUE ...]

Searches a model's settings by their score on validation. Writes the trials as
<results_dir>/<model>-<dataset>-<task>-tuning.md, .json and .png and the best settings as .yaml, for
run_recbole.py --config_files. Finished trials are kept in <results_dir>/benchmark, as the runs of
run_benchmark.py are, and not run again; to continue an interrupted command, give it again.
  --params_file=FILE     the ranges; configs/hyper/<model>.hyper by default
  --algo=NAME            exhaustive (the default), random or bayes
  --max_evals=N          at most N trials; random and bayes need it
  --early_stop=N         stop after N trials without a better one
  --jobs=N               trials run at a time (1 by default); they share the cores
  --tool=NAME            Hyperopt (the default), or Ray: trials side by side, on a cluster too
  --retry_failed         run trials that failed before again
  --output_file=FILE     the table, instead of <model>-<dataset>-<task>-tuning.md
  --display_file=F.png   the figure, instead of <model>-<dataset>-<task>-tuning.png
  --config_files="a.yaml b.yaml"   read for every trial
Any other RecBole config key can be set as --KEY=VALUE, for every trial.
"""

SCRIPT = "run_hyper.py"

_RETRY = "retry_failed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``run_hyper.py`` and return its exit status."""
    return run_command(_run, USAGE, SCRIPT, arguments)


def _run(arguments: Sequence[str]) -> int:
    request = read_request(arguments)
    # Imported late: RecBole fails to import with the versions refused before.
    from ksr_recbole.tuning.search import tune

    return tell_written(*tune(request))


def read_request(arguments: Sequence[str]) -> Request:
    """What the arguments ask for.

    Raises:
        UserError: an argument that cannot be read.
    """
    values = parse_arguments(arguments, switches={_RETRY})
    say_loading(f"Tuning of {task_of(values)}")
    from ksr_recbole.paths import CONFIGS
    from ksr_recbole.tuning.request import Request

    model = check_name(values.pop("model", "KSR"), "model")
    return Request(
        model=model,
        dataset=check_name(values.pop("dataset", "ml-100k"), "dataset"),
        params_file=Path(values.pop("params_file", CONFIGS / "hyper" / f"{model}.hyper")),
        config_files=tuple(file_list(values.pop("config_files", ""))),
        algo=values.pop("algo", "exhaustive"),
        tool=values.pop("tool", "Hyperopt"),
        max_evals=_given(values, "max_evals", lambda text: count_of(text, "max_evals")),
        early_stop=_given(values, "early_stop", lambda text: count_of(text, "early_stop")),
        jobs=count_of(values.pop("jobs", "1"), "jobs"),
        retry_failed=switched_on(values.pop(_RETRY, "False"), _RETRY),
        output_file=_given(values, "output_file", Path),
        display_file=_given(values, "display_file", Path),
        values=values,
    )


def _given(values: dict[str, str], option: str, read: Callable[[str], Any]) -> Any:
    """What an option that may be left out says."""
    return read(values.pop(option)) if option in values else None
