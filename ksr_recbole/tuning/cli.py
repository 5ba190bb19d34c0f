"""The command line of ``run_hyper.py``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ksr_recbole.arguments import Parser, count_of, path_of
from ksr_recbole.commands import run_command, say_loading, task_of, tell_written
from ksr_recbole.names import check_name

if TYPE_CHECKING:
    from ksr_recbole.tuning.request import Request

_ABOUT = """\
Searches a model's settings by their score on validation. Writes the trials as
<results_dir>/<model>-<dataset>-<task>-tuning.md, .json and .png and the best settings as .yaml, for
run_recbole.py --config_files. Finished trials are kept in <results_dir>/benchmark, as the runs of
run_benchmark.py are, and not run again; to continue an interrupted command, give it again.
"""

SCRIPT = "run_hyper.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``run_hyper.py`` and return its exit status."""
    parser = Parser(SCRIPT, description=_ABOUT, keys="for every trial")
    parser.add_names()
    add, switch = parser.add_argument, parser.add_switch
    add("--params_file", metavar="FILE", take=path_of,
        help="the ranges; configs/hyper/<model>.hyper by default")  # fmt: skip
    add("--algo", metavar="NAME", default="exhaustive",
        help="exhaustive (the default), random or bayes")  # fmt: skip
    add("--max_evals", metavar="N", take=count_of,
        help="at most N trials; random and bayes need it")  # fmt: skip
    add("--early_stop", metavar="N", take=count_of,
        help="stop after N trials without a better one")  # fmt: skip
    add("--jobs", metavar="N", take=count_of, default=1,
        help="trials at the same time (default: 1); they share the cores")  # fmt: skip
    add("--tool", metavar="NAME", default="Hyperopt",
        help="Hyperopt (the default), or Ray: trials side by side, on a cluster too")  # fmt: skip
    switch("--retry_failed", "run failed trials again")
    add("--output_file", metavar="FILE", take=path_of,
        help="the table, instead of <model>-<dataset>-<task>-tuning.md")  # fmt: skip
    add("--display_file", metavar="F.png", take=path_of,
        help="the figure, instead of <model>-<dataset>-<task>-tuning.png")  # fmt: skip
    return run_command(_run, parser, arguments)


def _run(given: Namespace) -> int:
    request = _request(given)
    # Imported late: RecBole fails to import with the versions refused before.
    from ksr_recbole.tuning.search import tune

    return tell_written(*tune(request))


def _request(given: Namespace) -> Request:
    say_loading(f"Tuning of {task_of(given)}")
    from ksr_recbole.config.keys import TEXTS
    from ksr_recbole.config.literals import read_yaml
    from ksr_recbole.paths import CONFIGS
    from ksr_recbole.tuning.request import Request

    named: dict[str, Any] = {}
    for file in given.config_files:  # the file of best settings that a search leaves has both
        named |= read_yaml(Path(file), TEXTS)
    model = check_name(given.model or named.get("model") or "KSR", "model")
    return Request(
        model=model,
        dataset=check_name(given.dataset or named.get("dataset") or "ml-100k", "dataset"),
        params_file=given.params_file or CONFIGS / "hyper" / f"{model}.hyper",
        config_files=tuple(given.config_files),
        algo=given.algo,
        tool=given.tool,
        max_evals=given.max_evals,
        early_stop=given.early_stop,
        jobs=given.jobs,
        retry_failed=given.retry_failed,
        output_file=given.output_file,
        display_file=given.display_file,
        values=given.values,
    )
