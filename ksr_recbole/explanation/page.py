"""An explanation as one HTML page that needs nothing else, not even a network."""

from __future__ import annotations

import json
from importlib.resources import files

from ksr_recbole.explanation.parts import Explanation

_PLACE = "__DATA__"
_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}
"""What could end the script element or, in old browsers, a line; JSON reads them the same."""


def page(explanation: Explanation) -> str:
    """The page: ``page.html`` with the explanation inside as JSON."""
    template = (files(__package__) / "page.html").read_text(encoding="utf-8")
    data = json.dumps(explanation.to_dict(), ensure_ascii=False, allow_nan=False)
    for character, escape in _ESCAPES.items():
        data = data.replace(character, escape)
    before, after = template.split(_PLACE)
    return f"{before}{data}{after}"
