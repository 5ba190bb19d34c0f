"""Tokens as codes, before they get ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence

import numpy as np
import pandas as pd

from dataset_atomic.ids import Ids


class TokenIds(MutableMapping[str, dict[str, int]]):
    """RecBole's ``field2token_id``, made of its ``field2id_token`` where somebody asks.

    Dictionaries of a million entities take a second and 200 MB, and most runs look up few tokens
    or none.  What RecBole sets is the same as what is made here.

    Args:
        tokens: the token of every id, by field; it may change.
    """

    def __init__(self, tokens: Mapping[str, np.ndarray]) -> None:
        self._tokens = tokens
        self._made: list[tuple[np.ndarray, dict[str, int]]] = []

    def __getitem__(self, field: str) -> dict[str, int]:
        tokens = self._tokens[field]
        for array, ids in self._made:
            if array is tokens:
                return ids
        ids = dict(zip(tokens.tolist(), range(len(tokens)), strict=True))
        used = {id(array) for array in self._tokens.values()}
        self._made = [*((a, made) for a, made in self._made if id(a) in used), (tokens, ids)]
        return ids

    def __setitem__(self, field: str, ids: dict[str, int]) -> None:
        """Nothing; see above."""

    def __delitem__(self, field: str) -> None:
        """Nothing; see above."""

    def __iter__(self) -> Iterator[str]:
        return iter(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)


def as_categoricals(ids: Ids) -> dict[str, pd.Categorical]:
    """Columns of one kind of id, with the same categories, by name."""
    dtype = pd.CategoricalDtype(pd.Index(ids.tokens.to_list(), dtype=object))
    return {
        name: pd.Categorical.from_codes(numbers, dtype=dtype, validate=False)
        for name, numbers in ids.numbers.items()
    }


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
    codes = np.concatenate([codes for _, codes in parts])
    if len(known) > 1:
        joint, tokens = pd.factorize(tokens)
        starts = np.cumsum([0, *map(len, known)])
        joint = np.append(joint, -1)  # which is where -1 points to
        codes = np.concatenate(
            [
                joint[np.where(codes < 0, -1, codes.astype(np.int64) + starts[place])]
                for place, codes in parts
            ]
        )
    first = np.full(len(tokens) + 1, len(codes))
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # of several rows the last one stays
    order = codes[np.sort(first[:-1][first[:-1] < len(codes)])]
    number = np.full(len(tokens) + 1, -1)
    number[order] = np.arange(len(order))
    return number[codes], tokens[order]


def found_in(columns: Iterable[pd.Series], tokens: Iterable[str]) -> set[str]:
    """Those of some tokens that one of the columns has."""
    wanted, found = np.array([*tokens], dtype=object), set[str]()
    for codes, known in map(_coded, columns):
        at = known.get_indexer(wanted)
        found.update(wanted[_occurring(codes, len(known))[at]])
    return found


def n_distinct(column: pd.Series) -> int:
    """How many different tokens a column has."""
    codes, known = _coded(column)
    return int(np.count_nonzero(_occurring(codes, len(known))))


def first_items(item2entity: Mapping[str, str]) -> dict[str, str]:
    """RecBole's ``entity2item``: of the items that share an entity the first."""
    found: dict[str, str] = {}
    for item, entity in item2entity.items():
        found.setdefault(entity, item)
    return found


def _occurring(codes: np.ndarray, n: int) -> np.ndarray:
    """Whether each code of 0 to n - 1 occurs, and as the last, to which -1 points, no."""
    there = np.zeros(n + 1, dtype=bool)
    there[codes] = True
    there[-1] = False
    return there


def _coded(column: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """The code of each row of a column, -1 for a missing token, and the token of each code."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy(), column.cat.categories
    codes, tokens = pd.factorize(column.to_numpy())
    return codes, pd.Index(tokens, dtype=object)
