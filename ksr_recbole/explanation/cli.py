"""The command line of ``python -m ksr_recbole explain``."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ksr_recbole.cli import count_of, parse_arguments, run_command, say_loading, task_of
from ksr_recbole.errors import UserError
from ksr_recbole.files import ensure_writable_file, replacing
from ksr_recbole.text import below

if TYPE_CHECKING:
    from ksr_recbole.explanation.parts import Explanation

USAGE = """\
usage: {program}
         --user=ID [--dataset=ml-100k] [--model=KSR] [--checkpoint=FILE] [--steps=20] [--top=5]
         [--html=FILE] [--png=FILE] [--json[=FILE]] [--KEY=VALUE ...]

Shows what KSR's memory says of a user (Sec. 5.4): the attention over the attributes after each
interaction, the value entities it holds nearest, and what supports the recommendations.
  --user=ID          the user's id in the .inter file
  --dataset=NAME     ml-100k by default; --data_path=FOLDER if it lies in FOLDER/NAME
  --model=NAME       KSR by default
  --checkpoint=FILE  by default the newest one of that model and dataset in saved/
                     (--checkpoint_dir=FOLDER); it tells its options, model and dataset itself
  --steps=N          show the last N interactions
  --top=N            show N value entities of each attribute
  --html=FILE        write a page to explore
  --png=FILE         write a picture after Fig. 5
  --json             print everything as JSON and nothing else; --json=FILE writes it there
Any other RecBole config key can be set as --KEY=VALUE.
"""

_SCRIPT = "-m ksr_recbole explain"
_FILES = ("html", "png", "json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m ksr_recbole explain`` and return its exit status."""
    return run_command(_run, USAGE, _SCRIPT, arguments)


def _run(arguments: Sequence[str]) -> int:
    values = parse_arguments(arguments, switches={"json"})
    steps, top = (count_of(values.pop(k, n), k) for k, n in (("steps", "20"), ("top", "5")))
    user = values.pop("user", None)
    if not user:
        raise UserError("No user is given; add --user=ID with an id of the .inter file.")
    to_stdout = values.get("json") == "True"
    if to_stdout:
        del values["json"]
    targets = {k: ensure_writable_file(values.pop(k), k) for k in _FILES if k in values}
    of = values.get("checkpoint") or task_of(values)
    say_loading(f"User {user}, {of}", sys.stderr if to_stdout else sys.stdout)
    # Imported late: RecBole fails to import with the versions refused before.
    from ksr_recbole.explanation.explain import explain
    from ksr_recbole.explanation.trained import load_trained

    trained = load_trained(
        values.pop("checkpoint", None),
        values.pop("model", None),
        values.pop("dataset", None),
        {"gpu_id": "", **values},  # one user needs no GPU
    )
    explanation = explain(trained.model, trained.dataset, user, steps=steps, top=top)
    for kind, path in targets.items():
        _write(explanation, kind, path)
    if to_stdout:
        print(_as_json(explanation), end="")
    else:
        below(sys.stdout).write(_as_text(explanation))  # coloured, and clean already
    told = [f"Explained: {trained.checkpoint}", *(f"Written: {path}" for path in targets.values())]
    print("\n".join(told), file=sys.stderr if to_stdout else sys.stdout)
    return 0


def _as_json(explanation: Explanation) -> str:
    return json.dumps(explanation.to_dict(), indent=2, allow_nan=False) + "\n"


def _as_text(explanation: Explanation) -> str:
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
    colour = stream.isatty() and not console.no_color
    return render(explanation, console.width, colour, ascii_only)


def _write(explanation: Explanation, kind: str, path: Path) -> None:
    """Write one of the files, whole or not at all."""
    with replacing(path) as (temporary,):
        if kind == "png":
            from ksr_recbole.explanation.heat_map import draw

            draw(explanation, temporary)
        elif kind == "html":
            from ksr_recbole.explanation.page import page

            temporary.write_text(page(explanation), encoding="utf-8")
        else:
            temporary.write_text(_as_json(explanation), encoding="utf-8")
