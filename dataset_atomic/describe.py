"""What a reader should know of a dataset of atomic files."""

from __future__ import annotations

from datetime import date, timedelta
from glob import escape
from pathlib import Path

import numpy as np
import polars as pl

from dataset_atomic.atomic import RECBOLES, atomic_path, scan_atomic
from dataset_atomic.atomic_files import is_atomic_name, steady_dataset
from dataset_atomic.layout import Layout
from dataset_atomic.raw.interactions import DAY
from dataset_atomic.raw.timestamps import UNITS, unit_of
from dataset_atomic.table1 import describe_table1, has_graph, names_line, origin_of, scan_inter
from ksr_recbole.errors import UserError, shown
from ksr_recbole.one_step import finish_steps
from ksr_recbole.text import counted


def name_of(folder: Path, layout: Layout = RECBOLES) -> str:
    """The name of the dataset in a folder: the folder's, or that of its only ``.inter``.

    Raises:
        UserError: there is no ``.inter``, or several.
    """
    if not folder.is_dir():
        raise UserError(f"The folder {folder} does not exist; expected one with NAME.inter.")
    part = f".{layout.files[0]}" if layout.files else ""
    names = sorted(path.stem.removesuffix(part) for path in folder.glob(f"*{escape(part)}.inter"))
    if folder.resolve().name in names:
        return folder.resolve().name
    if len(names) != 1:
        held = ", ".join(names) or "none"
        raise UserError(f"{folder} should hold one {part}.inter file; found: {held}.")
    return names[0]


def describe(folder: Path, layout: Layout = RECBOLES) -> list[str]:
    """The lines of ``python -m dataset_atomic describe``: the Table-1 line comes first.

    Raises:
        UserError: a file is missing or malformed, or counted twice.
    """
    if len(set(layout.files)) < len(layout.files):
        raise UserError(
            f"Config key benchmark_filename is {shown(list(layout.files))}; it must name different "
            "files, so name each of them once."
        )
    finish_steps(folder, is_atomic_name)
    name = name_of(folder, layout)
    with steady_dataset(folder, name, layout.files):
        row = describe_table1(folder, name, layout=layout)
        lines = [row.line()]
        lines += _interactions(folder, name, layout)
        if has_graph(folder, name):
            lines += _links(folder, name, layout)
            lines += _relations(folder, name, layout)
            origin = origin_of(folder, name, layout) or "the files do not say which"
            lines.append(f"graph: {origin}")
            lines.append(names_line(folder, row, layout))
    return lines


def _interactions(folder: Path, name: str, layout: Layout) -> list[str]:
    user, item = layout.user, layout.item
    needed = {user: "token", item: "token", layout.time: "float"}
    inter = scan_inter(folder, name, needed, layout).select(
        user_id=user, item_id=item, time=_numbers(layout.time)
    )
    median = inter.select(pl.col("time").abs().median()).collect(engine="streaming").to_numpy()
    unit = unit_of(median.ravel())
    inter = inter.with_columns(pl.col("time") / UNITS[unit])
    by_user = inter.group_by("user_id").agg(
        n=pl.len(),
        sessions=(pl.col("time") // DAY).n_unique(),
        distinct=pl.col("item_id").n_unique(),
    )
    ties = inter.group_by("user_id", "time").agg(n=pl.len()).filter(pl.col("n") > 1)
    ends = inter.select(first=pl.col("time").min(), last=pl.col("time").max())
    users, tied, span = pl.collect_all([by_user, ties, ends], engine="streaming")
    total, distinct = int(users["n"].sum()), int(users["distinct"].sum())
    first, last = (_day(span[end].item()) for end in ("first", "last"))
    return [
        f"time: {first} to {last} (UTC){'' if unit == 'seconds' else f', in {unit}'}",
        f"interactions per user: {_spread(users['n'])}",
        f"sessions per user by day (UTC): {_spread(users['sessions'])}; "
        f"{np.mean(users['sessions'].to_numpy() >= 3):.1%} of the users have at least 3",
        f"tied timestamps: {int(tied['n'].sum()) / total:.1%} of the interactions share theirs "
        "with another of the same user",
        f"repeated (user, item): {total - distinct:,}",
    ]


def _numbers(column: str) -> pl.Expr:
    """A column of numbers, which may have blanks around them, as in a run."""
    return pl.col(column).cast(pl.String).str.strip_chars().cast(pl.Float64)


def _day(seconds: float) -> str:
    """The day of a time since 1970, or the time itself where no calendar has one."""
    try:
        return (date(1970, 1, 1) + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        return f"{seconds:g} seconds after 1970, which no calendar has"


def _spread(values: pl.Series) -> str:
    numbers = values.to_numpy()
    return (
        f"{numbers.min():,} at least, {np.median(numbers):,g} in the median, "
        f"{numbers.mean():,.1f} on average, {numbers.max():,} at most"
    )


def _links(folder: Path, name: str, layout: Layout) -> list[str]:
    """What is linked; as in a run, a link leads nowhere if the graph has not its entity."""
    item, entity = layout.item, layout.entity
    link = scan_atomic(atomic_path(folder, name, "link"), [item, entity], layout).collect()
    kg = scan_atomic(atomic_path(folder, name, "kg"), layout.triple, layout)
    ends = pl.concat([kg.select(entity=end) for end in (layout.head, layout.tail)]).unique()
    linked = link.lazy().join(ends, left_on=entity, right_on="entity", how="semi").select(item)
    column = scan_inter(folder, name, {item: "token"}, layout)
    unlinked = column.join(linked, on=item, how="anti").group_by(item).len()
    items, without = pl.collect_all(
        [column.select(pl.col(item).n_unique()), unlinked], engine="streaming"
    )
    shared = int((link.unique()[entity].value_counts()["count"] > 1).sum())
    return [
        f"items: {items.item():,}, of which {without.height:,} without a link to an entity with "
        f"triples; with these: {counted(int(without['len'].sum()), 'interaction')}",
        f"links: {link.height:,}; {counted(shared, 'entity', 'entities')} shared by several items",
    ]


def _relations(folder: Path, name: str, layout: Layout) -> list[str]:
    kg = scan_atomic(atomic_path(folder, name, "kg"), layout.triple, layout)
    by_relation = kg.group_by(relation=layout.relation).len()
    ordered = by_relation.sort("len", "relation", descending=[True, False])
    counts, notes = ordered.collect(engine="streaming"), {}
    path = atomic_path(folder, name, "relation")
    if path.is_file():
        relation = scan_atomic(path, [layout.relation], layout).collect()
        for row in relation.iter_rows(named=True):
            of = f", reverse of {row['reverse_id']}" if row.get("reverse_id") else ""
            notes[row[layout.relation]] = (
                f"{', attribute' if row.get('attribute') == '1' else ''}{of}"
            )
    lines = [f"  {n:>12,}  {r}{notes.get(r, '')}" for r, n in counts.iter_rows()]
    return ["triples per relation:", *lines]
