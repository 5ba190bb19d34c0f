"""How many interactions, users and items a dataset kept, and why the others were left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

from ksr_recbole.errors import UserError


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
        return cls(len(frame), frame[user].nunique(), frame[item].nunique())

    def minus(self, other: Counts) -> Counts:
        """How many are here and not in ``other``."""
        return Counts(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        parts = {"interactions": self.interactions, "users": self.users, "items": self.items}
        return ", ".join(f"{n:,} {name}" for name, n in parts.items() if n) or "nothing"


@dataclass
class DataFunnel:
    """The way from the rows of the files to those of the dataset.

    Attributes:
        read: what the interaction file holds.
        kept: what is left of it.
        dropped: what each reason took away, in the order in which the rules were applied.
        triples: rows of the knowledge graph that were read and kept; zeros without one.
        links: rows of the link file that were read and kept; zeros without one.
    """

    read: Counts
    kept: Counts
    dropped: dict[str, Counts] = field(default_factory=dict)
    triples: tuple[int, int] = (0, 0)
    links: tuple[int, int] = (0, 0)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> DataFunnel:
        """The funnel that ``dataclasses.asdict`` made ``values`` of."""
        return cls(
            Counts(**values["read"]),
            Counts(**values["kept"]),
            {reason: Counts(**counts) for reason, counts in values["dropped"].items()},
            tuple(values["triples"]),
            tuple(values["links"]),
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
        return f"{told}."


class WithFunnel:
    """Mixin over a RecBole dataset that counts what each of RecBole's filters leaves out.

    Attributes:
        funnel: the counts, once the dataset is loaded.
    """

    funnel: DataFunnel

    if TYPE_CHECKING:  # what RecBole's Dataset, which this class is mixed into, provides
        inter_feat: Any
        uid_field: str
        iid_field: str
        feat_name_list: list[str]
        dataset_name: str

    def _counts(self) -> Counts:
        return Counts.of(self.inter_feat, self.uid_field, self.iid_field)

    @contextmanager
    def _counted(self, reason: str) -> Iterator[None]:
        """Inside the block interactions are left out for ``reason``."""
        yield
        if len(self.inter_feat) != self.funnel.kept.interactions:
            left = self._counts()
            self.funnel.dropped[reason] = self.funnel.kept.minus(left)
            self.funnel.kept = left

    def _data_processing(self) -> None:
        counts = self._counts()
        self.funnel = DataFunnel(read=counts, kept=counts)
        super()._data_processing()  # type: ignore[misc]

    def _filter_nan_user_or_item(self) -> None:
        with self._counted("no user or no item"):
            super()._filter_nan_user_or_item()  # type: ignore[misc]

    def _remove_duplication(self) -> None:
        with self._counted("the same user and item again: rm_dup_inter"):
            super()._remove_duplication()  # type: ignore[misc]

    def _filter_by_field_value(self) -> None:
        with self._counted("value outside val_interval"):
            super()._filter_by_field_value()  # type: ignore[misc]

    def _filter_inter_by_user_or_item(self) -> None:
        with self._counted("not in .user or .item: filter_inter_by_user_or_item"):
            super()._filter_inter_by_user_or_item()  # type: ignore[misc]

    def _filter_by_inter_num(self) -> None:
        with self._counted("outside user_inter_num_interval or item_inter_num_interval"):
            super()._filter_by_inter_num()  # type: ignore[misc]

    def _reset_index(self) -> None:
        """As RecBole's, whose ``ValueError`` on an empty frame does not say which, nor why."""
        for name in self.feat_name_list:
            if getattr(self, name).empty:
                suffix = name.removesuffix("_feat")
                raise UserError(
                    f"No row of .{suffix} of {self.dataset_name} is left after filtering; "
                    f"change the filters of the configuration. {self.funnel.line()}"
                )
        super()._reset_index()  # type: ignore[misc]
