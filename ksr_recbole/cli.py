"""The command line of ``run_recbole.py``."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ksr_recbole.arguments import Parser, without
from ksr_recbole.commands import run_command, say_loading, task_of
from ksr_recbole.invocation import command_words, same_command, typed

_OFTEN = """\
Any RecBole config key can be set as --KEY=VALUE or as --KEY VALUE; the keys of this project are
documented in configs/. Often used:
  --epochs=N --learning_rate=X --seed=N --gpu_id=N   as in RecBole
  --eval_args.mode=full      select the best epoch by full ranking
  --protocol=paper           evaluate a model of RecBole (SASRec, ...) with the paper's protocol
  --kge_method=TransH        TransE, TransH, TransR or TransD
  --nproc=N                  N processes; docs/distributed.md, also for several machines
"""

SCRIPT = "run_recbole.py"


def parser() -> Parser:
    """What reads the arguments of ``run_recbole.py``."""
    about = "Trains and tests a model on a dataset."
    result = Parser(SCRIPT, description=about, epilog=_OFTEN, keys="of the run")
    result.add_names()
    result.add_argument("--resume", action="key", nargs="?", const="True", metavar="FILE",
                        help="resume from the newest checkpoint, or from this one")  # fmt: skip
    result.add_argument("--trust_checkpoint", action="key", nargs="?", const="True", metavar="True",
                        help="also read pickled checkpoints of RecBole's models, "
                        "which can run any code")  # fmt: skip
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``run_recbole.py`` and return its exit status."""
    return run_command(_run, parser(), arguments)


def _run(given: Namespace) -> int:
    say_loading(task_of(given))
    # Imported late: RecBole fails to import with the versions refused before.
    from ksr_recbole.quick_start import run

    result = run(given.model, given.dataset, given.config_files, given.values)
    if lines := next_commands(result, given.words):
        print("What can be done next:", *lines, sep="\n  ", file=sys.stderr)
    return 0


def next_commands(result: Mapping[str, Any], arguments: Sequence[str]) -> list[str]:
    """Commands that use a run's result: explain, export and train longer.

    Args:
        result: what the run returned.
        arguments: those the run was given.
    """
    checkpoint = result.get("checkpoint")
    if not checkpoint or not os.path.isfile(checkpoint):  # of a model of RecBole, or elsewhere
        return []
    from ksr_recbole.model.ksr import KSR
    from ksr_recbole.registry import model_class, own_models

    of_it, commands = f"--checkpoint={checkpoint}", []
    read = (result.get("memory_fit") or {}).get("used", True)
    if issubclass(model_class(result["model"]), KSR) and read:
        commands.append([*command_words("explain"), of_it, f"--user={result['example_user']}"])
    if result["model"] in own_models():
        directory = Path(checkpoint).with_suffix("")
        commands.append([*command_words("export"), of_it, f"--output={directory}"])
    if longer := result["longer"]:
        again = without(arguments, "resume", *longer)
        keys = [f"--{key}={value}" for key, value in longer.items()]
        commands.append([*same_command(SCRIPT), *again, *keys, f"--resume={checkpoint}"])
    return [typed(words) for words in commands]
