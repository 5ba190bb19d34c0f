"""What mkdocs needs to make a site of these pages: links, and two pages made from the code.

The pages are written to be read in the repository too, so some links lead to files outside of
docs/.  On the site these become plain text.  Those of docs/results/ lead to pages only.
"""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = re.compile(r"\[([^\]]*)\]\((?:\.\./[^)]*|results(?:/benchmark)?/?)\)")

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|math):<code>(?P<name>[^<]*)</code>")

API = (
    ("Running", "ksr_recbole.quick_start.run"),
    ("Recommending", "ksr_recbole.inference.recommender"),
    ("States of users", "ksr_recbole.inference.user_state"),
    ("Saving", "ksr_recbole.inference.saving"),
    ("Explaining", "ksr_recbole.explanation.explain"),
    ("Explanations", "ksr_recbole.explanation.parts"),
    ("Loading a trained KSR", "ksr_recbole.explanation.trained"),
    ("Measuring explanations", "ksr_recbole.interpretability.measures"),
    ("Inside RecBole", "ksr_recbole.plugin"),
    ("Models by name", "ksr_recbole.registry"),
    ("KSR", "ksr_recbole.model.ksr"),
    ("Errors", "ksr_recbole.errors"),
)
"""Modules whose docstrings are the reference, and what they are for."""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files outside of the site become plain text."""
    return markdown if "/" in page.file.src_uri else OUTSIDE.sub(r"\1", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Sphinx's roles of docstrings (``:class:`~a.B` ``) become the last name in code."""
    return ROLE.sub(lambda found: f"<code>{found['name'].rpartition('.')[2]}</code>", html)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of commands and of the Python interface."""
    files.append(File.generated(config, "commands.md", content=_commands()))
    files.append(File.generated(config, "api.md", content=_api()))
    return files


def _commands() -> str:
    """Every command with its own help."""
    sys.path.insert(0, str(ROOT))  # if the package is not installed
    from ksr_recbole.__main__ import COMMANDS

    os.environ["COLUMNS"] = "100"
    calls = "`python -m ksr_recbole NAME` in a checkout, and `ksr-recbole NAME` once installed"
    parts = [f"# Commands\n\nEach is {calls}.\n"]
    called, sys.argv = sys.argv, ["ksr-recbole"]
    try:
        for name, command in COMMANDS.items():
            sys.argv = ["ksr-recbole", name]
            text = io.StringIO()
            with redirect_stdout(text):
                import_module(command.module).main([*command.arguments, "--help"])
            parts.append(f"## {name}\n\n```text\n{text.getvalue().strip()}\n```\n")
    finally:
        sys.argv = called
    return "\n".join(parts)


def _api() -> str:
    parts = ["# Python\n\nFrom the docstrings of the code; shapes are written in brackets.\n"]
    options = "    options:\n      heading_level: 3\n"
    parts += [f"## {title}\n\n::: {module}\n{options}" for title, module in API]
    return "\n".join(parts)
