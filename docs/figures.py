"""Draws every picture of the documentation from stored results, as SVG for light and dark pages.

    python docs/figures.py          # draws what is missing or out of date
    python docs/figures.py --check  # says which are out of date, and ends with 1

Results are those of docs/results, finished cells and tables, and of docs/measured: times, the
steps of the ladder.
The paper's figures are those of its Tables 3 and 4; its Fig. 3 and 4 have no numbers in the text.
Each picture holds a digest of what it was drawn from.  A line or bar at a point is a 95 %
confidence interval over users, each with her mean over the seeds.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # if the package is not installed

from ksr_recbole import digests
from ksr_recbole.comparison.cells import TABLE3_METRICS, Cell
from ksr_recbole.comparison.store import Store

RESULTS = Path(__file__).with_name("results")
MEASURED = Path(__file__).with_name("measured")
FIGURES = Path(__file__).with_name("figures")

VERSION = 4
"""To be raised when a picture is drawn in another way."""

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
"""Of Okabe and Ito: told apart by people who do not see all colours."""

LOOKS = {
    "light": {"ink": "#1f2328", "faint": "#d0d7de", "blue": BLUE},
    "dark": {"ink": "#e6edf3", "faint": "#3d444d", "blue": "#56B4E9"},
}

METRICS = {key: name for name, key in TABLE3_METRICS.items()}

PAPER = {  # Table 3, ml-1m: MAP, MRR, Hit@10, NDCG@10 of next-item and of next-session
    "BPR": ((0.178, 0.178, 0.396, 0.211), (0.171, 0.231, 0.472, 0.210)),
    "NeuMF": ((0.163, 0.163, 0.355, 0.189), (0.141, 0.192, 0.414, 0.172)),
    "CKE": ((0.158, 0.158, 0.350, 0.185), (0.134, 0.174, 0.366, 0.160)),
    "FPMC": ((0.305, 0.305, 0.549, 0.349), (0.245, 0.287, 0.517, 0.282)),
    "RUM_I": ((0.323, 0.323, 0.627, 0.382), (0.252, 0.290, 0.560, 0.298)),
    "RUM_F": ((0.263, 0.263, 0.577, 0.323), (0.220, 0.265, 0.555, 0.270)),
    "GRU": ((0.315, 0.315, 0.593, 0.368), (0.210, 0.222, 0.439, 0.241)),
    "GRU++": ((0.336, 0.336, 0.626, 0.393), (0.256, 0.291, 0.555, 0.304)),
    "GRU_F": ((0.340, 0.340, 0.636, 0.399), (0.259, 0.293, 0.559, 0.306)),
    "KSR": ((0.356, 0.356, 0.655, 0.417), (0.276, 0.313, 0.570, 0.324)),
}


@dataclass(frozen=True)
class Picture:
    """A picture: its name, what it is drawn from, and the function that draws it."""

    name: str
    width: float
    height: float
    data: Any
    draw: Callable[[Any, Mapping[str, str], Any], None]

    @property
    def digest(self) -> str:
        """Of all that it shows."""
        return digests.of_values({"version": VERSION, "data": self.data})

    def path(self, look: str) -> Path:
        """Its file."""
        return FIGURES / f"{self.name}-{look}.svg"


# Stored results -------------------------------------------------------------------------------


@cache
def table(name: str) -> dict[str, Any]:
    """A table of docs/results."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def rows(name: str, task: str) -> dict[str, list[list[str]]]:
    """Dataset folder and cell of each seed, by row of a table."""
    found: dict[str, list[list[str]]] = {}
    for cell in table(name)["cells"]:
        if cell["task"] == task:
            path = Path(cell["file"])
            found.setdefault(cell["label"], []).append([path.parts[-3], path.stem, cell["key"]])
    return found


def interval(cells: Sequence[Sequence[str]], metric: str) -> tuple[float, float]:
    """Mean over users and half the width of its 95 % interval, 101 candidates, test."""
    per_seed = [_per_user(*cell)[metric] for cell in cells]
    users = np.mean(per_seed, axis=0)
    return float(users.mean()), float(1.96 * users.std(ddof=1) / len(users) ** 0.5)


@cache
def _per_user(folder: str, name: str, key: str) -> dict[str, np.ndarray]:
    model, task, seed = re.fullmatch(r"(.+)-(next-\w+)-(\d+)-\w+", name).groups()
    cell = Cell(model, folder, task, int(seed), {}, key)
    found = Store.of(RESULTS, folder).load(cell)
    if found is None:
        raise SystemExit(f"{name} is not among the finished cells of {folder}")
    return {m: each.values for m, each in found.per_user("uni50pop50", "test").items()}


# Pictures -------------------------------------------------------------------------------------


def dots(figure: Any, look: Mapping[str, str], data: Any) -> None:
    """Methods below each other, a panel for each metric, the paper's figures as diamonds."""
    metrics, labels = data["metrics"], list(data["rows"])
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for row, label in enumerate(labels):
            mean, half = interval(data["rows"][label], metric)
            ours = label in data["ours"]
            axes.errorbar(mean, row, xerr=half, fmt="o" if ours else "s", capsize=3, markersize=5,
                          color=ORANGE if ours else look["blue"])  # fmt: skip
            if label in data["paper"]:
                value = data["paper"][label][list(METRICS).index(metric)]
                axes.plot(value, row, "D", mfc="none", mec=look["ink"], markersize=5)
        axes.set_xlabel(METRICS[metric])
        axes.grid(axis="x", color=look["faint"], linewidth=0.6)
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].invert_yaxis()
    shown = "● ours   ■ baseline   ─ 95 % interval over users"
    paper = "   ◇ in the paper, on its ml-1m" if data["paper"] else ""
    figure.suptitle(f"{data['title']}\n{shown}{paper}", fontsize=10)


def lines(figure: Any, look: Mapping[str, str], data: Any) -> None:
    """Metrics against the share of training interactions (Fig. 3)."""
    styles = {"KSR": (ORANGE, "o-"), "GRU++": (look["blue"], "s--"), "GRU++-trained": (GREEN, "^:")}
    for axes, metric in zip(figure.subplots(1, 2), ("map", "ndcg@10"), strict=True):
        for series, (colour, style) in styles.items():
            x = [20, 40, 60, 80, 100]
            cells = [data["rows"][f"{series}, {share}%"] for share in x]
            means, halves = zip(*(interval(each, metric) for each in cells), strict=True)
            axes.errorbar(x, means, yerr=halves, fmt=style, color=colour, label=series, capsize=2)
        axes.set_xlabel("training interactions used (%)")
        axes.set_ylabel(METRICS[metric])
        axes.grid(color=look["faint"], linewidth=0.6)
    axes.legend(frameon=False)
    figure.suptitle(data["title"], fontsize=10)


def speed(figure: Any, look: Mapping[str, str], data: Any) -> None:
    """Seconds and memory against interactions."""
    x = np.array(data["interactions"]) / 1e6
    left, right = figure.subplots(1, 2)
    left.plot(x, data["epoch_seconds"], "o-", color=look["blue"])
    left.set_ylabel("seconds of a training epoch")
    right.plot(x, data["peak_memory_mib"], "s-", color=ORANGE)
    right.set_ylabel("peak memory (MiB)")
    for axes in (left, right):
        axes.set_xlabel("interactions (millions)")
        axes.set_ylim(0)
        axes.grid(color=look["faint"], linewidth=0.6)
    figure.suptitle("Time and memory grow with the data (generated, ml-20m's shape)", fontsize=10)


def busy(figure: Any, look: Mapping[str, str], data: Any) -> None:
    """An epoch on an idle machine and with an endless loop on every core."""
    axes = figure.subplots()
    for shift, kind, colour in ((-0.2, "idle", look["blue"]), (0.2, "busy", ORANGE)):
        low, middle, high = np.array(data[f"{kind}_seconds"]).T
        heights = np.arange(len(middle)) + shift
        axes.barh(heights, middle, 0.36, xerr=[middle - low, high - middle], color=colour,
                  ecolor=look["ink"], capsize=3, label=f"{kind} machine")  # fmt: skip
    axes.set_yticks(range(len(data["versions"])), data["versions"])
    axes.invert_yaxis()
    axes.set_xlabel("seconds of a training epoch (line: lowest and highest)")
    axes.legend(frameon=False)
    figure.suptitle(
        "An epoch on an idle machine, and with a loop on every core (ml-100k-freebase)", fontsize=10
    )


def ladder(figure: Any, look: Mapping[str, str], data: Any) -> None:
    """What each step from Eq. 2 to the memory adds."""
    panels = figure.subplots(*_grid(len(data["panels"])), squeeze=False).ravel()
    for axes, panel in zip(panels, data["panels"], strict=False):
        for row, (label, cells) in enumerate(panel["steps"].items()):
            mean, half = interval(cells, panel["metric"])
            axes.errorbar(mean, row, xerr=half, fmt="o", capsize=3, color=look["blue"])
            axes.annotate(label, (mean, row), (0, 7), textcoords="offset points", ha="center",
                          fontsize=8, color=look["ink"])  # fmt: skip
        axes.set_yticks([])
        axes.margins(y=0.2)
        axes.invert_yaxis()
        axes.set_xlabel(METRICS[panel["metric"]])
        axes.set_title(panel["title"], fontsize=9)
        axes.grid(axis="x", color=look["faint"], linewidth=0.6)
    for axes in panels[len(data["panels"]) :]:
        axes.set_axis_off()
    figure.suptitle("What each step adds\n─ 95 % interval over users", fontsize=10)


def _grid(n: int) -> tuple[int, int]:
    """Rows and columns of ``n`` panels, two next to each other."""
    return -(-n // 2), min(n, 2)


BOXES = {  # left, bottom, width, height, text
    "items": (0.02, 0.10, 0.16, 0.20, "items\ni₁ … iₜ"),
    "gru": (0.26, 0.10, 0.18, 0.20, "GRU (Eq. 1)\nhₜ"),
    "query": (0.52, 0.10, 0.18, 0.20, "query MLP\nh̃ₜ"),
    "kb": (0.02, 0.62, 0.16, 0.26, "knowledge\ngraph\neᵢ, rₐ"),
    "values": (0.26, 0.62, 0.18, 0.26, "values vₐ of the\nuser, written by\ngates (Eq. 7-9)"),
    "keys": (0.52, 0.62, 0.18, 0.26, "attention over\nattributes (Eq. 6)\nread mₜ (Eq. 5)"),
    "score": (0.79, 0.36, 0.19, 0.26, "score (Eq. 10)\n[hₜ; mₜ] · [qᵢ; eᵢ]"),
}
ARROWS = [("items", "gru"), ("gru", "query"), ("query", "keys"), ("kb", "values"),
          ("values", "keys"), ("keys", "score"), ("query", "score"),
          ("items", "values")]  # fmt: skip


def model(figure: Any, look: Mapping[str, str], data: Any) -> None:
    """The model as boxes and arrows."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for name, (x, y, w, h, text) in data["boxes"].items():
        memory = name in ("values", "keys", "kb")
        colour = ORANGE if memory else look["blue"]
        axes.add_patch(_rectangle(x, y, w, h, colour))
        axes.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=9)
    for start, end in data["arrows"]:
        one, other = _edges(data["boxes"][start], data["boxes"][end])
        axes.annotate("", other, one, arrowprops={"arrowstyle": "->", "color": look["ink"]})
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _rectangle(x: float, y: float, width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.02",
                          fill=False, edgecolor=colour, linewidth=1.6)  # fmt: skip


def _edges(one: Sequence[Any], other: Sequence[Any]) -> tuple[tuple, tuple]:
    """Where an arrow leaves a box and where it meets another."""
    (x, y, w, h), (x2, y2, w2, h2) = one[:4], other[:4]
    if abs(x - x2) < 0.05:  # above each other
        return (x + w / 2, y + h), (x2 + w2 / 2, y2)
    return (x + w, y + h / 2), (x2, y2 + h2 / 2)


def _dots(name: str, source: str, task: str, title: str, **more: Any) -> Picture:
    # With one positive for each user MRR equals MAP.
    metrics = [m for m in METRICS if task == "next-session" or m != "mrr"]
    found = rows(source, task)
    ours = [row for row in found if row.startswith("KSR")]
    data = {"metrics": metrics, "rows": found, "title": title, "paper": {}, "ours": ours, **more}
    height = 1.3 + 0.27 * len(data["rows"])
    return Picture(name, 2.6 * len(metrics) + 1.2, height, data, dots)


def _named_cell(text: str) -> list[str]:
    """Dataset folder, name and key of a cell, from ``FOLDER/MODEL-TASK-SEED/KEY``."""
    folder, start, key = text.split("/")
    return [folder, f"{start}-{key[:16]}", key]


def _panel(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A panel of the ladder: rows of a stored table, in order.

    Args:
        entry: ``{"title": "ml-1m, next-item", "table": "ml-1m-ladder", "task": "next-item",
            "metric": "map", "steps": {"Eq. 2": "GRU++-paper", ...}}``; the table is the JSON file
            of that name in docs/results.  A step may also be a list of finished cells, one for
            each seed, as :func:`_named_cell` reads them: they need no table in common.
            The document is ``{"panels": [entry, ...]}``.
    """
    found = rows(entry["table"], entry["task"])
    steps = {
        label: found[step] if isinstance(step, str) else [_named_cell(name) for name in step]
        for label, step in entry["steps"].items()
    }
    return {"title": entry["title"], "metric": entry.get("metric", "map"), "steps": steps}


def pictures() -> list[Picture]:
    """All pictures; the ladder's once its steps are named in docs/measured/ladder.json."""
    times = json.loads((MEASURED / "speed.json").read_text(encoding="utf-8"))
    paper = [{name: both[k] for name, both in PAPER.items()} for k in (0, 1)]
    hundred = "ml-100k-freebase"
    found = [
        _dots("ml-1m-next-item", "ml-1m-table3", "next-item",
              "ml-1m, next-item, 101 candidates, seed 2020", paper=paper[0]),
        _dots("ml-1m-next-session", "ml-1m-table3", "next-session",
              "ml-1m, next-session, 101 candidates, seed 2020", paper=paper[1]),
        _dots("ml-1m-three-seeds", "ml-1m-three-seeds", "next-item",
              "ml-1m, next-item, 101 candidates, three seeds"),
        _dots("ml-1m-papers-training", "ml-1m-papers-training", "next-item",
              "ml-1m, next-item, all in the paper's training, seed 2020"),
        _dots("ml-100k-next-item", f"{hundred}-table3", "next-item",
              "ml-100k, next-item, 101 candidates, three seeds"),
        _dots("ml-100k-next-session", f"{hundred}-table3", "next-session",
              "ml-100k, next-session, 101 candidates, three seeds"),
        _dots("ml-100k-value-matrix", f"{hundred}-value-matrix", "next-item",
              "A value matrix for each user or one for all (Table 4): ml-100k, next-item"),
        _dots("ml-100k-kge", f"{hundred}-kge", "next-item",
              "KB embeddings (Fig. 4): ml-100k, next-item, seed 2020"),
        Picture("ml-100k-train-ratio", 8.5, 3.4, {
            "title": "Less to train on (Fig. 3): ml-100k, next-item, seed 2020, 95 % intervals",
            "rows": rows(f"{hundred}-train-ratio", "next-item")}, lines),
        Picture("scaling", 8.5, 3.2, times["scaling"], speed),
        Picture("busy", 7, 2.6, times["busy"], busy),
        Picture("model", 8, 3.4, {"boxes": BOXES, "arrows": ARROWS}, model),
    ]  # fmt: skip
    steps = MEASURED / "ladder.json"
    if steps.exists():
        panels = [_panel(each) for each in json.loads(steps.read_text(encoding="utf-8"))["panels"]]
        high, wide = _grid(len(panels))
        found.append(Picture("ladder", 4.2 * wide, 3.4 * high, {"panels": panels}, ladder))
    return found


# Drawing --------------------------------------------------------------------------------------


def svg(picture: Picture, look: str) -> str:
    """A picture as SVG; same data, same bytes under one version of Matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure

    ink = LOOKS[look]["ink"]
    style = {
        "svg.fonttype": "none", "svg.hashsalt": "ksr", "font.size": 9,
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"],
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color",
                         "ytick.color"), ink),
        "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none",
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure((picture.width, picture.height),
                        layout=None if picture.name == "model" else "constrained")  # fmt: skip
        picture.draw(figure, LOOKS[look], picture.data)
        buffer = io.StringIO()
        about = {"Date": None, "Creator": None, "Description": picture.digest}
        figure.savefig(buffer, format="svg", transparent=True, metadata=about)
    text = re.sub(r"<!--.*?-->|^\s+|[ \t]+$", "", buffer.getvalue(), flags=re.MULTILINE)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # nothing points to a group
    # Coordinates need no more than tenths of a point, small numbers (widths of lines) hundredths.
    shorter = re.compile(r"(\d\d\.\d|\.\d\d)\d+")
    return re.sub(r'="[^"<>]*"', lambda each: shorter.sub(r"\1", each[0]), text)


def out_of_date() -> list[tuple[Picture, str]]:
    """Pictures and looks whose file is missing or of other data."""
    every = [(picture, look) for picture in pictures() for look in LOOKS]
    return [
        (picture, look)
        for picture, look in every
        if not picture.path(look).exists()
        or picture.digest not in picture.path(look).read_text(encoding="utf-8")
    ]


def main() -> int:
    """Draw, or check."""
    old = out_of_date()
    if "--check" in sys.argv[1:]:
        for picture, look in old:
            print(f"{picture.path(look)} is out of date; run python docs/figures.py")
        return 1 if old else 0
    FIGURES.mkdir(exist_ok=True)
    for picture, look in old:
        picture.path(look).write_text(svg(picture, look), encoding="utf-8")
        print(f"drawn: {picture.path(look).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
