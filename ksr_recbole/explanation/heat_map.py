"""An explanation as a still picture, after Fig. 5."""

from __future__ import annotations

import os
import warnings
from typing import Any

from ksr_recbole.drawing import HIGHLIGHT, new_figure, plain_text
from ksr_recbole.errors import UserError
from ksr_recbole.explanation.parts import AttributeView, Explanation, Step

_RANKLISTS = 3
"""Attributes whose predicted rank lists are drawn, those with the most attention."""

_TITLE = 34
"""Letters of a title, a label or a name that there is room for."""

_OTHER_LETTERS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "PingFang SC", "Yu Gothic",
    "Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei", "Arial Unicode MS",
)  # fmt: skip
"""Fonts for titles in letters that matplotlib's own font does not have."""

_DPI = 150

_MOST_INCHES = (2**16 - 1) / _DPI
"""No side of the picture may be longer for matplotlib."""

_RIGHT, _FAINT = HIGHLIGHT, "#666666"


def draw(explanation: Explanation, path: str | os.PathLike[str]) -> None:
    """Draw attention cells above the sequence and predicted rank lists below it, as a PNG file.

    The rank lists are those before the second and before the last interaction shown; entities
    that the item then chosen has are boxed.

    Args:
        explanation: what to draw.
        path: where to.

    Raises:
        UserError: it has no steps, or more than fit into a picture.
    """
    if not explanation.steps:
        raise UserError("The explanation has no steps to draw; explain with steps of at least 1.")
    from matplotlib import rc_context  # imported late, since most commands draw nothing

    with plain_text(), rc_context({"font.family": _families()}), warnings.catch_warnings():
        # A letter that no installed font has is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        _figure(explanation).savefig(path, format="png", dpi=_DPI)


def _families() -> list[str]:
    """Installed fonts, the default one first."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in _OTHER_LETTERS if name in installed)]


def _figure(explanation: Explanation) -> Any:
    shown = explanation.by_attention()
    lists = shown[:_RANKLISTS]
    moments = _moments(explanation)
    n_steps, n_values = len(explanation.steps), len(explanation.steps[-1].attributes[0].values)
    heights = [0.28 * len(shown) + 2.6, 0.24 * (n_values + 1) + 0.9]
    width = max(4.2 * len(lists), 0.42 * n_steps + 3)
    height = heights[0] + heights[1] * len(moments)
    if max(width, height) > _MOST_INCHES:
        raise UserError(
            f"A picture of {n_steps:,} interactions and {n_values:,} values is too large; explain "
            "fewer steps, or a smaller top."
        )
    figure = new_figure(width, height)
    grid = figure.add_gridspec(
        1 + len(moments), len(lists), height_ratios=[heights[0], *[heights[1]] * len(moments)]
    )
    _draw_attention(figure.add_subplot(grid[0, :]), figure, explanation, shown)
    for row, step in enumerate(moments, start=1):
        for column, a in enumerate(lists):
            axes = figure.add_subplot(grid[row, column])
            label = explanation.attributes[a].label
            _draw_ranklist(axes, step, label, step.attributes[a])
    who = f"user {explanation.user}" if explanation.user else "somebody new"
    title = f"{explanation.model} on {explanation.dataset}, {who}"
    figure.suptitle(title)
    return figure


def _moments(explanation: Explanation) -> list[Step]:
    """An early step and the last one whose next item is known, as far as there are any."""
    known = [step for step in explanation.steps if step.next_item is not None]
    if not known:
        return [explanation.steps[-1]]
    return [known[0], known[-1]] if len(known) > 1 else known


def _draw_attention(axes: Any, figure: Any, explanation: Explanation, shown: list[int]) -> None:
    """Attributes from top to bottom, interactions from left to right; darker is larger."""
    weights = [[step.attributes[a].weight for step in explanation.steps] for a in shown]
    image = axes.imshow(weights, cmap="Blues", vmin=0, aspect="auto")
    axes.set_yticks(range(len(shown)))
    labels = [_cut(explanation.attributes[a].label, _TITLE) for a in shown]
    axes.set_yticklabels(labels)
    axes.set_xticks(range(len(explanation.steps)))
    titles = [f"{_cut(step.item.title, _TITLE)}  {step.number}" for step in explanation.steps]
    axes.set_xticklabels(titles, rotation=60, ha="right", rotation_mode="anchor", fontsize="small")
    axes.set_xticks([x - 0.5 for x in range(1, len(titles))], minor=True)
    axes.set_yticks([y - 0.5 for y in range(1, len(shown))], minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    figure.colorbar(image, ax=axes, label="attention", pad=0.01)


def _draw_ranklist(axes: Any, step: Step, label: str, view: AttributeView) -> None:
    """The predicted rank list of one attribute for the interaction after ``step``.

    If none of its first entities is right, the best right one stands below with its rank.
    """
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(view.values) + 1, -2.6)
    chosen = f": {_cut(step.next_item.title, _TITLE)}" if step.next_item else ""
    plain = {"fontsize": "small", "va": "center"}
    axes.text(0, -2.1, _cut(label, _TITLE), **plain, weight="bold")
    axes.text(0, -1.15, f"before {step.number + 1}{chosen}", **plain, color=_FAINT)
    hit = any(value.right for value in view.values)
    box = {"boxstyle": "round,pad=0.2", "fill": False, "edgecolor": _RIGHT, "linewidth": 1.5}
    for row, value in enumerate([*view.values, *([] if hit else view.right[:1])]):
        axes.text(0.12, row, f"{value.rank:,}", **plain, ha="right", color=_FAINT)
        axes.text(0.15, row, _cut(value.name, _TITLE), **plain, bbox=box if value.right else None)


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"
