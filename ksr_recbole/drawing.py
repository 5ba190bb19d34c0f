"""What all figures have in common."""

from __future__ import annotations

from typing import Any

HIGHLIGHT = "#c1272d"
"""Colour of what stands out."""


def new_figure(width: float, height: float) -> Any:
    """A figure of so many inches that needs no display and leaves no state behind."""
    # Imported late, since most commands draw nothing; and without pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
