"""What all figures have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HIGHLIGHT = "#c1272d"
"""Colour of what stands out."""


PLAIN_TEXT: dict[Any, Any] = {"text.parse_math": False}
"""Matplotlib's settings while names from outside are drawn: in them ``$`` begins no formula."""


@contextmanager
def plain_text() -> Iterator[None]:
    """Inside the block a figure's text is drawn as it is; for its making and its saving."""
    from matplotlib import rc_context

    with rc_context(PLAIN_TEXT):
        yield


def new_figure(width: float, height: float) -> Any:
    """A figure of so many inches that needs no display and leaves no state behind."""
    # Imported late, since most commands draw nothing; and without pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
