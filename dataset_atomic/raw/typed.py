"""Tables with types, from other programs: JSON, JSON lines and Parquet."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from dataset_atomic.lines import EXACT, check_returns, decoded, text_blocks
from ksr_recbole.errors import UserError, shown
from ksr_recbole.files import open_regular

_JSON = (".json", ".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")


def is_typed(path: Path) -> bool:
    """Whether a file, by its name, is a table that has types and no lines of fields."""
    return _is_json(path) or path.suffix.lower() in _PARQUET


def _is_json(path: Path) -> bool:
    """JSON may be packed with gzip."""
    bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return bare.suffix.lower() in _JSON


def read_typed(path: Path) -> pl.DataFrame:
    """A table of JSON (a list of objects, or an object a line) or of Parquet.

    Numbers that are none (NaN, infinity) are missing.  Bytes that are UTF-8 are text.

    Raises:
        UserError: it is missing, unreadable, malformed or empty.
    """
    frame = _read_json(path) if _is_json(path) else _read_parquet(path)
    if frame.is_empty():
        raise UserError(f"{path} has no rows; expected a table with at least one.")
    return pl.DataFrame([_usual(column) for column in frame])


def texts_of(path: Path, frame: pl.DataFrame, name: str, hint: str = "") -> pl.Series:
    """A column of one value in each row, as text.

    Raises:
        UserError: it holds something else; the sentence ends with the hint.
    """
    column = frame[name]
    kind = column.dtype
    if kind.is_nested() or kind in (pl.Object, pl.Binary):
        held = "bytes" if kind == pl.Binary else "lists or objects"
        raise UserError(
            f"{path}: the column '{shown(name)}' holds {held}; expected one value{hint}."
        )
    return column.cast(pl.String)


def with_whole_ids(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """A table whose ids 7.0, as other programs write numbers of a column with a gap, are 7."""
    ids = frame[name]
    if not (ids.dtype.is_float() or ids.dtype.is_decimal()):
        return frame
    known = ids.cast(pl.Float64).drop_nulls()
    is_whole = bool(((known == known.round()) & (known.abs() < EXACT)).all())
    return frame.with_columns(ids.cast(pl.Int64)) if is_whole else frame


def _usual(column: pl.Series) -> pl.Series:
    if column.dtype.is_float():
        return column.set(~column.is_finite(), None)
    if column.dtype == pl.Binary:
        with suppress(pl.exceptions.PolarsError):  # not UTF-8
            return column.cast(pl.String)
    return column


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        with open_regular(path) as file:
            return pl.read_parquet(file)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; name the file that holds the table.") from None
    except (OSError, pl.exceptions.PolarsError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as Parquet: {shown(str(error), 120)}; correct the file, or "
            "give it the suffix of what it is."
        ) from error


# JSON -----------------------------------------------------------------------------------------


def _read_json(path: Path) -> pl.DataFrame:
    blocks = []
    for first_line, block in text_blocks(path):
        check_returns(path, block, first_line)
        blocks.append(block)
    text = b"".join(blocks)
    if not text.strip():
        raise UserError(f"{path} is empty; expected a JSON object in every line.")
    try:
        return pl.read_ndjson(text, infer_schema_length=None)
    except (pl.exceptions.PolarsError, ValueError):
        # Polars does not say which line, and refuses columns of values of several types.
        return _as_texts(_objects(path, decoded(path, 1, text)))


def _objects(path: Path, text: str) -> list[dict[str, Any]]:
    if text.lstrip().startswith("["):
        found = _parsed(path, text, 1)
        strange = next((k for k, each in enumerate(found) if not isinstance(each, dict)), None)
        if strange is not None:
            raise UserError(f"{path}: element {strange + 1} of the list is not a JSON object.")
        return found
    lines = ((k, line) for k, line in enumerate(text.split("\n"), 1) if line.strip())
    return [_object(path, line, number) for number, line in lines]


def _object(path: Path, line: str, number: int) -> dict[str, Any]:
    found = _parsed(path, line, number)
    if not isinstance(found, dict):
        raise UserError(
            f"{path}, line {number}: {shown(line, 60)} is no object of JSON; expected one such as "
            '{"item_id": 1, "brand": "Acme"} in every line.'
        )
    return found


def _parsed(path: Path, text: str, number: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError):
            number, reason = number + error.lineno - 1, error.msg
        else:
            reason = str(error)
        raise UserError(
            f"{path}, line {number} cannot be read as JSON ({shown(reason, 80)}); expected a whole "
            "object in every line, or one list of objects in the file."
        ) from error


def _as_texts(objects: list[dict[str, Any]]) -> pl.DataFrame:
    """A column of text for every key; lists and objects stay JSON."""
    names = dict.fromkeys(name for each in objects for name in each)
    columns = {_clean(name): [_text(each.get(name)) for each in objects] for name in names}
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value and _clean(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < EXACT else repr(value)
    return _clean(json.dumps(value, ensure_ascii=False))


def _clean(text: str) -> str:
    """Text without the halves of characters that JSON can write."""
    return text.encode(errors="replace").decode()
