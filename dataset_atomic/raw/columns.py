"""What the values of a column of your own table mean: numbers, dates, lists or text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from dataset_atomic.lines import MISSING
from dataset_atomic.raw.timestamps import DATE_FORMATS
from ksr_recbole.text import counted

SEPARATORS = ("|", ";", ",")
"""What separates the elements of a list, the first that occurs in a column."""

FEW_NUMBERS = 10
"""A column with at most this many different numbers keeps them as they are, as rooms of a flat."""

_MISSING = MISSING - {"-"}
"""What is no value among numbers and dates; a dash among sizes or dates may say something."""

_YEARS = (1800, 2100)
_IS_YEAR = re.compile(r"year|date|released", re.IGNORECASE)

_CURRENCY = (
    r"\p{Sc}|AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|HKD|HUF|INR|JPY|KRW|MXN|NOK|NZD|PLN|RUB|SEK|SGD|"
    r"TRY|USD"
)
_BETWEEN = r"[ '\x{a0}\x{202f}]"
_AMOUNT = (
    rf"^(?:{_CURRENCY})?\s*([-+]?(?:[0-9][0-9.,]*|\d{{1,3}}(?:{_BETWEEN}\d{{3}})+(?:[.,]\d+)?))\s*"
    rf"(?:{_CURRENCY})?$"
)
"""Blanks and apostrophes stand between thousands only: "38 39 40" are three sizes."""
_THOUSANDS, _DECIMAL_COMMA = r"^[-+]?\d{1,3}(,\d{3})*(\.\d+)?$", r"^[-+]?\d{1,3}(\.?\d{3})*(,\d+)?$"

_PYTHON_LIST = r"^\[.*\]$"
_PYTHON_ELEMENT = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,\[\]'"][^,\[\]]*"""

_DAYS = (*DATE_FORMATS, "%d %B %Y", "%b %d, %Y", "%B %d, %Y")
"""Dates of which the year alone counts, so that it does not matter which number is the month."""


def cleaned(texts: pl.Series) -> pl.Series:
    """Text as an atomic file can hold it; empty text is null."""
    plain = texts.str.replace_all(r"[\s\p{Cc}]+", " ").str.replace_all('"', "'", literal=True)
    frame = plain.str.strip_chars().to_frame("text")
    return frame.select(pl.when(pl.col("text") != "").then(pl.col("text")))["text"]


def values_of(
    name: str, values: pl.Series, whole: bool, ranges: int, decimal_comma: bool = False
) -> tuple[pl.Series | None, str]:
    """The values of every item, as text or lists of text, and how they were read.

    Args:
        name: of the column.
        values: an item each.
        whole: take them as they are: not split, not cut into ranges.
        ranges: how many ranges numbers are cut into.
        decimal_comma: 1,5 is a number, as in tables of programs that separate columns by ``;``.

    Returns:
        ``None`` and why, if they cannot be values of an attribute.
    """
    if isinstance(values.dtype, pl.List | pl.Array):
        return _of_lists(values)
    if not _is_text(values.dtype):
        return None, f"it holds {_called(values.dtype)}"
    if values.dtype in (pl.Date, pl.Datetime) and not whole:
        return values.dt.year().cast(pl.String), "years of dates"
    texts = cleaned(values.cast(pl.String))
    known = texts.drop_nulls()
    if whole or known.is_empty():
        return texts, "as they are"
    is_known = texts.is_not_null() & ~texts.str.to_lowercase().is_in(_MISSING)
    bare = texts.zip_with(is_known, pl.Series([None], dtype=pl.String))
    n_known, n_missing = bare.count(), len(known) - bare.count()
    missing = f"; {n_missing:,} such as NA are none" if n_missing else ""
    numbers, currencies = _numbers(bare, decimal_comma)
    if numbers.count() == n_known > 0:
        if len(currencies) > 1:
            return texts, f"amounts in {', '.join(currencies)}, which are not compared, as they are"
        found, how = _of_numbers(name, bare, numbers, ranges)
        commas = ""
        if decimal_comma and not currencies and bare.str.contains(",", literal=True).any():
            commas = "; commas are decimal, as the separator is ';' (lists: a|b)"
        return found, how + commas + missing
    years = _years(bare)
    if years.count() == n_known > 0:
        return years, "years of dates" + missing
    return _split(values.cast(pl.String), texts, known)


def _is_text(kind: Any) -> bool:
    """Whether values of a type of Polars can be written as text."""
    return not kind.is_nested() and kind not in (pl.Object, pl.Binary, pl.Duration)


def _called(kind: Any) -> str:
    """A type of values that are left out, in a word."""
    if isinstance(kind, pl.Struct):
        return "objects"
    if kind == pl.Duration:
        return "durations"
    return "bytes" if kind == pl.Binary else str(kind)


# Numbers and dates ----------------------------------------------------------------------------


def _numbers(texts: pl.Series, decimal_comma: bool = False) -> tuple[pl.Series, list[str]]:
    """Finite numbers, null where there is none, and the currencies that stand at them.

    Commas are read as amounts of money have them, if all values fit; elsewhere ``1,2`` may be a
    list, unless commas are decimal.
    """
    amounts = texts.str.extract(_AMOUNT, 1)
    signs = texts.str.extract(f"({_CURRENCY})").filter(amounts.is_not_null())
    bare = amounts.str.replace_all(_BETWEEN, "")
    if (signs.count() or decimal_comma) and bare.str.contains(",", literal=True).any():
        if not decimal_comma and bare.drop_nulls().str.contains(_THOUSANDS).all():
            bare = bare.str.replace_all(",", "", literal=True)
        elif bare.drop_nulls().str.contains(_DECIMAL_COMMA).all():
            bare = bare.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    plain = texts.cast(pl.Float64, strict=False)
    numbers = plain.fill_null(bare.cast(pl.Float64, strict=False))
    finite = numbers.to_frame("n").select(pl.when(pl.col("n").is_finite()).then("n"))["n"]
    return finite, sorted(signs.drop_nulls().unique())


def _of_numbers(
    name: str, texts: pl.Series, numbers: pl.Series, ranges: int
) -> tuple[pl.Series, str]:
    values = numbers.drop_nulls().to_numpy()
    whole_numbers = bool((values == np.round(values)).all())
    is_year = whole_numbers and values.min() >= _YEARS[0] and values.max() <= _YEARS[1]
    if is_year and _IS_YEAR.search(name):
        return numbers.cast(pl.Int64).cast(pl.String), "years"
    different = np.unique(values)
    if len(different) <= FEW_NUMBERS:
        return texts, "numbers, few of them, as they are"
    edges = _edges(values, ranges)
    evenly = "about as many items each"
    if len(edges) <= 2:  # most items have one and the same
        edges, evenly = _edges(different, ranges), "about as many different numbers each"
    labels = _labels(name, edges, digits=6)
    if len(set(labels)) < len(labels):
        labels = _labels(name, edges, digits=15)
    which = np.searchsorted(edges[1:-1], numbers.fill_null(0.0).to_numpy(), side="right")
    cut = pl.Series([labels[k] for k in which]).to_frame("label")
    known = cut.select(pl.when(numbers.is_not_null()).then("label"))["label"]
    return known, f"numbers cut into {counted(len(labels), 'range')} with {evenly}"


def _labels(name: str, edges: np.ndarray, digits: int) -> list[str]:
    return [f"{name} {_plain(a, digits)} to {_plain(b, digits)}" for a, b in pairwise(edges)]


def _edges(values: np.ndarray, ranges: int) -> np.ndarray:
    """Limits of the ranges, of three digits where that tells them apart; at least two."""
    exact = np.quantile(values, np.linspace(0, 1, ranges + 1))
    rounded = np.array([float(f"{value:.3g}") for value in exact])
    edges = np.unique(rounded)
    if len(edges) <= 2:
        edges = np.unique(exact)
    # What rounding left outside is inside again.
    edges[0], edges[-1] = min(edges[0], values.min()), max(edges[-1], values.max())
    return edges


def _plain(value: float, digits: int) -> str:
    whole = value == round(value) and abs(value) < 1e15
    return f"{value:,.0f}" if whole else f"{value:.{digits}g}"


def _years(texts: pl.Series) -> pl.Series:
    """The year of every date, whatever its form, or year; null where there is none."""
    years = texts.str.extract(r"^(1[89]\d\d|20\d\d)(?:-\d\d)?$")
    for form in _DAYS:
        if years.null_count() == texts.null_count():
            break
        times = texts.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC")
        found = times.dt.year()
        found = found.set(~found.is_between(1000, 9999), None)  # "5/1/99" is not of the year 99
        years = years.fill_null(found.cast(pl.String))
    return years


# Lists ----------------------------------------------------------------------------------------


def _of_lists(values: pl.Series) -> tuple[pl.Series | None, str]:
    """Lists of a table with types; lists of lists are taken as one."""
    how = "lists"
    while True:
        if isinstance(values.dtype, pl.Array):
            values = values.arr.to_list()
        assert isinstance(values.dtype, pl.List)
        inner = values.dtype.inner
        if not isinstance(inner, pl.List | pl.Array):
            break
        values, how = values.list.eval(pl.element().explode()), "lists of lists, each as one"
    if not _is_text(inner):
        return None, f"its lists hold {_called(inner)}"
    return values.cast(pl.List(pl.String)), how


def _split(raw: pl.Series, texts: pl.Series, known: pl.Series) -> tuple[pl.Series | None, str]:
    if known.str.contains(r"^[\[{]").any():
        if (found := _json_values(raw)) is not None:
            return found
        if known.str.contains(_PYTHON_LIST).all():
            return _python_lists(raw)
    for separator in SEPARATORS:
        if not known.str.contains(separator, literal=True).any():
            continue
        pieces = texts.str.split(separator)
        distinct = pieces.explode().str.strip_chars().n_unique()
        # "Smith, John" is no list: what stands between the commas is not shared by others.
        if separator != "," or distinct < texts.n_unique():
            return pieces, f"lists split at '{separator}'"
    return texts, "text"


def _json_values(texts: pl.Series) -> tuple[pl.Series | None, str] | None:
    """The values of lists written in JSON; other text is a value, objects are counted.

    Returns:
        ``None`` where what begins like JSON is none.
    """
    lists: list[list[str] | None] = []
    objects = plain = 0
    for text in texts:
        if not text or not text.strip().startswith(("[", "{")):
            lists.append(None if text is None else [text])
            plain += bool(text and text.strip())
            continue
        try:
            elements = list(_elements(json.loads(text)))
        except (ValueError, RecursionError):
            return None
        lists.append([str(value) for value in elements if not isinstance(value, dict)])
        objects += sum(isinstance(value, dict) for value in elements)
    if objects and not any(lists):
        return None, "it holds objects or lists of them"
    how = f"lists in JSON{' and text' if plain else ''}"
    left = f" without {objects:,} object{'s' * (objects > 1)} in them" if objects else ""
    return pl.Series(lists, dtype=pl.List(pl.String)), how + left


def _elements(value: Any) -> Iterator[Any]:
    """The values in lists of lists."""
    if isinstance(value, list):
        for each in value:
            yield from _elements(each)
    elif value is not None:
        yield value


def _python_lists(texts: pl.Series) -> tuple[pl.Series | None, str]:
    """Lists as Python prints them, ``['a', 'b']``, which other programs write into a CSV file."""
    if texts.str.contains("{", literal=True).any():
        return None, "it holds objects or lists of them"
    elements = texts.str.extract_all(_PYTHON_ELEMENT)
    bare = pl.element().str.replace(r"""^['"](.*)['"]$""", "${1}")
    return elements.list.eval(bare.str.replace_all(r"\\(['\"\\])", "${1}")), "lists"
