"""The study's tables: both levels in short, and the value level attribute by attribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ksr_recbole.comparison.results import spread
from ksr_recbole.comparison.significance import ALPHA, LEAST_P
from ksr_recbole.comparison.table import Line, Table, Value, with_rules
from ksr_recbole.interpretability.methods import OWN, Explained, Level, Method, part_of

COLUMNS: dict[Level, dict[str, tuple[str, ...]]] = {
    "values": {
        "Hit@10": ("macro", "hit@10"),
        "MRR": ("macro", "mrr"),
        "MRR, random ties": ("macro", "expected_mrr"),
        "Hit@10, pairs": ("micro", "hit@10"),
        "MRR, pairs": ("micro", "mrr"),
    },
    "attention": {
        "the previous item": ("agreement@1",),
        "one of the last 10": ("agreement@10",),
    },
}
"""Columns of the short tables, and which figure each shows."""

_CAPTIONS: dict[Level, str] = {
    "values": "Entities of the next item, ranked by L1 distance to the value vector",
    "attention": "Next items that agree, on the attribute of largest attention, with",
}


def short_table(explained: Explained, level: Level, where: str) -> Table:
    """The methods of one level, with the figures of :data:`COLUMNS`.

    Args:
        explained: the methods of a task.
        level: the level.
        where: dataset and task, for the caption.
    """
    methods, columns = explained.methods[level], COLUMNS[level]
    lines = [_line(explained, method, columns) for method in methods]
    return Table(
        f"{_CAPTIONS[level]}: {where}",
        tuple(columns),
        tuple(with_rules(lines, [method.group for method in methods])),
        (*_notes(explained, level), *_dagger_note(explained, level, lines)),
    )


def _line(explained: Explained, method: Method, columns: dict[str, tuple[str, ...]]) -> Line:
    if method.error is not None:
        return Line(method.label, error=method.error)
    cells = []
    for keys in columns.values():
        rivals = [m for m in explained.methods[method.level] if m.cells and _competes(m)]
        highest = max(float(np.mean(m.overall(*keys))) for m in rivals)
        # The test is over users' means over attributes, that of pairs has none of its own.
        tested = _competes(method) and "micro" not in keys
        values = method.overall(*keys)
        mean = float(np.mean(values))
        cells.append(
            Value(
                mean,
                spread(values),
                dagger=tested and explained.is_behind(method, *keys),
                best=_competes(method) and mean == highest,
            )
        )
    return Line(method.label, tuple(cells))


def _competes(method: Method) -> bool:
    return method.name != "any"  # a bound, no method


def _notes(explained: Explained, level: Level) -> list[str]:
    measures = explained.measures
    if measures is None:
        return []
    seeds = max(len(method.cells) for method in explained.methods[level])
    notes = ["Mean and standard deviation over seeds."] if seeds > 1 else []
    notes.append(f"{measures['users']} users, {measures['positives']} test items.")
    if level == "attention":
        return notes + _attention_notes(explained)
    left_out = measures["values"]["left_out"].items()
    return [
        *notes,
        "Mean over an attribute's users, then over attributes; pairs: over all pairs of user and "
        "attribute. Ties count as ranked above, unless broken at random.",
        *(f"Left out: {name}, since {why}." for name, why in left_out),
    ]


def _attention_notes(explained: Explained) -> list[str]:
    told = explained.figures["attention"]
    majority = dict.fromkeys(told[f"agreement@{k}"]["majority"] for k in (1, 10))
    notes = [f"Most frequent in training: {', '.join(majority)}."]
    for method in explained.methods["attention"]:
        if method.cells and method.name == OWN["attention"]:
            shares = method.over_attributes("largest")
            name = max(shares, key=shares.__getitem__)
            notes.append(
                f"{method.label}: largest attention on {name} for {shares[name]:.1%} of users."
            )
    return notes


def _dagger_note(explained: Explained, level: Level, lines: Sequence[Line]) -> list[str]:
    if not any(isinstance(c, Value) and c.dagger for line in lines for c in line.cells):
        return []
    over = "seeds and attributes" if level == "values" else "seeds"
    return [
        f"† {explained.reference} is better, also at p < {ALPHA} in a paired two-sided t-test over "
        f"users, on each user's mean over {over}."
    ]


def attribute_table(explained: Explained, where: str) -> Table:
    """MRR on every attribute, by every method, with the size of the range.

    Args:
        explained: the methods of a task of which some cell is finished.
        where: dataset and task, for the caption.
    """
    methods = [method for method in explained.methods["values"] if method.cells]
    lines = []
    for name, figures in explained.figures["values"]["attributes"].items():
        samples = [method.of_attribute(name, "mrr") for method in methods]
        means = [float(np.mean(sample)) for sample in samples]
        values = (
            Value(mean, spread(sample), best=mean == max(means))
            for mean, sample in zip(means, samples, strict=True)
        )
        lines.append(Line(name, (str(figures["entities"]), str(figures["users"]), *values)))
    return Table(
        f"MRR of the next item's entities by attribute: {where}",
        ("entities", "users", *(method.label for method in methods)),
        tuple(lines),
        ("Ties count as ranked above.",),
    )


_PAIRS: dict[str, tuple[str, ...]] = {
    "MRR of expected values / popularity": ("expected", "popularity"),
    "MRR of expected values / user's frequency": ("expected", "frequency"),
    "the same / frequency, then popularity": ("expected", "frequency-popularity"),
    "agrees: strongest attribute / most frequent": ("strongest", "against", "majority"),
    "agrees: strongest attribute / random": ("strongest", "against", "random"),
    "score lost: named items / as many others": ("reason", "loss"),
    "log2 of the rank: named / others": ("reason", "log2_rank"),
    "score lost, value at random: named / others": ("chance", "loss"),
    "log2 of the rank, value at random": ("chance", "log2_rank"),
}
"""Figures of the reasons that are pairs, and where the measures have them."""


def reason_table(explained: Explained, where: str) -> Table | None:
    """What was measured of the reasons: a line for each figure, a column for each setting.

    Nothing if no cell is finished.

    Args:
        explained: the methods of a task.
        where: dataset and task, for the caption.
    """
    told = {
        method.label: [c.result["measures"]["reasons"] for c in method.cells]
        for method in explained.methods["values"]
        if method.name == OWN["values"] and method.cells
    }
    if not told:
        return None
    readable = [f"{np.mean([seed['readable'] for seed in seeds]):.1%}" for seeds in told.values()]
    lines = [Line("top 10 with a readable reason", tuple(readable))]
    for label, keys in _PAIRS.items():
        lines.append(Line(label, tuple(_pair(seeds, keys) for seeds in told.values())))
    return Table(
        f"Reasons: {where}",
        tuple(told),
        tuple(lines),
        ("In brackets the p-value of the paired two-sided t-test over users, the largest seed's.",),
    )


def _pair(seeds: Sequence[Mapping[str, Any]], keys: tuple[str, ...]) -> str:
    """Two means over seeds and the largest p-value."""
    found = [part_of(seed, keys) for seed in seeds]
    first, second = (np.mean([each[side] for each in found]) for side in ("first", "second"))
    p_value = max(each["p_value"] for each in found)
    told = f"{p_value:.1g}" if p_value >= LEAST_P else f"< {LEAST_P:.0e}"
    return f"{first:.4f} / {second:.4f} ({told})"
