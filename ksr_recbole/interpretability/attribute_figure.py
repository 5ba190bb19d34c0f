"""The study's figure: MRR of the next item's entities on every attribute, by every method."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ksr_recbole.comparison.figures import bar_colours, draw_groups
from ksr_recbole.drawing import HIGHLIGHT, new_figure, plain_text
from ksr_recbole.interpretability.methods import Explained


@plain_text()
def draw_attributes(tasks: Sequence[Explained], title: str, path: str | os.PathLike[str]) -> None:
    """Draw a panel for each task as a PNG file; methods that failed are left out.

    Args:
        tasks: the methods of each task.
        title: what is shown.
        path: where to.
    """
    widest = max(
        len(each.measures["values"]["attributes"]) if each.measures else 1 for each in tasks
    )
    figure = new_figure(max(7.0, 1.1 * widest + 3), 5 * len(tasks))
    grid = figure.subplots(len(tasks), 1, squeeze=False).ravel()
    for axes, explained in zip(grid, tasks, strict=True):
        axes.set_title(explained.task)
        _draw_bars(axes, explained)
    legends = [axes.get_legend_handles_labels() for axes in grid]
    handles, labels = max(legends, key=lambda legend: len(legend[1]))  # a task may have failed
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.suptitle(title)
    figure.savefig(path, format="png", dpi=150)


def _draw_bars(axes: Any, explained: Explained) -> None:
    """A group of bars for each attribute, a bar for each method, whiskers over seeds."""
    methods = [method for method in explained.methods["values"] if method.cells]
    if not methods:
        return
    names = list(explained.figures["values"]["attributes"])
    bars = []
    for method, colour in zip(methods, bar_colours(len(methods)), strict=True):
        chosen = HIGHLIGHT if method.label == explained.reference else colour
        samples = [method.of_attribute(name, "mrr") for name in names]
        bars.append((samples, {"label": method.label, "color": chosen}))
    draw_groups(axes, bars)
    axes.set_yscale("log")  # ranges of 20 and of 20,000 entities side by side
    axes.set_ylabel("MRR")
    axes.set_xticks(np.arange(len(names)), names, rotation=30, ha="right")
