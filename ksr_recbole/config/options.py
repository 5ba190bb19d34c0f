"""Config values with their type, bounds and choices checked: one, or a class of options."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, fields
from inspect import get_annotations
from typing import Any, Self

from ksr_recbole.config_types import ConfigValues
from ksr_recbole.errors import UserError, shown

_LARGEST = 1e30
"""Larger numbers leave what single precision can compute with."""

_WHOLE = 2**31
"""Whole numbers are smaller, unless their key says otherwise: C's integers hold them."""


def _check_bounds(key: str, value: Any, minimum: float | None, below: float | None) -> None:
    if not abs(value) <= _LARGEST:  # NaN is not, either
        raise refused(key, value, "a finite number of common size")
    if minimum is not None and value < minimum:
        raise refused(key, value, f"at least {minimum}")
    if below is not None and value >= below:
        raise refused(key, value, f"less than {below}")
    if isinstance(value, int) and below is None and value >= _WHOLE:
        raise refused(key, value, f"less than {_WHOLE}")


def as_whole(value: Any) -> Any:
    """A whole number that is written as a float (``1e3``) as an integer; all else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def refused(key: str, value: Any, expected: str) -> UserError:
    """The sentence for a value that a config key cannot have."""
    return UserError(f"Config key {key} is {_written(value)}; it must be {expected}.")


def _written(value: Any) -> str:
    return shown(repr(value) if isinstance(value, str) else value, 120)


# Options declared as fields ---------------------------------------------------------------------

Check = Callable[[str, Any], Any]
"""Given a key and a value, the value as it is used; raises ``UserError`` on another kind."""

SIZE = 2**16 + 1
"""Vectors are shorter; with a million items of this size nothing fits into memory."""


@dataclass(frozen=True)
class Value:
    """A check of one value: its type, and its bounds or what it may be."""

    kind: type
    minimum: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] | None = None
    optional: bool = False

    def __call__(self, key: str, value: Any) -> Any:
        """The value; of words the choice that differs in case alone, of ``1e3`` an integer.

        Raises:
            UserError: it has another type, is out of bounds or is not one of the choices.
        """
        if value is None and self.optional:
            return None
        if self.kind is int:
            value = as_whole(value)
        if self.choices is not None and isinstance(value, str):  # RecBole takes learner: Adam too
            in_lower = {choice.lower(): choice for choice in self.choices if type(choice) is str}
            value = in_lower.get(value.lower(), value)
        kinds = (int, float) if self.kind is float else self.kind
        right_type = isinstance(value, kinds) and (self.kind is bool or not isinstance(value, bool))
        if self.choices is not None and not (right_type and value in self.choices):
            raise refused(key, value, f"one of: {', '.join(map(str, self.choices))}")
        if not right_type:
            names = {int: "a whole number", float: "a number", bool: "True or False"}
            raise refused(key, value, names.get(self.kind, f"a {self.kind.__name__}"))
        if self.choices is None and self.kind in (int, float):
            number = value if self.kind is int else _as_float(value)
            _check_bounds(key, number, self.minimum, self.below)
        return value

    def expected(self) -> str:
        """What the value may be, in a few words; empty if its type says all."""
        if self.choices is not None:
            return ", ".join(map(str, self.choices))
        if self.kind is int and self.minimum is not None and self.below is not None:
            return f"{self.minimum:,} to {self.below - 1:,}"
        if self.kind is int and self.minimum is not None and self.minimum <= -_WHOLE:
            return "any whole number"
        bounds = (("from", self.minimum), ("below", self.below))
        return " ".join(f"{word} {bound:,}" for word, bound in bounds if bound is not None)


@dataclass(frozen=True)
class AboveZero:
    """A check that a number is positive and, if ``most`` says so, no larger than that."""

    most: float | None = None

    def __call__(self, key: str, value: Any) -> Any:
        """The value as it was given."""
        number = Value(float)(key, value)
        if number <= 0 or (self.most is not None and number > self.most):
            raise refused(key, value, self.expected())
        return value

    def expected(self) -> str:
        """What the value may be, in a few words."""
        return "above 0" + (f", at most {self.most:g}" if self.most else "")


def optional(check: Check) -> Check:
    """``None``, or what ``check`` takes."""
    return lambda key, value: None if value is None else check(key, value)


def declared(default: Any, check: Check, expected: str | None = None) -> Any:
    """A field of :class:`Options`.

    Args:
        default: the value that it has by default.
        check: raises ``UserError`` on a value it cannot have.
        expected: what it may be, in a few words; by default as the check says.
    """
    told = expected or getattr(check, "expected", str)()
    about = {"default": default, "check": check, "expected": told}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: deepcopy(default), metadata=about)
    return field(default=default, metadata=about)


def whole(default: Any, minimum: int = 0, below: int | None = None, optional: bool = False) -> Any:
    """A field that is a whole number within bounds."""
    return declared(default, Value(int, minimum, below, optional=optional))


def real(
    default: Any, minimum: float | None = None, below: float | None = None, optional: bool = False
) -> Any:
    """A field that is a number within bounds."""
    return declared(default, Value(float, minimum, below, optional=optional))


def flag(default: bool) -> Any:
    """A field that is true or false."""
    return declared(default, Value(bool))


def choice(default: str | None, *choices: str) -> Any:
    """A field that is one of some words, or ``None`` where that is the default."""
    return declared(default, Value(str, choices=choices, optional=default is None))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options that belong together; a subclass declares each as a field with its docstring.

    A field is made with :func:`whole`, :func:`real`, :func:`flag`, :func:`choice` or
    :func:`declared`.  Whatever way the object is made, its values are checked; what does not go
    together is refused by :meth:`check`.

    Raises:
        UserError: an option has a value it cannot have.
    """

    def __post_init__(self) -> None:
        for each in fields(self):
            value = each.metadata["check"](each.name, getattr(self, each.name))
            if "float" in str(each.type) and isinstance(value, int) and value is not True:
                value = float(value)
            object.__setattr__(self, each.name, value)
        self.check()

    def check(self) -> None:
        """Refuse values that do not go together; an override calls its base's first."""

    @classmethod
    def check_declared(cls, name: str) -> None:
        """Refuse a class that was written otherwise than described above.

        Args:
            name: of the class, for the sentence.

        Raises:
            UserError: it is not decorated, or a field has no check.
        """
        known = {each.name: each for each in fields(cls)}
        for key, annotation in get_annotations(cls).items():
            if key not in known and "ClassVar" not in str(annotation):
                raise UserError(f"Write @dataclass(frozen=True, kw_only=True) above {name}.")
            if key in known and "check" not in known[key].metadata:
                raise UserError(
                    f"The option {key} of {name} has no check; declare it by whole(3), real(0.5), "
                    "flag(True) or choice('a', 'a', 'b') of ksr_recbole.config.options."
                )

    @classmethod
    def of(cls, config: ConfigValues) -> Self:
        """The options that a configuration has.

        Args:
            config: a RecBole ``Config``, or a mapping that gives ``None`` for a key it lacks.

        Raises:
            UserError: a value is missing, or one it cannot have.
        """
        return cls(**{name: config[name] for name in cls.of_effect(config)})

    @classmethod
    def of_effect(cls, config: ConfigValues) -> list[str]:
        """The options that matter by what others are; the rest need no value in ``config``."""
        return [each.name for each in fields(cls)]

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The default value of each option."""
        return {each.name: each.metadata["default"] for each in fields(cls)}

    @classmethod
    def checks(cls) -> dict[str, Check]:
        """The check of each option."""
        return {each.name: each.metadata["check"] for each in fields(cls)}
