"""Writes the tables of reasons from ``docs/measured/reasons.json``.

    python docs/make_reasons.py [MEASURED.json ...]

A file that is named is ``<dataset>-interpretability.json`` of the study, or holds ``model``,
``dataset`` and the ``measures`` of a result; what the table shows of it is stored first, in place
of what there is of that model and dataset.  ``docs/results/reasons.md`` has all rows, and
``docs/interpretability.md`` those that answer its question.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # if the package is not installed

from ksr_recbole.comparison.significance import LEAST_P
from ksr_recbole.text import markdown_row

DOCS = Path(__file__).resolve().parent
STORED = DOCS / "measured" / "reasons.json"
ANSWER = (
    "users",
    "top 10 with a readable reason",
    "rise of log2 of the rank without the named items, without as many others",
    "MRR of expected values, mean over users",
    "... by popularity",
    "next item agrees on the strongest attribute",
    "... on the most frequent in training",
)
PAGES = {DOCS / "interpretability.md": ANSWER, DOCS / "results" / "reasons.md": None}
"""Each page with a table, and its rows; ``None``: all of them."""
BEGIN, END = "<!-- made by docs/make_reasons.py -->\n", "<!-- until here -->\n"
MUSIC = {"lfm1m": "Music"}


def p_value(value: float) -> str:
    """As the page shows it."""
    if value < LEAST_P:
        return f"p < {LEAST_P:.0e}"
    return f"p = {value:.0e}" if value < 0.01 else f"p = {value:.2f}"


def cells_of(entry: dict[str, Any]) -> dict[str, str]:
    """A column of the table, by row."""
    found, expected = entry["reasons"], entry["reasons"]["expected"]
    strongest = found["strongest"]
    said, against = strongest["agreement"], strongest["against"]

    def rival(name: str) -> str:
        return f"{expected[name]['second']:.4f} ({p_value(expected[name]['p_value'])})"

    def pair(kind: str, measure: str) -> str:
        both = found[kind][measure]
        return f"{both['first']:.4f} and {both['second']:.4f} ({p_value(both['p_value'])})"

    most = f'"{strongest["majority"]}", {p_value(against["majority"]["p_value"])}'
    users = (found[kind]["loss"]["users"] for kind in ("reason", "chance"))
    return {
        "users": f"{entry['users']:,}",
        "top 10 with a readable reason": f"{100 * found['readable']:.1f} %",
        "MRR of expected values, mean over users": f"{expected['popularity']['first']:.4f}",
        "... by popularity": rival("popularity"),
        "... by user's frequency, then popularity": rival("frequency-popularity"),
        "... by user's frequency": rival("frequency"),
        "next item agrees on the strongest attribute": f"{said['strongest']:.4f}",
        "... on the most frequent in training": f"{said['majority']:.4f} ({most})",
        "... on a random attribute": f"{said['random']:.4f} "
        f"({p_value(against['random']['p_value'])})",
        "score lost without the named items, without as many others": pair("reason", "loss"),
        "rise of log2 of the rank without the named items, without as many others": pair(
            "reason", "log2_rank"
        ),
        "a value at random: score lost, as many others": pair("chance", "loss"),
        "a value at random: rise of log2 of the rank, as many others": pair("chance", "log2_rank"),
        "users of the two comparisons": " and ".join(f"{n:,}" for n in users),
    }


def table(entries: list[dict[str, Any]], names: Sequence[str] | None = None) -> str:
    """The table in Markdown, with these rows or with all."""
    columns = [cells_of(entry) for entry in entries]
    heads = [f"{e['model']}, {MUSIC.get(e['dataset'], e['dataset'])}" for e in entries]
    rows = [[row, *(column[row] for column in columns)] for row in names or columns[0]]
    head = f"| {markdown_row(heads)}\n{'|---' * (len(heads) + 1)}|\n"  # none above the names
    return head + "".join(f"{markdown_row(row)}\n" for row in rows)


def page(text: str, entries: list[dict[str, Any]], names: Sequence[str] | None = None) -> str:
    """The page with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}{table(entries, names)}{END}{rest.partition(END)[2]}"


def measured(given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a file holds of each model: of a study its private rows, of which it ran one seed."""
    if "results" not in given:
        found = given["measures"]
        yield {"model": given["model"], "dataset": given["dataset"],
               "users": found["users"], "reasons": found["reasons"]}  # fmt: skip
        return
    [result] = given["results"]
    for row in result["values"]:
        model, _, kind = row["label"].partition(", ")
        if row["name"] == "memory" and kind == "private":
            [reasons] = row["reasons"]
            yield {"model": model, "dataset": given["dataset"],
                   "users": result["users"], "reasons": reasons}  # fmt: skip


def main(files: list[str]) -> None:
    """Store what is named, and write the pages."""
    entries = json.loads(STORED.read_text("utf-8")) if STORED.exists() else []
    for file in files:
        for entry in measured(json.loads(Path(file).read_text("utf-8"))):
            name = entry["model"], entry["dataset"]
            entries = [e for e in entries if (e["model"], e["dataset"]) != name]
            entries.append(entry)
    entries.sort(key=lambda e: (e["dataset"] in MUSIC, e["dataset"], e["model"]))
    STORED.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    for path, names in PAGES.items():
        path.write_text(page(path.read_text("utf-8"), entries, names), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
