"""The command line of ``python -m ksr_recbole export``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ksr_recbole.cli import parse_arguments, run_command, say_loading, task_of
from ksr_recbole.errors import UserError

USAGE = """\
usage: {program}
         --output=DIR [--checkpoint=FILE] [--model=KSR] [--dataset=ml-100k]
         [--data_path=FOLDER] [--KEY=VALUE ...]

Writes the best model of a checkpoint into a directory that ksr_recbole.Recommender loads.
  --output=DIR           where to write; a model directory that is there already is replaced
  --checkpoint=FILE      by default the newest one of --model and --dataset in checkpoint_dir
  --data_path=FOLDER     where the dataset's folder lies now, if it has moved
A checkpoint knows the configuration of its run; any config key given here wins over it.
"""

SCRIPT = "-m ksr_recbole export"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_run, USAGE, SCRIPT, arguments)


def _run(arguments: Sequence[str]) -> int:
    values = parse_arguments(arguments, switches=())
    output = values.pop("output", None)
    if output is None:
        raise UserError("No --output is given; name the directory to write, as --output=DIR.")
    say_loading(f"Export of {values.get('checkpoint') or task_of(values)}")
    # Imported late: RecBole fails to import with the versions refused before.
    from ksr_recbole.config import Config
    from ksr_recbole.inference.directory import read_directory
    from ksr_recbole.inference.saving import save_model
    from ksr_recbole.trainer import checkpoint

    given = values.pop("checkpoint", None)
    model, dataset = (values.pop(key, None) for key in ("model", "dataset"))
    path = Path(given or "")
    if given is None:
        config = Config(model, dataset, None, dict(values))
        names = config["checkpoint_dir"], config["model"], config["dataset"]
        path = checkpoint.newest(*names, "train the model first, or give --checkpoint=FILE")
    elif model or dataset:
        raise UserError(
            "A checkpoint knows its model and dataset; leave --model and --dataset out."
        )
    written = save_model(path, output, dict(values))
    saved = read_directory(written)
    print(
        f"{written}: {saved.model} on {saved.about['dataset']}, best epoch "
        f"{saved.about['best_epoch']} (counted from 0), {len(saved.tokens['item']) - 1:,} items, "
        f"{len(saved.tokens['user']) - 1:,} users, from {path}"
    )
    return 0
