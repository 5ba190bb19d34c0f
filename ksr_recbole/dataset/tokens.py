"""Tokens as codes, before they get ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import polars as pl


def as_categoricals(columns: Sequence[pl.Series]) -> list[pd.Categorical]:
    """Columns of one kind of id, with the same categories, in the order of first appearance.

    Args:
        columns: of type ``pl.Categorical``, without a missing id.
    """
    column = pl.concat(columns)
    codes, found = pd.factorize(column.to_physical().to_numpy())
    first = np.empty(len(found), np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # of several rows the last one stays
    tokens = column.gather(first).cast(pl.String).to_list()
    dtype = pd.CategoricalDtype(pd.Index(tokens, dtype=object))
    ends = np.cumsum([len(each) for each in columns])[:-1]
    return [pd.Categorical.from_codes(each, dtype=dtype) for each in np.split(codes, ends)]


def joint_codes(columns: Sequence[pd.Series]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers for the different tokens of some columns together, by first appearance.

    Args:
        columns: Python strings, or what :func:`as_categoricals` makes.

    Returns:
        ``int64 [n]`` of the columns one after the other, -1 for a missing token; and the tokens,
        ``object``.
    """
    known: list[pd.Index] = []
    parts: list[tuple[int, np.ndarray]] = []
    for codes, tokens in map(_coded, columns):
        place = next((k for k, other in enumerate(known) if other is tokens), len(known))
        known += [tokens] if place == len(known) else []
        parts.append((place, codes))
    # Few tokens, each once in a list of its own; and many rows, of numbers only.
    tokens = np.concatenate([each.to_numpy() for each in known])
    joint = np.arange(len(tokens))
    if len(known) > 1:
        joint, tokens = pd.factorize(tokens)
    starts = np.cumsum([0, *map(len, known)])
    joint = np.append(joint, -1)  # which is where -1 points to
    all_codes = np.concatenate(
        [joint[np.where(codes < 0, -1, codes + starts[place])] for place, codes in parts]
    )
    there = all_codes >= 0
    codes = np.full(len(all_codes), -1, np.int64)
    codes[there], order = pd.factorize(all_codes[there])
    return codes, tokens[order]


def _coded(column: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """The codes of a column, ``int64 [n]``, and the token of each."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy(np.int64), column.cat.categories
    codes, tokens = pd.factorize(column.to_numpy())
    return codes, pd.Index(tokens, dtype=object)
