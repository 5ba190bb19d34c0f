"""Ways to explain that the study compares, and what was measured of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any, Literal

import numpy as np

from ksr_recbole.comparison.results import Row
from ksr_recbole.comparison.significance import Comparison, PerUser, compare, mean_over_seeds
from ksr_recbole.comparison.store import Finished
from ksr_recbole.errors import DamagedFileError
from ksr_recbole.interpretability.attribute_level import WINDOWS
from ksr_recbole.interpretability.value_level import RANKING_MEASURES
from ksr_recbole.records import Each, Number, Whole, check_shape

Level = Literal["values", "attention"]
"""Value level and attribute level of Sec. 5.4, as the measures call them."""

OWN: Mapping[Level, str] = {"values": "memory", "attention": "attention"}
"""What the measures call that which a model does itself."""
OTHERS: Mapping[Level, Mapping[str, str]] = {
    "values": {
        "frequency": "user's frequency",
        "frequency-popularity": "user's frequency, then popularity",
        "popularity": "popularity",
        "random": "random order",
    },
    "attention": {
        "majority": "most frequent in training",
        "chance": "random attribute",
        "any": "best possible",
    },
}
"""What it is compared with: name in the measures, and label.  It depends on the data alone and is
the same in every cell."""


def part_of(measures: Any, keys: Iterable[str]) -> Any:
    """What stands in nested measures under one key after the other."""
    return reduce(getitem, keys, measures)


@dataclass(frozen=True, eq=False)
class Method:
    """A way to explain: a setting's memory or attention, or something simpler.

    Attributes:
        label: name in tables.
        group: methods of another group stand below a rule.
        level: what it explains on.
        name: name in the measures.
        cells: the finished cells that measured it, in the order of the seeds.
        error: why there are none.
    """

    label: str
    group: str
    level: Level
    name: str
    cells: tuple[Finished, ...]
    error: str | None = None

    def overall(self, *keys: str) -> np.ndarray:
        """A mean over all users under each seed, ``float64 [seeds]``.

        Args:
            keys: mean and metric on the value level, the metric on the attribute level.
        """
        return self._figures("overall", self.name, *keys)

    def of_attribute(self, attribute: str, metric: str) -> np.ndarray:
        """The same on one attribute, on the value level, ``float64 [cells]``."""
        return self._figures("attributes", attribute, self.name, metric)

    def _figures(self, *keys: str) -> np.ndarray:
        measures = (cell.result["measures"][self.level] for cell in self.cells)
        return np.array([part_of(each, keys) for each in measures], dtype=np.float64)

    def over_attributes(self, key: str) -> dict[str, float]:
        """How a model's attention is spread, mean over seeds.

        Args:
            key: ``largest``, the share of users whose largest attention an attribute has, or
                ``mean_weight``, its mean attention.
        """
        seeds = [cell.result["measures"]["attention"][key] for cell in self.cells]
        return {name: float(np.mean([seed[name] for seed in seeds])) for name in seeds[0]}

    def per_user(self, metric: str) -> PerUser:
        """Each user's mean over seeds; on the value level of the user's mean over attributes."""
        name = f"{self.level}/{self.name}/{metric}"
        runs = [
            PerUser(cell.measured[f"{self.level}/users"], cell.measured[name])
            for cell in self.cells
        ]
        return mean_over_seeds(runs)


@dataclass(frozen=True, eq=False)
class Explained:
    """One task's methods on both levels.

    Attributes:
        task: the task.
        methods: by level: the settings, and below them what they are compared with.
        reference: label of the method that the others are tested against.
    """

    task: str
    methods: Mapping[Level, tuple[Method, ...]]
    reference: str | None

    @classmethod
    def of(cls, rows: Sequence[Row], task: str, reference: str | None) -> Explained:
        """The methods of ``task``.

        Args:
            rows: the rows of all tasks.
            task: the task.
            reference: label of a setting.

        Raises:
            UserError: a cell has other measures than those that are shown.
        """
        mine = [row for row in rows if row.task == task]
        _check_measures([cell for row in mine if not row.error for cell in row.finished()])
        return cls(task, {level: tuple(_methods(mine, level)) for level in OWN}, reference)

    @property
    def figures(self) -> Mapping[str, Any]:
        """:attr:`measures` of a task of which some cell is finished."""
        assert self.measures is not None, "no cell is finished"
        return self.measures

    @property
    def measures(self) -> Mapping[str, Any] | None:
        """A cell's measures, for what is the same in all; ``None`` if no cell is finished."""
        return next(
            (m.cells[0].result["measures"] for m in self.methods["values"] if m.cells), None
        )

    def compare(self, method: Method, metric: str) -> Comparison | None:
        """The reference against a method; ``None`` for itself and where one of them failed."""
        reference = self._reference_on(method.level)
        if reference is method or not (reference.cells and method.cells):
            return None
        return compare(reference.per_user(metric), method.per_user(metric))

    def is_behind(self, method: Method, *keys: str) -> bool:
        """Whether a method's figure of a table is lower than the reference's, significantly.

        Both are asked: the test is over users' means, and a mean over attributes can differ from
        it in sign, since not every user has a figure on every attribute.

        Args:
            method: the method.
            keys: as of :meth:`Method.overall`.
        """
        comparison = self.compare(method, keys[-1])
        if comparison is None or not comparison.is_improvement:
            return False
        own = self._reference_on(method.level).overall(*keys)
        return bool(np.mean(own) > np.mean(method.overall(*keys)))

    def _reference_on(self, level: Level) -> Method:
        [reference] = [m for m in self.methods[level] if m.label == self.reference]
        return reference


def _methods(rows: Sequence[Row], level: Level) -> list[Method]:
    own = [
        Method(
            row.setting.label,
            row.setting.group,
            level,
            OWN[level],
            () if row.error else tuple(row.finished()),
            row.error,
        )
        for row in rows
    ]
    some = [method.cells[:1] for method in own if method.cells]
    others = OTHERS[level].items() if some else ()
    return own + [Method(label, "no model", level, name, some[0]) for name, label in others]


# What the cells of a study must have measured -------------------------------------------------

_RANKED = {metric: Number() for metric in RANKING_MEASURES}
_AGREEMENT = {f"agreement@{window}": Number() for window in WINDOWS}
_RANKINGS = (OWN["values"], *OTHERS["values"])
_CHOICES = (OWN["attention"], *OTHERS["attention"])
_PAIR = {"first": Number(), "second": Number(), "p_value": Number(finite=False)}

_REASONS = {
    "readable": Number(),
    "expected": dict.fromkeys(("popularity", "frequency", "frequency-popularity"), _PAIR),
    "strongest": {"against": dict.fromkeys(("majority", "random"), _PAIR)},
    **dict.fromkeys(("reason", "chance"), dict.fromkeys(("loss", "log2_rank"), _PAIR)),
}

_MEASURES = {
    "users": Whole(1),
    "positives": Whole(1),
    "attributes": Each(str, list),
    "values": {
        "attributes": Each(
            {"entities": Whole(), "users": Whole(), **dict.fromkeys(_RANKINGS, _RANKED)}
        ),
        "overall": {name: {"macro": _RANKED, "micro": _RANKED} for name in _RANKINGS},
        "left_out": Each(str),
    },
    "attention": {
        "overall": dict.fromkeys(_CHOICES, _AGREEMENT),
        "largest": Each(Number()),
        "mean_weight": Each(Number()),
        **{name: {"majority": str} for name in _AGREEMENT},
    },
    "reasons": _REASONS,
}

_PER_USER = {
    **{f"values/{ranking}": tuple(_RANKED) for ranking in _RANKINGS},
    **{f"attention/{choice}": tuple(_AGREEMENT) for choice in _CHOICES},
}


def _check_measures(cells: Sequence[Finished]) -> None:
    """Make sure that a task's cells have the same measures, and all that is shown of them.

    Raises:
        UserError: one has not, which only a changed one lacks.
    """
    for cell in cells:
        try:
            measures: Any = cell.result.get("measures")
            check_shape(measures, _MEASURES, "measures")
            _check_per_user(cell.measured)
        except DamagedFileError as error:
            raise cell.damaged(f"measures of another form ({error})") from error
        if _structure(measures) != _structure(cells[0].result["measures"]):
            raise cell.damaged("other measures than the study's first cell")


def _check_per_user(arrays: Mapping[str, np.ndarray]) -> None:
    for name, metrics in _PER_USER.items():
        users = arrays.get(f"{name.partition('/')[0]}/users")
        if users is None or users.ndim != 1 or users.dtype.kind not in "iu" or not len(users):
            raise DamagedFileError(f"no users of {name}")
        for metric in metrics:
            values = arrays.get(f"{name}/{metric}")
            if values is None or values.shape != users.shape or values.dtype.kind != "f":
                raise DamagedFileError(f"no {name}/{metric} of every user")


def _structure(measures: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the data alone decide: the same in all cells, and not to be looked up in vain."""
    values, attention = measures["values"], measures["attention"]
    largest, weights = set(attention["largest"]), set(attention["mean_weight"])
    numbers = measures["users"], measures["positives"], measures["attributes"]
    return *numbers, set(values["attributes"]), values["left_out"], largest, weights
