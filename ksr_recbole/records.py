"""JSON files of this project's own: a digest in each, and a description of what must be in it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ksr_recbole.digests import sealed, unsealed
from ksr_recbole.errors import DamagedFileError
from ksr_recbole.files import SMALL, read_text, replacing


def as_json_values(value: Any) -> Any:
    """``value`` as JSON would hold it; what JSON does not know becomes its string."""
    if isinstance(value, dict):
        return {str(k): as_json_values(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json_values(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def json_text(values: Any) -> str:
    """JSON values as the text of a file, which ends with a line break.

    A number that is not finite is ``null`` in it, since JSON has no word for one.  A config value
    of a model of RecBole can be such a number, and a run must not fail at its end because of it.
    """
    return _text_of_finite(_null_for_nan(values))


def _text_of_finite(values: Any) -> str:
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def _null_for_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _null_for_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_null_for_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_record(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Write JSON values and their digest in one step.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as (temporary,):
        temporary.write_text(record_text(record), encoding="utf-8")


def record_text(record: Mapping[str, Any]) -> str:
    """JSON values with their digest, as the text of a file."""
    # The digest is of what will be read, so a number that is not finite is null before it is made.
    return _text_of_finite(sealed(_null_for_nan(record)))


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what :func:`write_record` wrote, without the digest.

    Raises:
        DamagedFileError: it is not what was written, or has no digest that would show this.
        OSError: there is no file, or it cannot be read.
    """
    try:
        text = read_text(path, SMALL)
    except UnicodeDecodeError as error:
        raise DamagedFileError("it is not UTF-8 text") from error
    return unsealed(parse_object(text))


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object in a text, however deep or long what stands there instead is.

    Raises:
        DamagedFileError: there is none.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise DamagedFileError("its JSON is nested too deep") from error
    except ValueError as error:
        raise DamagedFileError(f"it is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise DamagedFileError("it holds no JSON object")
    return content


# What must be in a record --------------------------------------------------------------------


@dataclass(frozen=True)
class Each:
    """A mapping by text, or a list, all of whose values are of one shape.

    Attributes:
        shape: of every value.
        kind: ``dict`` or ``list``.
    """

    shape: Any
    kind: type = dict


@dataclass(frozen=True)
class Whole:
    """A whole number from ``least`` on that fits in 63 bits."""

    least: int = 0


@dataclass(frozen=True)
class Number:
    """A number; ``finite`` ones are neither NaN nor infinite."""

    finite: bool = True


@dataclass(frozen=True)
class Either:
    """``None`` or something of a shape."""

    shape: Any


def check_shape(value: Any, shape: Any, name: str = "it") -> None:
    """Make sure that JSON values have the shape they must have.

    Args:
        value: the values.
        shape: a type; a mapping from the keys that must be there to their shapes (others may be
            there too); or one of the classes above.
        name: what the value is called, for the message.

    Raises:
        DamagedFileError: naming the part at fault.
    """
    if isinstance(shape, Either):
        if value is not None:
            check_shape(value, shape.shape, name)
    elif isinstance(shape, Mapping):
        _check_kind(value, dict, name)
        for key, inner in shape.items():
            if key not in value:
                raise DamagedFileError(f"{name} has no {key}")
            check_shape(value[key], inner, _part(name, key))
    elif isinstance(shape, Each):
        _check_kind(value, shape.kind, name)
        pairs = value.items() if shape.kind is dict else enumerate(value)
        for key, inner in pairs:
            if shape.kind is dict and not isinstance(key, str):
                raise DamagedFileError(f"{name} has a key that is no text")
            check_shape(inner, shape.shape, _part(name, key))
    elif isinstance(shape, Whole):
        _check_kind(value, int, name)
        if not shape.least <= value < 2**63:
            raise DamagedFileError(f"{name} is not a whole number from {shape.least} on")
    elif isinstance(shape, Number):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DamagedFileError(f"{name} is no number")
        if isinstance(value, int) and abs(value) >= 10**300:  # float() of it would end in an error
            raise DamagedFileError(f"{name} is too large a number")
        if shape.finite and not (abs(value) < 1e300 and math.isfinite(value)):
            raise DamagedFileError(f"{name} is no finite number")
    else:
        _check_kind(value, shape, name)


def _part(name: str, key: Any) -> str:
    # The key may come from outside and be of any length.
    inner = key if isinstance(key, int) else ascii(key)[1:-1][:60]
    return str(inner) if name == "it" else f"{name}.{inner}"


_NAMES = {dict: "mapping", list: "list", str: "text", int: "whole number", bool: "True or False"}


def _check_kind(value: Any, kind: type, name: str) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DamagedFileError(f"{name} is no {_NAMES.get(kind, kind.__name__)}")
