"""The command line of ``python -m ksr_recbole export``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ksr_recbole.arguments import Parser
from ksr_recbole.commands import run_command, say_loading, task_of
from ksr_recbole.errors import UserError
from ksr_recbole.files import ensure_writable

SCRIPT = "-m ksr_recbole export"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    about = "Writes the best model of a checkpoint into a directory for ksr_recbole.Recommender."
    parser = Parser(SCRIPT, description=about, keys="instead of the checkpoint's")
    add = parser.add_argument
    add("--output", metavar="DIR",
        help="where to write; replaces a model directory that is already there")  # fmt: skip
    add("--checkpoint", metavar="FILE",
        help="default: the newest one of --model and --dataset in checkpoint_dir")  # fmt: skip
    parser.add_names(files=False)
    return run_command(_run, parser, arguments)


def _run(given: Namespace) -> int:
    if given.output is None:
        raise UserError("No --output is given; name the directory to write, as --output=DIR.")
    ensure_writable(Path(given.output).parent, "output")
    say_loading(f"Export of {given.checkpoint or task_of(given)}")
    # Imported late: RecBole fails to import with the versions refused before.
    from ksr_recbole.config import Config
    from ksr_recbole.inference.directory import read_directory
    from ksr_recbole.inference.saving import save_model
    from ksr_recbole.trainer import checkpoint

    path, values = Path(given.checkpoint or ""), dict(given.values)
    if given.checkpoint is None:
        config = Config(given.model, given.dataset, None, values)
        names = config["checkpoint_dir"], config["model"], config["dataset"]
        path = checkpoint.newest(*names, "train the model first, or give --checkpoint=FILE")
        values.pop("checkpoint_dir", None)  # it has done what it is for
    elif given.model or given.dataset:
        raise UserError(
            "A checkpoint knows its model and dataset; leave --model and --dataset out."
        )
    written = save_model(path, given.output, values)
    saved = read_directory(written)
    print(
        f"{written}: {saved.model} on {saved.about['dataset']}, best epoch "
        f"{saved.about['best_epoch']} (counted from 0), {len(saved.tokens['item']) - 1:,} items, "
        f"{len(saved.tokens['user']) - 1:,} users, from {path}"
    )
    return 0
