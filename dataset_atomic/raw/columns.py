"""What the values of a column of your own table mean: numbers, dates, lists or text."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from dataset_atomic.raw.timestamps import DATE_FORMATS

SEPARATORS = ("|", ";", ",")
"""What separates the elements of a list, the first that occurs in a column."""

FEW_NUMBERS = 10
"""Numbers of which a column has no more are values as they are, such as a number of rooms."""

_YEARS = (1800, 2100)
_IS_YEAR = re.compile(r"year|date|released", re.IGNORECASE)

_CURRENCY = (
    r"\p{Sc}|AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|HKD|HUF|INR|JPY|KRW|MXN|NOK|NZD|PLN|RUB|SEK|SGD|"
    r"TRY|USD"
)
_AMOUNT = rf"^(?:{_CURRENCY})?([-+]?[0-9][0-9.,' \x{{a0}}\x{{202f}}]*)(?:{_CURRENCY})?$"
_BLANKS = r"[\s\x{a0}\x{202f}]+"
_THOUSANDS, _DECIMAL_COMMA = r"^[-+]?\d{1,3}(,\d{3})*(\.\d+)?$", r"^[-+]?\d{1,3}(\.?\d{3})*(,\d+)?$"

_DAYS = (*DATE_FORMATS, "%d/%m/%Y", "%d-%b-%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y")
"""Dates of which the year alone counts, so that it does not matter which number is the month."""


def cleaned(texts: pl.Series) -> pl.Series:
    """Text as an atomic file can hold it; empty text is null."""
    plain = texts.str.replace_all(r"[\s\p{Cc}]+", " ").str.replace_all('"', "'", literal=True)
    frame = plain.str.strip_chars().to_frame("text")
    return frame.select(pl.when(pl.col("text") != "").then(pl.col("text")))["text"]


def values_of(
    name: str, values: pl.Series, whole: bool, ranges: int
) -> tuple[pl.Series | None, str]:
    """The values of every item, as text or lists of text, and how they were read.

    Args:
        name: of the column.
        values: an item each.
        whole: take them as they are: not split, not cut into ranges.
        ranges: how many ranges numbers are cut into.

    Returns:
        ``None`` and why, if they cannot be values of an attribute.
    """
    if isinstance(values.dtype, pl.List | pl.Array):
        inner = values.dtype.inner
        if _is_text(inner):
            return values.cast(pl.List(pl.String)), "lists"
        return None, f"its lists hold {inner}"
    if not _is_text(values.dtype):
        return None, f"it holds {values.dtype}"
    if values.dtype in (pl.Date, pl.Datetime) and not whole:
        return values.dt.year().cast(pl.String), "years of dates"
    texts = cleaned(values.cast(pl.String))
    known = texts.drop_nulls()
    if whole or known.is_empty():
        return texts, "as they are"
    numbers, currencies = _numbers(texts)
    if numbers.count() == len(known):
        if len(currencies) > 1:
            return texts, f"amounts in {', '.join(currencies)}, which are not compared, as they are"
        return _of_numbers(name, texts, numbers, ranges)
    years = _years(texts)
    if years.count() == len(known):
        return years, "years of dates"
    return _split(values.cast(pl.String), texts, known)


def _is_text(kind: Any) -> bool:
    """Whether values of a type of Polars can be written as text."""
    return not kind.is_nested() and kind not in (pl.Object, pl.Binary, pl.Duration)


# Numbers and dates ----------------------------------------------------------------------------


def _numbers(texts: pl.Series) -> tuple[pl.Series, list[str]]:
    """Finite numbers, null where there is none, and the currencies that stand at them.

    Commas are read as amounts of money have them, if all values fit; elsewhere ``1,2`` may be a
    list.
    """
    amounts = texts.str.replace_all(_BLANKS, "").str.extract(_AMOUNT, 1)
    signs = texts.str.extract(f"({_CURRENCY})").filter(amounts.is_not_null())
    bare = amounts.str.replace_all("'", "", literal=True)
    if signs.count() and bare.str.contains(",", literal=True).any():
        if bare.drop_nulls().str.contains(_THOUSANDS).all():
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
    if len(np.unique(values)) <= FEW_NUMBERS:
        return texts, "numbers, few of them, as they are"
    edges = _edges(values, ranges)
    labels = [f"{name} {_plain(a)} to {_plain(b)}" for a, b in pairwise(edges)]
    places = np.searchsorted(edges[1:-1], numbers.fill_null(0.0).to_numpy(), side="right")
    cut = pl.Series([labels[place] for place in places]).to_frame("label")
    known = cut.select(pl.when(numbers.is_not_null()).then("label"))["label"]
    return known, f"numbers cut into {len(labels)} ranges with about as many items each"


def _edges(values: np.ndarray, ranges: int) -> np.ndarray:
    """Limits of the ranges, of three digits where that tells them apart; at least two."""
    exact = np.quantile(values, np.linspace(0, 1, ranges + 1))
    rounded = np.array([float(f"{value:.3g}") for value in exact])
    edges = np.unique(rounded)
    if len(edges) <= 2:
        edges = np.unique(exact)
    if len(edges) == 1:
        edges = np.array([values.min(), values.max()])
    # What rounding left outside is inside again.
    edges[0], edges[-1] = min(edges[0], values.min()), max(edges[-1], values.max())
    return edges


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:g}"


def _years(texts: pl.Series) -> pl.Series:
    """The year of every date, whatever its form, or year; null where there is none."""
    years = texts.str.extract(r"^(1[89]\d\d|20\d\d)(?:-\d\d)?$")
    for form in _DAYS:
        if years.null_count() == texts.null_count():
            break
        times = texts.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC")
        years = years.fill_null(times.dt.year().cast(pl.String))
    return years


# Lists ----------------------------------------------------------------------------------------


def _split(raw: pl.Series, texts: pl.Series, known: pl.Series) -> tuple[pl.Series | None, str]:
    if known.str.starts_with("[").all() and (lists := _json_lists(raw)) is not None:
        return lists, "lists in JSON"
    if known.str.contains(r"^[\[{].*[{\[].*[}\]]$|^\{.*\}$").all():
        return None, "it holds objects or lists of them"
    for separator in SEPARATORS:
        if not known.str.contains(separator, literal=True).any():
            continue
        pieces = texts.str.split(separator)
        distinct = pieces.explode().str.strip_chars().n_unique()
        # "Smith, John" is no list: what stands between the commas is not shared by others.
        if separator != "," or distinct < texts.n_unique():
            return pieces, f"lists split at '{separator}'"
    return texts, "text"


def _json_lists(texts: pl.Series) -> pl.Series | None:
    """Lists of plain values written in JSON; ``None`` if there is anything else."""
    lists: list[list[str] | None] = []
    for text in texts:
        try:
            values = json.loads(text) if text and text.strip() else None
        except (ValueError, RecursionError):
            return None
        if values is not None and not isinstance(values, list):
            return None
        if any(isinstance(value, list | dict) for value in values or []):
            return None
        known = None if values is None else [str(value) for value in values if value is not None]
        lists.append(known)
    return pl.Series(lists, dtype=pl.List(pl.String))
