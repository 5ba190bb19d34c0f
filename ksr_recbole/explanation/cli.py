"""The command line of ``python -m ksr_recbole explain``."""

from __future__ import annotations

import io
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ksr_recbole.arguments import Parser, count_of
from ksr_recbole.commands import run_command, say_loading, task_of
from ksr_recbole.errors import UserError
from ksr_recbole.files import check_suffix, ensure_writable_file, replacing
from ksr_recbole.records import json_text
from ksr_recbole.text import below, say

if TYPE_CHECKING:
    from ksr_recbole.explanation.parts import Explanation

_ABOUT = """\
Shows what KSR recommends to a user and why: what the items share with the user's own history.
--full adds the memory (Sec. 5.4): attention after each interaction and the nearest value entities.
"""

_SCRIPT = "-m ksr_recbole explain"
_SUFFIXES = {"html": (".html", ".htm"), "png": (".png",), "json": (".json",)}
"""By option, how the name of the file that it takes may end."""
_STDOUT = "True"
"""What --json means alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m ksr_recbole explain`` and return its exit status."""
    parser = Parser(_SCRIPT, description=_ABOUT, keys="instead of the checkpoint's")
    add = parser.add_argument
    add(
        "--user",
        metavar="ID",
        help="the user's id in the .inter file; by default a user with clear reasons",
    )
    parser.add_names(files=False)
    add("--checkpoint", metavar="FILE",
        help="by default the newest one of that model and dataset in saved/ "
        "(--checkpoint_dir=FOLDER). The checkpoint holds the model, dataset and "
        "options")  # fmt: skip
    add("--steps", metavar="N", take=count_of, default=20,
        help="show the last N interactions (default: 20)")  # fmt: skip
    add("--top", metavar="N", take=count_of, default=5,
        help="show N value entities of each attribute (default: 5)")  # fmt: skip
    parser.add_switch("--full", "up to three reasons of each item, and the memory after each step")
    add("--html", metavar="FILE", help="write a page to explore")
    add("--png", metavar="FILE", help="write a picture like the paper's Fig. 5")
    add("--json", metavar="FILE", nargs="?", const=_STDOUT,
        help="write JSON to FILE; without FILE print JSON only")  # fmt: skip
    return run_command(_run, parser, arguments)


def _run(given: Namespace) -> int:
    to_stdout = given.json == _STDOUT
    named = {kind: path for kind in _SUFFIXES if (path := getattr(given, kind)) is not None}
    if to_stdout:
        del named["json"]
    for kind, path in named.items():
        check_suffix(path, kind, *_SUFFIXES[kind])
    targets = {kind: ensure_writable_file(path, kind) for kind, path in named.items()}
    if len({path.resolve() for path in targets.values()}) < len(targets):
        kinds = " and ".join(f"--{kind}" for kind in targets)
        raise UserError(f"{kinds} name one file; give each a file of its own.")
    who = f"User {given.user}" if given.user else "A user with clear reasons"
    about = f"{who}, {given.checkpoint or task_of(given)}"
    say_loading(about, sys.stderr if to_stdout else sys.stdout)
    # Imported late: RecBole fails to import with the versions refused before.
    from ksr_recbole.explanation.explain import explain, telling_user
    from ksr_recbole.explanation.trained import load_trained

    values = {"gpu_id": "", **given.values}  # one user needs no GPU
    trained = load_trained(given.checkpoint, given.model, given.dataset, values)
    user = given.user or telling_user(trained.model, trained.dataset)
    explanation = explain(trained.model, trained.dataset, user, steps=given.steps, top=given.top)
    for kind, path in targets.items():
        _write(explanation, kind, path)
    if to_stdout:
        print(json_text(explanation.to_dict()), end="")
    else:
        below(sys.stdout).write(_as_text(explanation, given.full))  # coloured, and clean already
    told = [f"Explained: {trained.checkpoint}", *(f"Written: {path}" for path in targets.values())]
    if not given.user:
        told.append(
            f"User {user} was chosen because the reasons are clear; name another with --user=ID."
        )
    if not (given.full or to_stdout or "html" in targets):
        told.append("More: --full, or --html=FILE for a page to explore.")
    for line in told:
        say(line, sys.stderr if to_stdout else sys.stdout)
    return 0


def _as_text(explanation: Explanation, full: bool) -> str:
    """The terminal view, with what the terminal can show."""
    from rich.console import Console

    from ksr_recbole.explanation.terminal import MARKS, render

    stream = below(sys.stdout)
    console = Console(file=stream)
    try:
        MARKS.encode(stream.encoding or "utf-8")
        ascii_only = False
    except UnicodeEncodeError:
        ascii_only = True
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # titles may have other letters too
    colour = stream.isatty() and not console.no_color and not console.is_dumb_terminal
    return render(explanation, console.width, colour, ascii_only, full)


def _write(explanation: Explanation, kind: str, path: Path) -> None:
    """Write one of the files in one step."""
    with replacing(path) as (temporary,):
        if kind == "png":
            from ksr_recbole.explanation.heat_map import draw

            draw(explanation, temporary)
        elif kind == "html":
            from ksr_recbole.explanation.page import page

            temporary.write_text(page(explanation), encoding="utf-8")
        else:
            temporary.write_text(json_text(explanation.to_dict()), encoding="utf-8")
