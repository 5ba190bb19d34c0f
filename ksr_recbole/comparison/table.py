"""Summaries as tables, and these in Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ksr_recbole.comparison.cells import TABLE3_METRICS
from ksr_recbole.comparison.results import Row, Summary, on_candidates, spread
from ksr_recbole.comparison.significance import ALPHA
from ksr_recbole.text import clean_line, markdown_row


@dataclass(frozen=True)
class Value:
    """A figure in a table.

    Attributes:
        mean: mean over seeds.
        std: standard deviation over seeds, ``None`` for one seed.
        dagger: the reference is significantly better.
        best: no row has a higher mean.
    """

    mean: float
    std: float | None = None
    dagger: bool = False
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        label: what the line is of.
        cells: its figures, or ready texts.
        error: shown instead of the figures.
        rule_above: a rule parts it from the line before.
    """

    label: str
    cells: tuple[Value | str, ...] = ()
    error: str | None = None
    rule_above: bool = False


@dataclass(frozen=True)
class Table:
    """A table that has no format yet.

    Attributes:
        caption: what it shows.
        columns: heads of the columns after the first.
        lines: its lines.
        notes: sentences below it.
    """

    caption: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


def table_of(summary: Summary, dataset: str) -> Table:
    """The table of one task and mode."""
    highest = _highest(summary)
    lines = [_line(row, summary, highest) for row in summary.rows]
    groups = [row.setting.group for row in summary.rows]
    ruled = with_rules(lines, groups)
    if summary.improvement:
        texts = tuple("-" if p is None else f"{p:+.2f} %" for p in summary.improvement.values())
        ruled.append(Line("improvement", texts, rule_above=True))
    return Table(
        f"{summary.study.title}: {dataset}, {summary.task}, test, {summary.mode}",
        tuple(TABLE3_METRICS),
        tuple(ruled),
        tuple(_notes(summary)),
    )


def with_rules(lines: Sequence[Line], groups: Sequence[str]) -> list[Line]:
    """The lines with a rule between those of different groups."""
    parted = [False, *(before != after for before, after in pairwise(groups))]
    return [replace(line, rule_above=above) for line, above in zip(lines, parted, strict=True)]


def _line(row: Row, summary: Summary, highest: Mapping[str, float]) -> Line:
    if row.error is not None:
        return Line(row.setting.label, error=row.error)
    tests = summary.comparisons.get(row.setting.label, {})
    cells = []
    for name, values in row.values(summary.mode).items():
        mean = float(np.mean(values))
        dagger = name in tests and tests[name].is_improvement
        cells.append(Value(mean, spread(values), dagger, best=mean == highest[name]))
    return Line(row.setting.label, tuple(cells))


def _highest(summary: Summary) -> dict[str, float]:
    means = [row.values(summary.mode) for row in summary.rows if row.error is None]
    names = means[0] if means else ()
    return {name: max(float(np.mean(each[name])) for each in means) for name in names}


def _notes(summary: Summary) -> list[str]:
    fine = [row for row in summary.rows if row.error is None]
    notes = []
    if fine:
        seeds = list(fine[0].cells)
        told = ", ".join(map(str, seeds))
        notes.append(
            f"Mean and standard deviation over seeds {told}." if len(seeds) > 1 else f"Seed {told}."
        )
    notes += on_candidates(fine, summary.mode, "test")
    reference = summary.study.reference
    if summary.comparisons:
        daggers = any(
            t.is_improvement for row in summary.comparisons.values() for t in row.values()
        )
        told = f"† {reference} is better" if daggers else f"{reference} is nowhere better"
        notes.append(
            f"{told} at p < {ALPHA}: paired two-sided t-test over the same users "
            "and candidates, on each user's mean over seeds."
        )
    if summary.improvement:
        finished = {row.setting.label for row in fine}
        compared = [label for label in summary.study.baselines if label in finished]
        notes.append(
            f"The last line is the improvement of {reference} over the best of "
            f"{', '.join(compared)}."
        )
    return notes


# Formats ------------------------------------------------------------------------------------


def number(value: Value) -> str:
    """A figure as text."""
    deviation = "" if value.std is None else f" ± {value.std:.4f}"
    return f"{value.mean:.4f}{deviation}"


_MARKUP = re.compile(
    r"[\\`*~]"
    r"|(?<!\w)_|_(?!\w)"  # inside of a word it is none
    r"|\](?=[(\[:])"  # a link's, a picture's or a definition's; not that of a list of numbers
    r"|<(?=\S)|(?<=\S)>"  # a tag's; not that of "p < 0.01"
    r"|&(?=#?\w+;)"
)
"""What GitHub's Markdown does not show as it is, in a text that is no Markdown."""


def in_markdown(text: str) -> str:
    """A text, which may be foreign, as one line of GitHub's Markdown that shows it as it is."""
    return _MARKUP.sub(r"\\\g<0>", clean_line(text))


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown; the best figures are bold."""
    # Not tabulate: it pads columns, so that stored tables would change, and has no rules inside.

    def shown(value: Value | str) -> str:
        if isinstance(value, str):
            return in_markdown(value)
        text = number(value)
        return (f"**{text}**" if value.best else text) + ("†" if value.dagger else "")

    width = len(table.columns) + 1
    head = markdown_row(["", *map(in_markdown, table.columns)])
    lines = [f"### {in_markdown(table.caption)}", "", head, "|---" * width + "|"]
    for line in table.lines:
        # Markdown has no rules inside a table; an empty row parts as well.
        lines += [markdown_row([""] * width)] if line.rule_above else []
        texts = _line_texts(line, shown, len(table.columns))
        lines.append(markdown_row([in_markdown(line.label), *texts]))
    return "\n".join([*lines, "", *(f"{in_markdown(note)}  " for note in table.notes)]) + "\n"


def _line_texts(line: Line, shown: Callable[[Value | str], str], columns: int) -> list[str]:
    if line.error is None:
        return [shown(value) for value in line.cells]
    return [shown(f"failed: {line.error}")] + [""] * (columns - 1)


def to_latex(table: Table) -> str:
    """The table in LaTeX, for the package booktabs; the best figures are bold."""

    def shown(value: Value | str) -> str:
        if isinstance(value, str):
            return _escaped(value)
        number = f"{value.mean:.4f}"
        number = rf"\textbf{{{number}}}" if value.best else number
        deviation = "" if value.std is None else rf" {{\scriptsize $\pm$ {value.std:.4f}}}"
        return number + (r"$^{\dagger}$" if value.dagger else "") + deviation

    columns = len(table.columns)
    body = []
    for line in table.lines:
        body += [r"\midrule"] if line.rule_above else []
        texts = [shown(value) for value in line.cells]
        if line.error is not None:
            texts = [rf"\multicolumn{{{columns}}}{{l}}{{failed: {_escaped(line.error)}}}"]
        body.append(" & ".join([_first(line.label), *texts]) + r" \\")
    head = " & ".join(["", *map(_escaped, table.columns)]).lstrip() + r" \\"
    notes = [rf"\par\footnotesize {_escaped(note)}" for note in table.notes]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(table.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "†": r"$\dagger$",
}


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in clean_line(text))


def _first(text: str) -> str:
    """A row's first text; the end of the row before would take ``[`` or ``*`` as its option."""
    escaped = _escaped(text)
    return f"{{}}{escaped}" if escaped.lstrip().startswith(("[", "*")) else escaped
