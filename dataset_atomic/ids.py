"""Ids of atomic files as numbers: few different ones stand in many rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Ids:
    """The ids of columns of one kind.

    Attributes:
        numbers: of each column by name, the number of the id in each row, ``int32 [n]``.
        tokens: the id of each number, by first appearance in the columns one after the other.
    """

    numbers: dict[str, np.ndarray]
    tokens: pl.Series


def numbered(columns: Mapping[str, pl.Series]) -> Ids:
    """Numbers for the ids of columns of one kind.

    Args:
        columns: text by column name, without a missing id.
    """
    import pandas as pd  # a conversion needs none, and it takes half a second

    column = pl.concat(columns.values())
    # A hash table of numbers takes a fifth of the time of one of texts.  Should two ids have
    # the same hash, which their comparison shows, another seed tells them apart.
    for seed in count():
        codes, hashes = pd.factorize(column.hash(seed).to_numpy())
        codes = codes.astype(np.int32)
        first = np.empty(len(hashes), np.int64)
        first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # of several rows the last one stays
        tokens = column.gather(first)
        if (tokens.gather(codes) == column).all():
            break
    ends = np.cumsum([len(each) for each in columns.values()])[:-1]
    return Ids(dict(zip(columns, np.split(codes, ends), strict=True)), tokens)
