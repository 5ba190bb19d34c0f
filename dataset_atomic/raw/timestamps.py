"""Timestamps in whatever form the raw data have them, as seconds."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import polars as pl

from dataset_atomic.lines import first_true
from dataset_atomic.raw.stream import Block
from ksr_recbole.errors import UserError, shown

UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
"""Units of numeric timestamps, by how many make a second."""

SECONDS_BELOW = 10**11
"""Seconds of any year that occurs are below this, and milliseconds since 1973 are above."""

_HOURS = ("", " %H:%M", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p")
"""What may stand behind a date; the last two are hours of a half day, with AM or PM."""

DATE_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.fZ", "%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%d %H:%M:%S%.f UTC", "%Y%m%dT%H%M%S",
    *(
        f"{date}{hour}"
        for date in ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y",
                     "%m-%d-%Y", "%d-%m-%Y", "%d-%b-%Y", "%d %b %Y", "%d.%m.%y",
                     "%m/%d/%y", "%d/%m/%y")
        for hour in _HOURS
    ),
)  # fmt: skip
"""Dates that are recognised; without a zone they are taken as UTC."""

_SAMPLE = 1000
"""Values that are tried with every form before the whole block is with those that fit."""

_OF_DIGITS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Dates that look like numbers, by how many digits they have."""

_NO_FRACTION = r"\.0+$"
"""What a spreadsheet or pandas adds to such a number."""

_FIRST_YEAR, _LAST_YEAR = 1900, 2100
"""Years of dates; "1/3/24" is not one of the year 24, nor 20240301 a number of seconds."""

_FINEST = 10**6
"""Times are distinguished to this part of a second, or finer where the file is."""


class TimestampReader:
    """Reads one file's timestamps; what the first block is like, all others must be.

    Args:
        form: the date format that a user gave, if any.
        option: how a user can give one, where that is possible.

    Attributes:
        form: ``"seconds"`` or another of :data:`UNITS`, or a date format; ``None`` before the
            first block if none was given.
    """

    def __init__(self, form: str | None = None, option: str | None = None) -> None:
        self.form, self._given, self._option = form, form is not None, option

    @property
    def per_second(self) -> int:
        """How many units of :meth:`exact` make one second."""
        return max(_FINEST, UNITS.get(self.form or "seconds", 1))

    def exact(self, block: Block) -> pl.Series:
        """``int64`` time since 1970 of every row, in parts of a second: :attr:`per_second`.

        Fractions of a second count, as they tell what came first.

        Raises:
            UserError: a value of another form, with its line; dates of which it cannot be seen
                which number is the month.
        """
        values = block.frame["timestamp"].str.strip_chars()
        if self.form in (None, *_OF_DIGITS.values()):
            values = _without_fraction(values)
        if self.form is None and len(values):
            self.form = _form_of(values)
            self._check_month_and_day(block, values, self.form)
        result = _convert(values, self.form or "unknown")
        if (row := first_true(result.is_null())) is not None:
            expected = f"{self.form} as in most lines"
            if self._given:
                expected = f"{self.form} ({self._option})"
            elif self.form == "unknown":
                expected = "a number or a date, such as 2024-03-01 10:15"
            other = f", or say how times are written with {self._option}" if self._option else ""
            raise UserError(
                f"{block.line_of(row)}: {shown(repr(values[row]))} is not a timestamp; expected "
                f"{expected}; correct the value{other}."
            )
        return result.rename("timestamp")

    def _check_month_and_day(self, block: Block, values: pl.Series, form: str) -> None:
        """Refuse dates such as 1/3/2024 if no line of a block tells which number is the month.

        Raises:
            UserError: none does.
        """
        other = re.sub(r"%([md])([/-])%([md])", r"%\3\2%\1", form, count=1)
        if other == form or form.startswith("%Y"):
            return
        one, two = _convert(values, form), _convert(values, other)
        differ = (one != two) & one.is_not_null()  # null where only one of them can be
        row = first_true(differ)
        if one.null_count() == two.null_count() and row is not None:
            how = "write them as 2024-03-01"
            if self._option:
                how = f"say it with {self._option}='{form}' or {self._option}='{other}'"
            raise UserError(
                f"{block.line_of(row)}: {shown(repr(values[row]))} may be {form} or {other}, and "
                f"none of the first lines tells which number is the month; {how}."
            )

    def note(self) -> str | None:
        """What was converted, or ``None`` if the file has plain seconds."""
        if self.form in (None, "seconds"):
            return None
        how = "given" if self._given else "detected"
        return f"timestamps are {self.form} ({how}), converted to seconds, UTC"


def unit_of(times: np.ndarray) -> str:
    """The unit, one of :data:`UNITS`, in which most of some times since 1970 make sense."""
    magnitude, unit = float(np.median(np.abs(times))) if len(times) else 0.0, "seconds"
    for step, name in enumerate(UNITS):
        if step and magnitude >= SECONDS_BELOW * 1000 ** (step - 1):
            unit = name
    return unit


def _without_fraction(values: pl.Series) -> pl.Series:
    """Numbers that may be dates without ``.0``; others as they are."""
    whole = values.str.replace(_NO_FRACTION, "")
    return whole if any(_all_of_digits(whole, digits) for digits in _OF_DIGITS) else values


def _all_of_digits(values: pl.Series, digits: int) -> bool:
    return bool(values.str.contains(rf"^\d{{{digits}}}$").all())


def _form_of(values: pl.Series) -> str:
    numbers = values.cast(pl.Float64, strict=False)
    for digits, form in _OF_DIGITS.items():
        if _all_of_digits(values, digits) and not _convert(values, form).null_count():
            return form
    if len(numbers) and numbers.null_count() < len(numbers):
        return unit_of(numbers.drop_nulls().to_numpy())
    sample = _fits(values.head(_SAMPLE), DATE_FORMATS)
    fits = _fits(values, [form for form, n in sample.items() if n] or DATE_FORMATS)
    best = max(fits, key=fits.__getitem__)
    return best if fits[best] else "unknown"


def _fits(values: pl.Series, forms: Iterable[str]) -> dict[str, int]:
    """How many of the values are of each form."""
    return {form: len(values) - _convert(values, form).null_count() for form in forms}


def _convert(values: pl.Series, form: str) -> pl.Series:
    """In parts of a second, null where a value is not of that form."""
    if form == "unknown":
        return pl.Series([None] * len(values), dtype=pl.Int64)
    if form not in UNITS:
        times = values.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC")
        known = times.dt.year().is_between(_FIRST_YEAR, _LAST_YEAR)
        return times.dt.epoch("us").set(~known, None)
    numbers = values.cast(pl.Int64, strict=False)
    finer = max(_FINEST // UNITS[form], 1)
    # What is too large is refused below; here it must only not overflow.
    exact = numbers.set(numbers.abs() > (2**63 - 1) // finer, None) * finer
    if numbers.null_count():
        floats = values.cast(pl.Float64, strict=False)
        floats = floats.set(~floats.is_finite(), None)
        numbers = numbers.fill_null(floats.cast(pl.Int64, strict=False))
        exact = exact.fill_null((floats * finer).round().cast(pl.Int64, strict=False))
    low, high = SECONDS_BELOW * UNITS[form] // 1000, min(SECONDS_BELOW * UNITS[form], 2**63 - 1)
    in_unit = numbers.abs() < high
    if form != "seconds":
        in_unit &= numbers.abs() >= low
    return exact.set(~in_unit, None)
