"""An explanation as one HTML page that needs nothing else, not even a network."""

from __future__ import annotations

import json
from importlib.resources import files

from ksr_recbole.explanation.parts import Explanation
from ksr_recbole.text import cleaned

_DATA = "__DATA__"
_SHARED = {"__LOOK__": "look.css", "__CARDS__": "cards.js"}
"""What this page and that of ``serve`` have in common."""

_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
}
"""What could end the script element; JSON reads it the same."""


def page(explanation: Explanation) -> str:
    """The page: ``page.html`` with the explanation inside as JSON."""
    template = with_shared((files(__package__) / "page.html").read_text(encoding="utf-8"))
    shown = cleaned(explanation)  # a direction mark in a title turns the text around it too
    data = json.dumps(shown.to_dict(), ensure_ascii=False, allow_nan=False)
    for character, escape in _ESCAPES.items():
        data = data.replace(character, escape)
    before, after = template.split(_DATA)
    return f"{before}{data}{after}"


def with_shared(template: str) -> str:
    """A page's template with the look and the script that pages share in it."""
    for mark, name in _SHARED.items():
        template = template.replace(mark, (files(__package__) / name).read_text(encoding="utf-8"))
    return template
