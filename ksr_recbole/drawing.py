"""What all figures have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HIGHLIGHT = "#c1272d"
"""Colour of what stands out."""


@contextmanager
def plain_text() -> Iterator[None]:
    """Inside the block ``$`` begins no formula in names; for a figure's making and its saving."""
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False}):
        yield


def new_figure(width: float, height: float) -> Any:
    """A figure of so many inches that needs no display and leaves no state behind."""
    # Imported late, since most commands draw nothing; and without pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
