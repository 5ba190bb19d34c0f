"""How many interactions, users and items a dataset kept, and why the others were left out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
from recbole.utils import FeatureType

from dataset_atomic.layout import Layout
from ksr_recbole.config.literals import literal
from ksr_recbole.config_types import Configuration
from ksr_recbole.dataset.mixin import DatasetMixin
from ksr_recbole.dataset.tokens import joint_codes, n_distinct
from ksr_recbole.errors import UserError, shown
from ksr_recbole.text import counted


@dataclass(frozen=True)
class Counts:
    """What is in the interactions at one moment.

    Attributes:
        interactions: number of rows.
        users: number of different users in them.
        items: number of different items in them.
    """

    interactions: int
    users: int
    items: int

    @classmethod
    def of(cls, frame: Any, user: str, item: str) -> Counts:
        """Counts of a ``pandas.DataFrame`` with the columns ``user`` and ``item``."""
        return cls(len(frame), n_distinct(frame[user]), n_distinct(frame[item]))

    def minus(self, other: Counts) -> Counts:
        """How many are here and not in ``other``."""
        return Counts(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        parts = {"interaction": self.interactions, "user": self.users, "item": self.items}
        return ", ".join(counted(n, name) for name, n in parts.items() if n) or "nothing"


@dataclass
class DataFunnel:
    """The way from the rows of the files to those of the dataset.

    Attributes:
        read: what the interaction file holds.
        kept: what is left of it.
        dropped: what each reason took away, in the order in which the rules were applied.
        triples: rows of the knowledge graph that were read and kept; zeros without one.
        links: rows of the link file that were read and kept; zeros without one.
        unused_items: items of the item file, if it is read, that no interaction has.  RecBole
            ranks such items; here they have no id.
    """

    read: Counts
    kept: Counts
    dropped: dict[str, Counts] = field(default_factory=dict)
    triples: tuple[int, int] = (0, 0)
    links: tuple[int, int] = (0, 0)
    unused_items: int = 0

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> DataFunnel:
        """The funnel that ``dataclasses.asdict`` made ``values`` of."""
        return cls(
            Counts(**values["read"]),
            Counts(**values["kept"]),
            {reason: Counts(**counts) for reason, counts in values["dropped"].items()},
            tuple(values["triples"]),
            tuple(values["links"]),
            values["unused_items"],
        )

    @property
    def complete(self) -> bool:
        """Whether every interaction and every triple that was read is used."""
        return self.read == self.kept and self.triples[0] == self.triples[1]

    def line(self) -> str:
        """What is used of what was read, and why the rest is not."""
        if self.read == self.kept:
            told = f"Used: all {self.read}"
        else:
            read, kept = self.read, self.kept
            reasons = "; ".join(f"{counts} ({why})" for why, counts in self.dropped.items())
            told = (
                f"Used: {kept.interactions:,} of {read.interactions:,} interactions, "
                f"{kept.users:,} of {read.users:,} users, {kept.items:,} of {read.items:,} items. "
                f"Left out: {reasons}"
            )
        for name, (read_rows, kept_rows) in (("triples", self.triples), ("links", self.links)):
            if read_rows != kept_rows:
                told += f"; used {kept_rows:,} of {read_rows:,} {name}"
        if self.unused_items:
            items = counted(self.unused_items, "item")
            told += f"; not ranked, unlike in RecBole: {items} of .item without any interaction"
        return f"{told}."


class WithFunnel(DatasetMixin):
    """Mixin over a RecBole dataset that counts what each of RecBole's filters leaves out.

    Attributes:
        funnel: the counts, once the dataset is loaded.
    """

    funnel: DataFunnel

    def _counts(self) -> Counts:
        return Counts.of(self.inter_feat, self.uid_field, self.iid_field)

    @contextmanager
    def _counted(self, reason: str) -> Iterator[None]:
        """Inside the block interactions are left out for ``reason``."""
        yield
        if len(self.inter_feat) != self.funnel.kept.interactions:
            left = self._counts()
            before = self.funnel.dropped.get(reason, Counts(0, 0, 0))
            self.funnel.dropped[reason] = before.plus(self.funnel.kept.minus(left))
            self.funnel.kept = left

    def _load_data(self, token: str, dataset_path: str) -> None:
        check_present(self.config, token, "inter")
        super()._load_data(token, dataset_path)

    def _data_processing(self) -> None:
        counts = self._counts()
        self.funnel = DataFunnel(read=counts, kept=counts)
        if self.benchmark_filename_list is not None:  # RecBole filters nothing then
            self.feat_name_list = self._build_feat_name_list()
            self._filter_given_files()
        super()._data_processing()

    def _filter_given_files(self) -> None:
        """What must be left out of interactions that the user split."""

    def _data_filtering(self) -> None:
        """As RecBole's, in the file's order; for ours until no rule leaves out anything more."""
        self._filter_nan_user_or_item()
        self._remove_duplication()
        self._filter_by_field_value()
        before = None
        while before != (before := self._sizes()):
            self._filter_once()
            if not self.of_sequences:
                break
        self._reset_index()

    def _sizes(self) -> list[int]:
        return [len(getattr(self, name)) for name in self.feat_name_list]

    def _filter_once(self) -> None:
        """The rules of which one can leave rows that another then leaves out."""
        self._filter_inter_by_user_or_item()
        self._filter_by_inter_num()

    def _filter_nan_user_or_item(self) -> None:
        with self._counted("no user or no item"):
            super()._filter_nan_user_or_item()

    def _remove_duplication(self) -> None:
        """As RecBole's, which leaves the rows in the order of an unstable sort by time."""
        keep = self.config["rm_dup_inter"]
        if keep is None:
            return
        frame = self.inter_feat
        if self.time_field in frame:
            frame = frame.sort_values(self.time_field, kind="stable")
        repeated = frame.duplicated([self.uid_field, self.iid_field], keep=keep)
        with self._counted("the same user and item again: rm_dup_inter"):
            self.inter_feat = self.inter_feat[~repeated.sort_index()]

    def _filter_by_field_value(self) -> None:
        wanted = self.config["val_interval"]
        if not wanted:
            return
        # What never was in .user or .item is not left out for a value.
        self._filter_inter_by_user_or_item()
        with self._counted("value outside val_interval"):
            for field, values in wanted.items():
                self._filter_field(field, values)
            if self.config["filter_inter_by_user_or_item"]:
                self._keep_known_inter()

    def _filter_field(self, field: str, wanted: Any) -> None:
        """Keep the rows whose ``field`` is in an interval, or among some tokens."""
        tables, kind = self._tables_with(field), self.field2type[field]
        if kind == FeatureType.TOKEN and isinstance(wanted, str):
            wanted = literal(wanted)  # a list that looks like an interval
        _check_wanted(field, kind, wanted)
        catalogues = {"user_feat", "item_feat"}
        if catalogues.issuperset(tables) and not self.config["filter_inter_by_user_or_item"]:
            getLogger().warning(
                f"Config key val_interval.{shown(field)} leaves out no interaction with "
                "filter_inter_by_user_or_item False: it is a column of users or items."
            )
        for table in tables:
            rows = getattr(self, table)
            if kind == FeatureType.FLOAT:
                bounds = self._parse_intervals_str(wanted)
                kept = self._within_intervals(rows[field].to_numpy(), bounds)
            else:
                kept = rows[field].isin([str(each) for each in wanted])
            setattr(self, table, rows[kept])

    def _tables_with(self, field: str) -> list[str]:
        """The tables that have a column, of those whose rows can be filtered.

        Raises:
            UserError: there is none.
        """
        tables = [name for name in self.feat_name_list if field in getattr(self, name)]
        if tables:
            return tables
        where = f"in no file of {self.dataset_name} that is read"
        if field in self.field2type:
            where = "in none of the files whose rows it filters (.inter, .user, .item and .kg)"
        raise UserError(
            f"Config key val_interval names the column {shown(field)}, which is {where}; correct "
            "the name, or take it away."
        )

    def _filter_inter_by_user_or_item(self) -> None:
        if not self.config["filter_inter_by_user_or_item"]:
            return
        with self._counted("not in .user or .item: filter_inter_by_user_or_item"):
            self._keep_known_inter()

    def _keep_known_inter(self) -> None:
        for side, column in self._sides():
            known = self.inter_feat[column].isin(getattr(self, side)[column])
            self.inter_feat = self.inter_feat[known]

    def _sides(self) -> list[tuple[str, str]]:
        """The tables of users and items that are loaded, each with its column of ids."""
        sides = (("user_feat", self.uid_field), ("item_feat", self.iid_field))
        return [(side, column) for side, column in sides if getattr(self, side) is not None]

    def _filter_by_inter_num(self) -> None:
        """As RecBole's, by numbers instead of a Python object for every interaction."""
        keys = ("user_inter_num_interval", "item_inter_num_interval")
        user, item = (self._parse_intervals_str(self.config[key]) for key in keys)
        groups = [([self.uid_field], user), ([self.iid_field], item)]
        before = self.inter_feat
        with self._counted("outside user_inter_num_interval or item_inter_num_interval"):
            self.inter_feat = before[self._within_counts(before, groups)]
        for side, column in self._sides():
            feat, bounds = getattr(self, side), user if side == "user_feat" else item
            never_is_allowed = not bounds or bounds[0][1] <= 0
            if never_is_allowed and any_count(bounds):
                continue
            kept = feat[column].isin(self.inter_feat[column])
            if never_is_allowed:
                kept |= ~feat[column].isin(before[column])
            setattr(self, side, feat[kept])

    def _within_counts(self, frame: Any, groups: Sequence[tuple[list[str], Any]]) -> np.ndarray:
        """The rows whose ids all occur as often as they may among these rows, ``bool [n]``.

        Args:
            frame: the rows.
            groups: columns of one kind of id, and RecBole's intervals of how often one may
                occur in them, if there are any.
        """
        kept = np.ones(len(frame), dtype=bool)
        # What occurs does so once at least, which RecBole's default interval allows; counting
        # the ids of a large graph takes seconds.
        columns = [
            (_codes(frame, names), bounds) for names, bounds in groups if not any_count(bounds)
        ]
        before = -1
        while before != (before := int(kept.sum())) and columns:
            allowed = kept.copy()
            for codes, bounds in columns:
                counts = np.bincount(codes[:, kept].ravel(), minlength=codes.max(initial=0) + 1)
                allowed &= self._within_intervals(counts, bounds)[codes].all(axis=0)
            kept = allowed
        return kept

    def _reset_index(self) -> None:
        """As RecBole's, whose ``ValueError`` on an empty frame does not say which, nor why."""
        for name in self.feat_name_list:
            if getattr(self, name).empty:
                suffix = name.removesuffix("_feat")
                raise UserError(
                    f"No row of .{suffix} of {self.dataset_name} is left after filtering; "
                    f"change the filters of the configuration. {self.funnel.line()}"
                )
        for name in self.feat_name_list:
            setattr(self, name, getattr(self, name).reset_index(drop=True))


def _check_wanted(field: str, kind: FeatureType, wanted: Any) -> None:
    """Refuse an interval of a column that is no number, and tokens of one that is."""
    forms = {
        FeatureType.FLOAT: "an interval such as [3,inf)",
        FeatureType.TOKEN: "a list of tokens",
    }
    if kind not in forms:
        raise UserError(
            f"Config key val_interval names the column {shown(field)}, which is of type "
            f"{kind.value}; only columns of type float or token can be filtered."
        )
    if (kind == FeatureType.FLOAT) != isinstance(wanted, str):
        raise UserError(
            f"Config key val_interval.{shown(field)} is {shown(wanted)}; the column is of type "
            f"{kind.value}, so it must be {forms[kind]}."
        )


def any_count(bounds: Sequence[tuple[str, float, float, str]] | None) -> bool:
    """Whether RecBole's intervals leave every number from 1 upwards, by one of them alone."""
    return not bounds or any(
        high == math.inf and (low < 1 or (low == 1 and bracket == "["))
        for bracket, low, high, _ in bounds
    )


def _codes(frame: Any, columns: Sequence[str]) -> np.ndarray:
    """A number for each different value of some columns together, ``int64 [columns, n]``."""
    codes, _ = joint_codes([frame[name] for name in columns])
    return codes.reshape(len(columns), len(frame))


def check_present(config: Configuration, name: str, *suffixes: str) -> None:
    """Refuse a dataset of which a file is missing, before RecBole looks for it.

    Raises:
        UserError: naming the file.
    """
    folder, layout = Path(config["data_path"]), Layout.of(config)
    for suffix in suffixes:
        paths = [folder / f"{name}.{suffix}"]
        for path in layout.inter_paths(folder, name) if suffix == "inter" else paths:
            if not os.path.lexists(path):
                raise UserError(
                    f"{path} does not exist; put the file there or correct the dataset's folder."
                )
