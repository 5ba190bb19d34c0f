"""Reading one config value with its type, bounds and choices checked."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from ksr_recbole.errors import UserError, shown

_LARGEST = 1e30
"""Larger numbers leave what single precision can compute with."""

_WHOLE = 2**31
"""Whole numbers are smaller, unless their key says otherwise: C's integers hold them."""


def option(
    config: Any,
    key: str,
    kind: type,
    *,
    minimum: float | None = None,
    below: float | None = None,
    choices: Collection[Any] | None = None,
    optional: bool = False,
) -> Any:
    """Value of ``config[key]`` as ``kind``.

    Args:
        config: a RecBole ``Config`` or any mapping with ``__getitem__``.
        key: the config key.
        kind: ``int``, ``float``, ``bool``, ``str`` or ``list``; an int is accepted as float.
        minimum: smallest value allowed.
        below: the value must be smaller than this.
        choices: the values allowed.
        optional: whether ``None`` is allowed.

    Raises:
        UserError: the value has another type, is out of bounds or is not one of the choices.
    """
    value = config[key]
    if value is None and optional:
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = _as_float(value)
    right_type = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if choices is not None:
        if not right_type or value not in choices:
            expected = ", ".join(map(str, choices))
            raise refused(key, value, f"one of: {expected}")
        return value
    if not right_type:
        names = {int: "a whole number", float: "a number", bool: "True or False"}
        raise refused(key, value, names.get(kind, f"a {kind.__name__}"))
    if kind is int or kind is float:
        _check_bounds(key, value, minimum, below)
    return value


def _check_bounds(key: str, value: Any, minimum: float | None, below: float | None) -> None:
    if not abs(value) <= _LARGEST:  # NaN is not, either
        raise refused(key, value, "a finite number of common size")
    if minimum is not None and value < minimum:
        raise refused(key, value, f"at least {minimum}")
    if below is not None and value >= below:
        raise refused(key, value, f"less than {below}")
    if isinstance(value, int) and below is None and value >= _WHOLE:
        raise refused(key, value, f"less than {_WHOLE}")


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def refused(key: str, value: Any, expected: str) -> UserError:
    """The sentence for a value that a config key cannot have."""
    return UserError(f"Config key {key} is {_written(value)}; it must be {expected}.")


def _written(value: Any) -> str:
    return shown(repr(value) if isinstance(value, str) else value, 120)
