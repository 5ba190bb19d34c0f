"""An explanation as text: readable at 80 columns, with colours or without."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from ksr_recbole.explanation.parts import AttributeView, Explanation, Reason, Step
from ksr_recbole.text import cleaned, counted

SHADES = " ░▒▓█"
PLAIN_SHADES = " .-+#"
"""Where the terminal's encoding has no block characters."""
MARKS = SHADES + "✓…"
"""What a terminal's encoding needs for the view that is not ASCII only."""

_LEAST = (0.05, 0.25, 0.5, 0.75)
"""Share of the largest weight from which on each shade but the first is used."""

_COLOURS = ("", "blue", "blue", "bright_blue", "bright_blue")
_RIGHT = "bold green"
_FAINT = "dim"
_CODE = 4
"""Letters of an attribute's abbreviation."""

_LEAST_TITLE = 16
_LATEST = 3
"""Items of the history in the heading."""
_IN_SHORT, _FIRST, _SHOWN = 6, 5, 3
"""Recommendations with a reason in the short view, attributes named there, and reasons of one
recommendation in the full one."""

_WEIGHTS = {
    "exact": "Before a reason stands what its value adds to the score.",
    "left out": "Before a reason stands by how much the score falls if its items are left out of "
    "the history, each alone, of the latest 50.",
}
_COMMON = "more than 1 item in 5 too"
"""What stands before values that so many items have (:data:`reasons.COMMON_SHARE`)."""


class _Words(NamedTuple):
    """What a view calls what it shows; only the paper's memory is that of the paper's equations."""

    looks_at: str
    attention: str
    nearest: str


_PAPERS = _Words(
    "attention, Eq. 6",
    "Attention over the attributes after each interaction (Eq. 6)",
    "Value entities, nearest first by L1 distance (Sec. 5.4)",
)
_EXACT = _Words(
    "shares of the reading weights",
    "Attention: each attribute's share of the reading weights",
    "Value entities, nearest first by L1 distance to the mean of those chosen",
)
"""Of a memory of exact values."""

_BELOW = 2
"""Right entities shown of those below the nearest ones."""


def render(
    explanation: Explanation,
    width: int = 80,
    colour: bool = False,
    ascii_only: bool = False,
    full: bool = False,
) -> str:
    """The terminal view: recommendations and reasons, in 24 lines of 80 columns.

    Args:
        explanation: what to show.
        width: columns, at least 40.
        colour: with colour codes.
        ascii_only: without block characters and marks, for encodings that have none.
        full: up to three reasons of each recommendation, and the memory after each step.
    """
    text = StringIO()
    console = Console(
        file=text, width=max(width, 40), force_terminal=colour, no_color=not colour,
        color_system="standard" if colour else None, highlight=False, legacy_windows=False,
    )  # fmt: skip
    explanation = cleaned(explanation)  # titles and names are foreign text
    view = _View(explanation, console, ascii_only)
    view.heading()
    if full:
        view.recommendations()
        if explanation.steps:
            view.attention()
            view.values()
    else:
        view.best()
        view.looks_at()
    for note in explanation.notes:
        view.note(f"Names: {note}", full)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


class _View:
    """Prints one section after the other."""

    def __init__(self, explanation: Explanation, console: Console, ascii_only: bool) -> None:
        self.shown, self.console = explanation, console
        self.shades = PLAIN_SHADES if ascii_only else SHADES
        self.mark, self.dot = ("*", "...") if ascii_only else ("✓", "…")
        self.order = explanation.by_attention()
        self.words = _EXACT if explanation.value_matrix == "exact" else _PAPERS

    def heading(self) -> None:
        e = self.shown
        who = f"user {e.user}" if e.user else "somebody new"
        self.console.print(Text(f"{e.model} on {e.dataset}: {who}", "bold"))
        latest = [item.title for item in reversed(e.history[-_LATEST:])]
        told = counted(e.n_interactions, "choice")
        self._line(Text(f"{told}, the latest: {'; '.join(latest)}" if latest else told))
        if e.value_matrix == "shared":
            self._paragraph(
                "The value matrix is shared by all users: the values are not this user's own, "
                "only the attention is."
            )

    def note(self, text: str, whole: bool) -> None:
        """A note on names: if it needs more than a line and there is no room, where it is."""
        line = Text(text, _FAINT)
        if whole:
            self.console.print(Text("\n").append_text(line))
        elif line.cell_len <= self.console.width:
            self._line(line)
        else:  # cut, it would lack what to do, which stands at its end
            self._line(Text("Names are missing; --full says more.", _FAINT))

    # Recommendations and reasons, in short --------------------------------------------------

    def best(self) -> None:
        """The first recommendations with a reason each, and the titles of the others."""
        self._title("Recommended, and why")
        if not self.shown.recommendations:
            self._paragraph("Nothing: every item was chosen before.")
        for each in self.shown.recommendations[:_IN_SHORT]:
            self._line(Text(f"{each.rank:>3}  ").append(each.item.title, "bold"))
            self._line(Text(f"     {each.sentence}"))
        if others := self.shown.recommendations[_IN_SHORT:]:
            titles = [f"{each.rank} {each.item.title}" for each in others]
            self._paragraph(f"Then: {'; '.join(titles)}.", lines=2)

    def looks_at(self) -> None:
        """The attributes with the most attention now, and where there is more."""
        e = self.shown
        parts = [f"{e.attributes[a].label} {_percent(e.attention[a])}" for a in self.order[:_FIRST]]
        self.console.print()
        self._line(Text(f"The model looks at: {', '.join(parts)} ({self.words.looks_at})."))

    # Attention ------------------------------------------------------------------------------

    def attention(self) -> None:
        """The heat map: a row for each interaction, a column for each attribute."""
        steps = self.shown.steps
        self._title(self.words.attention)
        columns = self._columns()
        codes = abbreviations([self.shown.attributes[a].label for a in columns])
        largest = max(step.attributes[a].weight for step in steps for a in columns)
        left = self.console.width - 2 * len(columns)
        for letters in zip(*(code.ljust(_CODE) for code in codes), strict=True):
            self.console.print(
                Text(" " * left + "".join(set_cell_size(letter, 2) for letter in letters), _FAINT)
            )
        for step in steps:
            line = Text(self._row_head(step, left))
            for a in columns:
                # All are 0 where a sharp attention (gamma) is on attributes that few items have.
                line.append(*self._cell(step.attributes[a].weight / (largest or 1.0)))
            self.console.print(line)
        self._legend(columns, codes, largest)

    def _columns(self) -> list[int]:
        """The attributes there is room for, those with the most attention last first."""
        room = (self.console.width - _LEAST_TITLE - self._fixed()) // 2
        return self.order[:room]

    def _fixed(self) -> int:
        """Columns of a row before the title: the number and, where there is one, the date."""
        steps = self.shown.steps
        dates = 11 if steps[-1].time else 0
        return len(str(steps[-1].number)) + 1 + dates

    def _row_head(self, step: Step, width: int) -> str:
        number = str(step.number).rjust(len(str(self.shown.steps[-1].number)))
        date = f" {step.time[:10]}" if step.time else ""
        head = f"{number}{date} "
        return head + self._cut(step.item.title, width - len(head) - 1) + " "

    def _cut(self, title: str, width: int) -> str:
        if cell_len(title) > width:
            title = set_cell_size(title, width - len(self.dot)).rstrip() + self.dot
        return set_cell_size(title, width)

    def _cell(self, share: float) -> tuple[str, str]:
        level = sum(share >= least for least in _LEAST)
        return self.shades[level] * 2, _COLOURS[level]

    def _legend(self, columns: Sequence[int], codes: Sequence[str], largest: float) -> None:
        marks = ", ".join(
            f"{shade * 2} from {least:.0%}"
            for shade, least in zip(self.shades[1:], _LEAST, strict=True)
        )
        self.console.print()
        self._paragraph(f"{marks} of the largest weight, {_percent(largest)}. After the last:")
        weights = self.shown.steps[-1].attributes
        entries = [
            f"{code:<{_CODE}} {self.shown.attributes[a].label} {_percent(weights[a].weight)}"
            for a, code in zip(columns, codes, strict=True)
        ]
        self._in_columns(entries)
        if left_out := len(self.shown.attributes) - len(columns):
            self._paragraph(f"{counted(left_out, 'attribute')} with less attention left out.")

    def _in_columns(self, entries: Sequence[str]) -> None:
        wide = max(map(cell_len, entries)) + 2
        n_columns = max(1, (self.console.width - 1) // wide)
        rows = -(-len(entries) // n_columns)
        for row in range(rows):
            line = "".join(set_cell_size(entry, wide) for entry in entries[row::rows])
            self.console.print(Text(f"  {line}".rstrip(), _FAINT), no_wrap=True, crop=True)

    # Values ---------------------------------------------------------------------------------

    def values(self) -> None:
        """What the memory held nearest before the last interaction, and holds now."""
        self._title(self.words.nearest)
        steps = self.shown.steps
        before = steps[-2] if len(steps) > 1 else None
        if before is not None:
            chosen = steps[-1].item.title
            self._paragraph(
                f"before: what the memory held before the last interaction, {chosen}, in order "
                f"of rank; {self.mark} marks what that item has. now: what it holds after it."
            )
        for a in self.order:
            attribute, view = self.shown.attributes[a], steps[-1].attributes[a]
            self.console.print(
                Text(f"\n{attribute.label}", "bold").append(
                    f"  {_percent(view.weight)} of the attention, "
                    f"{counted(attribute.n_entities, 'entity', 'entities')}",
                    _FAINT,
                )
            )
            if before is not None:
                self._ranklist("before", before.attributes[a])
            self._ranklist("now", view)

    def _ranklist(self, when: str, view: AttributeView) -> None:
        parts = [
            Text(f"{self.mark} {value.rank} {value.name}", _RIGHT)
            if value.right
            else Text(f"{value.rank} {value.name}")
            for value in view.values
        ]
        below = [value for value in view.right if value.rank > len(view.values)]
        if below:
            names = [f"{self.mark} {value.rank:,} {value.name}" for value in below[:_BELOW]]
            more = [f"{len(below) - _BELOW} more"] if len(below) > _BELOW else []
            parts += [Text(part, _FAINT) for part in [*names, *more]]
        elif when == "before" and not view.right:
            parts.append(Text("that item has none", _FAINT))
        self._hanging(f"  {when:<8}", parts)

    # Recommendations ------------------------------------------------------------------------

    def recommendations(self) -> None:
        """All recommended items with up to three reasons each."""
        self._title("Recommended, and why")
        e = self.shown
        if not e.recommendations:
            self._paragraph("Nothing: every item was chosen before.")
            return
        self._paragraph(_WEIGHTS[e.split])
        for each in e.recommendations:
            self._line(Text(f"{each.rank:>3}  ").append(each.item.title, "bold"))
            own = each.reasons[:_SHOWN]
            for reason in own:
                self._line(Text(f"     {reason.weight:+.3f} {reason.sentence}"))
            if not own:
                self._line(Text(f"     {each.sentence}"))
            self._folded(_COMMON, each.common)
            self._folded("shared, not the model's reason", () if own else each.shared[:_SHOWN])

    def _folded(self, what: str, reasons: Sequence[Reason]) -> None:
        if reasons:
            told = "; ".join(reason.phrase for reason in reasons)
            self._line(Text(f"     {what}: {told}", _FAINT))

    # Lines ----------------------------------------------------------------------------------

    def _title(self, text: str) -> None:
        self.console.print(Text(f"\n{text}", "bold underline"))

    def _paragraph(self, text: str, lines: int | None = None) -> None:
        """Text in as many lines as it needs, or no more than ``lines``, the last one marked."""
        wrapped = Text(text).wrap(self.console, self.console.width)
        if lines and len(wrapped) > lines:
            last = wrapped[lines - 1]
            last.truncate(self.console.width - len(self.dot))
            last.append(self.dot)
        for line in wrapped[:lines]:
            self._line(line)

    def _line(self, text: Text) -> None:
        """One line, cut where there is no room."""
        if text.cell_len > self.console.width:
            text.truncate(self.console.width - len(self.dot))
            text.append(self.dot)
        self.console.print(text, no_wrap=True)

    def _hanging(self, head: str, parts: Sequence[Text]) -> None:
        """``parts`` with commas, after ``head``; a line breaks between parts only."""
        room = self.console.width - len(head)
        lines = [Text(head)]
        for n, part in enumerate(parts):
            if n < len(parts) - 1:
                part.append(",")
            part.truncate(room, overflow="ellipsis")
            if n and lines[-1].cell_len + 1 + part.cell_len > self.console.width:
                lines.append(Text(" " * len(head)))
            elif n:
                lines[-1].append(" ")
            lines[-1].append_text(part)
        for line in lines:
            self.console.print(line, no_wrap=True)


def abbreviations(labels: Iterable[str]) -> list[str]:
    """A different code of at most four letters for each label.

    The first letters of a word ("genr"), or of the first two ("diby" for "directed by").
    """
    codes: list[str] = []
    for label in labels:
        words = ["".join(filter(str.isalnum, word)) for word in label.split()]
        words = [word for word in words if word] or [label]
        code = words[0][:_CODE] if len(words) == 1 else words[0][:2] + words[1][:2]
        number = 2
        while code in codes:
            code = f"{code[: _CODE - len(str(number))]}{number}"
            number += 1
        codes.append(code)
    return codes


def _percent(weight: float) -> str:
    return f"{weight:.0%}" if weight >= 0.01 else "<1%"
