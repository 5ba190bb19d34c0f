"""The figure of each table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ksr_recbole.comparison.cells import TABLE3_METRICS
from ksr_recbole.comparison.results import Row, spread
from ksr_recbole.comparison.studies import Study
from ksr_recbole.drawing import HIGHLIGHT, new_figure, plain_text

SHOWN = {name: TABLE3_METRICS[name] for name in ("MAP", "NDCG@10")}
"""Metrics in a figure, and RecBole's names of them."""


def bar_colours(n: int) -> list[Any]:
    """``n`` colours, none of them like that of the row that stands out."""
    from matplotlib import colormaps

    # The map's reds are left to that row.
    tab20 = colormaps["tab20"]
    colours = [tab20(k) for k in range(tab20.N) if k not in (6, 7)]
    return [colours[k % len(colours)] for k in range(n)]


@plain_text()
def draw(
    study: Study, rows: Sequence[Row], dataset: str, mode: str, path: str | os.PathLike[str]
) -> None:
    """Draw a study's test metrics as a PNG file; rows that failed are left out.

    Args:
        study: the study.
        rows: the rows of all tasks.
        dataset: name of the dataset, for the title.
        mode: the evaluation mode shown.
        path: where to.
    """
    panels = _panels(study, rows)
    tasks = len({row.task for row in rows})
    # A row for each task, unless each has but one panel.
    shape = (tasks, len(panels) // tasks) if len(panels) > tasks else (1, tasks)
    figure = new_figure(max(5.5 * shape[1], 7), 4 * shape[0])
    grid = figure.subplots(*shape, squeeze=False).ravel()
    for axes, (title, metrics, members) in zip(grid, panels, strict=True):
        axes.set_title(title)
        if study.figure == "lines":
            _draw_lines(axes, members, mode, metrics[0], study.x_label)
        else:
            _draw_bars(axes, members, mode, metrics, study.reference)
        if study.split_figure:
            axes.margins(y=0.35)  # room for the legend above the bars
            axes.legend(loc="upper left", fontsize="small")
    if not study.split_figure:
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.suptitle(f"{study.title}: {dataset}, {mode}")
    figure.savefig(path, format="png", dpi=150)


def _panels(study: Study, rows: Sequence[Row]) -> list[tuple[str, list[str], list[Row]]]:
    """Title, metrics and rows of each panel."""
    panels = []
    for task in dict.fromkeys(row.task for row in rows):
        mine = [row for row in rows if row.task == task]
        if study.figure == "lines":
            panels += [(f"{task}, {name}", [name], mine) for name in SHOWN]
        elif study.split_figure:
            for group in dict.fromkeys(row.setting.group for row in mine):
                members = [row for row in mine if row.setting.group == group]
                panels.append((f"{task}, {group}", list(SHOWN), members))
        else:
            panels.append((task, list(SHOWN), mine))
    return panels


def _draw_bars(
    axes: Any, rows: Sequence[Row], mode: str, metrics: Sequence[str], reference: str | None
) -> None:
    """A group of bars for each metric, a bar for each row."""
    bars = []
    for row, colour in zip(rows, bar_colours(len(rows)), strict=True):
        label = row.setting.label
        values = row.values(mode) if row.error is None else {}
        look = {
            "label": label if row.error is None else f"{label} (failed)",
            "color": HIGHLIGHT if label == reference else colour,
            "edgecolor": "black" if label == reference else "none",
        }
        # A failed row keeps its place and its name in the legend, without a bar.
        bars.append(([values.get(SHOWN[name], np.zeros(1)) for name in metrics], look))
    draw_groups(axes, bars)
    axes.set_xticks(np.arange(len(metrics)), metrics)


def draw_groups(axes: Any, bars: Sequence[tuple[Sequence[np.ndarray], dict[str, Any]]]) -> None:
    """Groups of bars side by side, whiskers over seeds.

    Args:
        axes: Matplotlib's.
        bars: for each bar of a group its samples, one for every group, and Matplotlib's options.
            A sample has the value of each seed, ``float64 [seeds]``.
    """
    width = 0.8 / len(bars)
    for k, (samples, look) in enumerate(bars):
        axes.bar(
            np.arange(len(samples)) + (k - (len(bars) - 1) / 2) * width,
            [float(np.mean(sample)) for sample in samples],
            width,
            yerr=[spread(sample) or 0.0 for sample in samples],
            error_kw={"elinewidth": 0.8},
            **look,
        )


def _draw_lines(axes: Any, rows: Sequence[Row], mode: str, metric: str, x_label: str) -> None:
    """A line for each series, whiskers over seeds."""
    for series in dict.fromkeys(row.setting.series for row in rows):
        points = [row for row in rows if row.setting.series == series and row.error is None]
        samples = [row.values(mode)[SHOWN[metric]] for row in points]
        axes.errorbar(
            [row.setting.x for row in points],
            [float(np.mean(sample)) for sample in samples],
            yerr=[spread(sample) or 0.0 for sample in samples],
            marker="o",
            capsize=2,
            color=HIGHLIGHT if series == "KSR" else None,
            label=series,
        )
    axes.set_xlabel(x_label)
