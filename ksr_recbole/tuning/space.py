"""Which settings a search may try: RecBole's ``.hyper`` files, read strictly."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from ksr_recbole.choices import choose_from
from ksr_recbole.comparison.store import NO_PART_OF_THE_KEY
from ksr_recbole.config.decisions import FILTERS
from ksr_recbole.config.keys import TEXTS, check_keys
from ksr_recbole.config.kinds import FIELDS
from ksr_recbole.config.literals import LONGEST_FILE, literal, literals
from ksr_recbole.errors import UserError, shown
from ksr_recbole.files import read_text

BOUNDS = {
    "uniform": ("low", "high"),
    "quniform": ("low", "high", "q"),
    "loguniform": ("low", "high"),
}
"""Types of ranges of numbers, and what is written behind each."""

LARGEST_LOGARITHM = 700.0
"""The exponential of more is no number of a computer's."""

TYPES = ("choice", *BOUNDS)
"""Types of ranges, as in RecBole."""

NOT_TUNABLE = frozenset(
    # Trials would be scored on different things, ...
    {"model", "dataset", "task", "session_length", "train_ratio", "benchmark_filename"}
    | {*FILTERS, *FIELDS, "entity_kg_num_interval", "relation_kg_num_interval"}
    | {"eval_args", "metrics", "topk", "valid_metric", "report_modes"}
    # ... or differ in nothing that is scored.
    | (NO_PART_OF_THE_KEY - {"pretrain_path"})  # whose files' content is part of it
)
"""Config keys that a search may not vary."""


@dataclass(frozen=True)
class Range:
    """The values of one config key that a search may try.

    Attributes:
        name: the config key.
        kind: one of :data:`TYPES`.
        values: the choices, or the bounds that :data:`BOUNDS` names; those of ``loguniform``
            are natural logarithms, as in RecBole.
    """

    name: str
    kind: str
    values: tuple[Any, ...]

    def decode(self, drawn: float) -> Any:
        """The config value for what a search drew: a number, or of choices the index.

        Whole numbers of a ``quniform`` range become ``int``, which ``embedding_size`` and its
        like must be.
        """
        if self.kind == "choice":
            return self.values[int(drawn)]
        whole = self.kind == "quniform" and all(float(v).is_integer() for v in self.values)
        return int(drawn) if whole else float(drawn)


def read_space(path: Path) -> tuple[Range, ...]:
    """The ranges in a ``.hyper`` file: lines of a config key, a type and values.

    ``learning_rate choice [0.001,0.01]``, ``dropout_prob uniform 0.0,0.5``,
    ``embedding_size quniform 32,256,32`` or ``learning_rate loguniform -8,-4``.  Empty lines and
    those that begin with ``#`` are left out.

    Raises:
        UserError: the file is missing, or a line is not as above; the sentence has its number.
    """
    try:
        text = read_text(path, encoding="utf-8-sig")  # Windows' editors add a mark
    except OSError as error:
        raise UserError(f"Cannot read the params file {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The params file {path} is not UTF-8 text.") from error
    ranges: dict[str, Range] = {}
    for number, line in enumerate(text.split("\n"), start=1):  # as editors count lines
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}, line {number}"
        found = _read_line(line, where)
        if found.name in ranges:
            raise UserError(f"{where}: {found.name} has a range already; give one.")
        ranges[found.name] = found
    if not ranges:
        raise UserError(
            f"The params file {path} has no range; add a line like `gamma choice [1,10]`."
        )
    return tuple(ranges.values())


def _read_line(line: str, where: str) -> Range:
    name, kind, values = (*line.split(maxsplit=2), "", "")[:3]
    if not kind:
        raise UserError(
            f"{where}: '{shown(line.strip())}' is not a config key, a type and its values."
        )
    check_keys([name], where)
    if name.split(".")[0] in NOT_TUNABLE:
        raise UserError(f"{where}: {name} cannot be tuned, since trials would not be comparable.")
    if kind not in TYPES:
        raise UserError(
            f"{where}: there is no type '{kind}'{choose_from(kind, TYPES, 'the types are')}"
        )
    if kind == "choice":
        return Range(name, kind, _choices(name, values, where))
    return Range(name, kind, _bounds(name, kind, values, where))


def _choices(name: str, text: str, where: str) -> tuple[Any, ...]:
    values = literal(text, LONGEST_FILE)
    if not isinstance(values, list | tuple) or not _is_json(values):
        raise UserError(
            f"{where}: {shown(repr(text))} is not a list of choices such as [0.1,0.2] or "
            "['BPR','CE']."
        )
    if not values:
        raise UserError(f"{where}: the range of {name} is empty; give at least one choice.")
    # RecBole's files write lists as text, '[64,32]', which a trial would read as a list.
    return tuple(literals({name: value}, TEXTS)[name] for value in values)


def _is_json(value: Any) -> bool:
    """Whether JSON can hold a literal: its numbers are finite, and its keys are text."""
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(each) for key, each in value.items())
    return not isinstance(value, float) or isfinite(value)


def _bounds(name: str, kind: str, text: str, where: str) -> tuple[float, ...]:
    wanted = BOUNDS[kind]
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != len(wanted) or not all(map(isfinite, values)):
        raise UserError(
            f"{where}: {shown(repr(text))} is not the {','.join(wanted)} of a {kind} range."
        )
    if values[0] >= values[1]:
        raise UserError(f"{where}: the range of {name} is empty; low must be less than high.")
    if kind == "quniform":
        _check_steps(name, values, where)
    if kind == "loguniform" and values[1] > LARGEST_LOGARITHM:
        raise UserError(f"{where}: the bounds of {name} are natural logarithms, such as -8,-4.")
    return values


def _check_steps(name: str, values: tuple[float, ...], where: str) -> None:
    """Refuse a ``quniform`` range of which a value outside its bounds could be drawn.

    What is drawn between the bounds is rounded to the nearest multiple of ``q``.

    Raises:
        UserError: saying which.
    """
    low, high, q = values
    if q <= 0:
        raise UserError(f"{where}: the step q of {name} is {q}; it must be positive.")
    nearly = q * 1e-9  # 3 * 0.1 is a little more than 0.3
    for bound in (low, high):
        drawn = float(np.round(bound / q)) * q  # as hyperopt does; of too many steps infinite
        if not low - nearly <= drawn <= high + nearly:
            raise UserError(
                f"{where}: {name} could be {drawn:g}, outside its bounds, since draws are rounded "
                f"to multiples of q; give bounds that are multiples of {q:g}."
            )
