"""Reading one config value with its type, bounds and choices checked."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ksr_recbole.errors import UserError


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
        value = float(value)
    right_type = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if choices is not None:
        if not right_type or value not in choices:
            expected = ", ".join(map(str, choices))
            raise UserError(f"Config key {key} is {value!r}; it must be one of: {expected}.")
        return value
    if not right_type:
        names = {int: "a whole number", float: "a number", bool: "True or False"}
        raise UserError(
            f"Config key {key} is {value!r}; it must be {names.get(kind, f'a {kind.__name__}')}."
        )
    if minimum is not None and value < minimum:
        raise UserError(f"Config key {key} is {value}; it must be at least {minimum}.")
    if below is not None and value >= below:
        raise UserError(f"Config key {key} is {value}; it must be less than {below}.")
    return value
