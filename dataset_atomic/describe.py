"""What a reader should know of a dataset of atomic files."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from dataset_atomic.atomic import atomic_path, scan_atomic
from dataset_atomic.atomic_files import steady_dataset
from dataset_atomic.raw.interactions import DAY
from dataset_atomic.table1 import describe_table1, has_graph
from ksr_recbole.errors import UserError
from ksr_recbole.one_step import finish_steps


def name_of(folder: Path) -> str:
    """The name of the dataset in a folder: the folder's, or that of its only ``.inter``.

    Raises:
        UserError: there is no ``.inter``, or several.
    """
    if not folder.is_dir():
        raise UserError(f"The folder {folder} does not exist; expected one with NAME.inter.")
    names = sorted(path.stem for path in folder.glob("*.inter"))
    if folder.resolve().name in names:
        return folder.resolve().name
    if len(names) != 1:
        held = ", ".join(names) or "none"
        raise UserError(f"{folder} should hold one .inter file; found: {held}.")
    return names[0]


def describe(folder: Path) -> list[str]:
    """The lines of ``python -m dataset_atomic describe``: the Table-1 line comes first.

    Raises:
        UserError: a file is missing or malformed.
    """
    finish_steps(folder)
    name = name_of(folder)
    with steady_dataset(folder, name):
        lines = [describe_table1(folder, name).line()]
        lines += _interactions(folder, name)
        if has_graph(folder, name):
            lines += _links(folder, name)
            lines += _relations(folder, name)
            lines.append(_names(folder, name))
    return lines


def _interactions(folder: Path, name: str) -> list[str]:
    needed = {"user_id": "token", "item_id": "token", "timestamp": "float"}
    inter = scan_atomic(atomic_path(folder, name, "inter"), needed).select(
        "user_id", "item_id", time=pl.col("timestamp").cast(pl.Float64)
    )
    by_user = inter.group_by("user_id").agg(
        n=pl.len(),
        sessions=(pl.col("time") // DAY).n_unique(),
        distinct=pl.col("item_id").n_unique(),
    )
    ties = inter.group_by("user_id", "time").agg(n=pl.len()).filter(pl.col("n") > 1)
    ends = inter.select(first=pl.col("time").min(), last=pl.col("time").max())
    users, tied, span = pl.collect_all([by_user, ties, ends], engine="streaming")
    total = users["n"].sum()
    first, last = (
        pl.from_epoch(span[end].cast(pl.Int64)).dt.date().item() for end in ("first", "last")
    )
    return [
        f"time: {first} to {last} (UTC)",
        f"interactions per user: {_spread(users['n'])}",
        f"sessions per user by day (UTC): {_spread(users['sessions'])}; "
        f"{(users['sessions'] >= 3).mean():.1%} of the users have at least 3",
        f"tied timestamps: {tied['n'].sum() / total:.1%} of the interactions share theirs with "
        "another of the same user",
        f"repeated (user, item): {total - users['distinct'].sum():,}",
    ]


def _spread(values: pl.Series) -> str:
    return (
        f"{values.min():,} at least, {values.median():,g} in the median, {values.mean():,.1f} on "
        f"average, {values.max():,} at most"
    )


def _links(folder: Path, name: str) -> list[str]:
    link = scan_atomic(atomic_path(folder, name, "link"), ["item_id", "entity_id"]).collect()
    column = scan_atomic(atomic_path(folder, name, "inter"), ["item_id"]).select("item_id")
    items = column.unique().collect(engine="streaming")
    known = link["item_id"].unique()
    shared = int((link.unique()["entity_id"].value_counts()["count"] > 1).sum())
    without = items.filter(~pl.col("item_id").is_in(known.implode())).height
    return [
        f"links: {link.height:,}; {without:,} items of .inter without one, "
        f"{shared:,} entities shared by several items"
    ]


def _relations(folder: Path, name: str) -> list[str]:
    kg = scan_atomic(atomic_path(folder, name, "kg"), ["head_id", "relation_id", "tail_id"])
    by_relation = kg.group_by("relation_id").len()
    ordered = by_relation.sort("len", "relation_id", descending=[True, False])
    counts, notes = ordered.collect(engine="streaming"), {}
    path = atomic_path(folder, name, "relation")
    if path.is_file():
        relation = scan_atomic(path, ["relation_id"]).collect()
        for row in relation.iter_rows(named=True):
            of = f", reverse of {row['reverse_id']}" if row.get("reverse_id") else ""
            notes[row["relation_id"]] = (
                f"{', attribute' if row.get('attribute') == '1' else ''}{of}"
            )
    lines = [f"  {n:>12,}  {r}{notes.get(r, '')}" for r, n in counts.iter_rows()]
    return ["triples per relation:", *lines]


def _names(folder: Path, name: str) -> str:
    path = atomic_path(folder, name, "entity")
    kg = scan_atomic(atomic_path(folder, name, "kg"), ["head_id", "tail_id"])
    ends = pl.concat([kg.select(e="head_id"), kg.select(e="tail_id")]).unique().collect()["e"]
    if not path.is_file():
        return (
            f"entities without a name: all {len(ends):,}; convert with --names=FILE (lines of an "
            "entity, a tab and its name) to have explanations in words"
        )
    named = scan_atomic(path, ["entity_id", "name"]).select("entity_id").collect()["entity_id"]
    without = len(ends) - ends.is_in(named.implode()).sum()
    return f"entities without a name: {without:,} of {len(ends):,}"
